"""The redemption service: guests spend points, and every request spends them exactly once.

The parts, inside out:

    domain          what a redemption is; imports nothing outward
    ledger          the domain's questions, asked of Postgres; one function call is one transaction
    problems        what can go wrong, as a caller sees it (RFC 9457)
    routes          HTTP to domain and back, and nothing else
    middleware      one place that measures, sheds and traces every request
    telemetry       Prometheus instruments, made from the catalogue in `slo.metrics`
    tracing, logs   OpenTelemetry spans and JSON lines that carry the same trace id
    settings        the environment, checked once at the start
    app             `create_app` joins the parts

and for whoever runs it: `administration` (migrations, logins, granting points) and `embedded_postgres`.
"""
