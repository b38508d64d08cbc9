"""The redemption service: guests spend points, and every request spends them exactly once.

The parts, inside out:

    domain          what a redemption is; imports nothing outward
    database        connections whose calls are never cancelled
    batching        many callers, one call of the database
    ledger          the domain's questions, asked of Postgres; one call is one transaction
    deferral, queue redemptions that wait in SQS while the ledger is away
    valkey          hints, quotas and bursts: speed, never correctness
    redeeming       the way of a redemption: ledger, hint or queue
    security        who calls; rate_limits: how often
    admission       who may come in
    protocol        turned away at the headers; whole_requests: without a parser; outgoing: answers leave together
    middleware      one place that measures and traces every request
    problems        what can go wrong, as a caller sees it (RFC 9457)
    routes          HTTP to domain and back, and nothing else; openapi: what it says of itself
    telemetry       Prometheus instruments, made from the catalogue in `slo.metrics`
    tracing, logs   OpenTelemetry spans and JSON lines that carry the same trace id
    settings        the environment, checked once at the start; parts: what is made from it
    app             `create_app` joins the parts of the service, `worker` those of the worker

and for whoever runs it: `verification`, `administration` (migrations, logins, granting points) and `embedded_postgres`.
"""
