"""The table of incidents."""

from __future__ import annotations

from typing import Final

from drills.incidents import faults
from drills.incidents.expected import absent, because_of, burns
from drills.incidents.incident import Incident
from drills.incidents.stage import EXPORTERS, REQUESTS_PER_SECOND, SECOND_SERVICE
from slo import Severity
from slo import conventions as names
from slo.definitions import queue, redemption, redis

_REDEMPTIONS_PER_SECOND: Final = REQUESTS_PER_SECOND / 2

# While the database is away nothing is sealed or verified; both are tickets.
_LATE_UPKEEP: Final = tuple(
    (names.alert_name(slo, Severity.TICKET), "ticket") for slo in (redemption.sealing, redemption.verification)
)

_SERVICE_UNSEEN: Final = tuple(
    absent(slo)
    for slo in (
        redemption.availability,
        redemption.capture_and_refund,
        redemption.latency_fast,
        redemption.latency_slow,
    )
)

INCIDENTS: Final = {
    one.name: one
    for one in (
        Incident(
            name="database-slow",
            meaning="Every answer of the database is late by 0.26 s.",
            fault=faults.slow_path(260),
            expects=(
                burns(
                    redemption.latency_fast,
                    bad_per_second=_REDEMPTIONS_PER_SECOND,
                    of_per_second=_REDEMPTIONS_PER_SECOND,
                    notice_seconds=1,
                ),
            ),
            may_come=((names.alert_name(redemption.latency_slow, Severity.PAGE), "page"),),  # who waits for two calls
            hurts=False,
            sees="All redemptions are slow, none fails: look at the ledger and the way to it.",
        ),
        Incident(
            name="database-down",
            meaning="The database cannot be reached, from the service or from the worker.",
            fault=faults.cut_paths,
            expects=(
                burns(
                    redemption.availability,
                    bad_per_second=_REDEMPTIONS_PER_SECOND,
                    of_per_second=REQUESTS_PER_SECOND,
                    notice_seconds=2,
                ),
            ),
            # Whoever was deferred waits for more than five minutes by then.
            may_come=((names.alert_name(redemption.settlement, Severity.PAGE), "page"), *_LATE_UPKEEP),
            sees="Reads fail, redemptions go to the queue: look at the database, and then watch them being settled.",
        ),
        Incident(
            name="redis-down",
            meaning="All of the Valkey cluster is gone.",
            fault=faults.kill_valkey,
            expects=(because_of("source-redis-fails", notice_seconds=7),),
            may_come=(("RedisCallsFail", "ticket"),),
            needs=frozenset({EXPORTERS}),
            hurts=False,
            sees="No guest is hurt: a ticket says that hints and quotas are not shared.",
        ),
        Incident(
            name="queue-backlog",
            meaning="Deferred redemptions wait in the queue, as a forgotten transaction locks their guest's account.",
            fault=faults.leave_backlog,
            expects=(
                burns(
                    redemption.settlement,
                    bad_per_second=1,
                    of_per_second=1,
                    notice_seconds=5,  # five minutes may pass by the promise
                ),
            ),
            hurts=False,
            sees="Guests who were told that it is done still wait: look at the worker, and who holds the account.",
        ),
        Incident(
            name="worker-stopped",
            meaning="The worker is gone, so nobody settles, seals or verifies.",
            fault=faults.stop_worker,
            expects=(
                absent(redemption.settlement),
                absent(redemption.integrity),
                absent(redemption.sealing),
                absent(redemption.verification),
            ),
            hurts=False,
            sees="Nobody knows whether redemptions are settled: start a worker.",
        ),
        Incident(
            name="partial-errors",
            meaning="Half of the connections to the database are reset, twice a second anew.",
            fault=faults.reset_some,
            expects=(
                burns(
                    redemption.availability,
                    bad_per_second=0.5,
                    of_per_second=REQUESTS_PER_SECOND,
                    comes_in_bursts=True,
                ),
            ),
            path_latency_milliseconds=50,
            sees="A part of the requests fails, the rest is well: look at the network between service and ledger.",
        ),
        Incident(
            name="latency",
            meaning="A batch job locks the guests' accounts for 1.8 s at a time.",
            fault=faults.lock_guests,
            # Of those who come while it is locked two in five wait for more than a second; they are told when it ends.
            expects=(
                burns(
                    redemption.latency_slow,
                    bad_per_second=_REDEMPTIONS_PER_SECOND * 0.3,
                    of_per_second=_REDEMPTIONS_PER_SECOND,
                    notice_seconds=3.8,
                    comes_in_bursts=True,
                ),
                burns(
                    redemption.latency_fast,
                    bad_per_second=_REDEMPTIONS_PER_SECOND * 0.7,
                    of_per_second=_REDEMPTIONS_PER_SECOND,
                    notice_seconds=3.8,
                    comes_in_bursts=True,
                ),
            ),
            hurts=False,
            sees="Guests wait for more than a second, reads are well: look at the ledger's locks.",
        ),
        Incident(
            name="saturation",
            meaning="250 requests a second more come to a service that works on 8 at once.",
            fault=faults.overload,
            expects=(
                burns(
                    redemption.availability,
                    bad_per_second=faults.OVERLOAD_PER_SECOND / 4,
                    of_per_second=REQUESTS_PER_SECOND,
                    notice_seconds=0.5,
                ),
            ),
            settings={"REDEMPTION_IN_FLIGHT_MAX": "8"},
            path_latency_milliseconds=50,
            sees="Requests are shed, reads first, and the database is well: add pods, or limit who sends most.",
        ),
        Incident(
            name="crash-loop",
            meaning="The service dies, and each that takes its place dies while it starts.",
            fault=faults.crash_again,
            expects=_SERVICE_UNSEEN,
            sees="There is no service to be scraped: look at the pods' last words.",
        ),
        Incident(
            name="exporter-dead",
            meaning="The exporters are gone.",
            fault=faults.stop_exporter,
            expects=(absent(redis.availability), absent(queue.waiting)),
            needs=frozenset({EXPORTERS}),
            hurts=False,
            sees="What stands behind the service is unseen, and no guest is hurt: start the exporters.",
        ),
        Incident(
            name="scrape-gone",
            meaning="Prometheus cannot reach the service, which serves its guests all along.",
            fault=faults.cut_scrapes,
            expects=_SERVICE_UNSEEN,
            hurts=False,
            sees="As for a crash loop; that guests are served tells the edge's board.",
        ),
        Incident(
            name="bad-deploy",
            meaning="A new process takes half of the requests, and gives each 10 ms where the old one gives 2 s.",
            fault=faults.deploy_badly,
            expects=(
                burns(
                    redemption.availability,
                    bad_per_second=_REDEMPTIONS_PER_SECOND / 2,
                    of_per_second=REQUESTS_PER_SECOND,
                    notice_seconds=0.5,
                ),
            ),
            needs=frozenset({SECOND_SERVICE}),
            path_latency_milliseconds=20,
            hurts=False,
            sees="Requests time out at one instance only: roll that deployment back.",
        ),
    )
}
"""Every incident, by its name."""
