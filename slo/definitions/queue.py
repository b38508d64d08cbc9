"""What we expect of SQS, which keeps redemptions while the database cannot take them, and what may soon hurt it.

That guests wait for a settlement pages by the redemption's own promise; here nobody is woken. Limits are those of AWS's
recommended alarms (Amazon CloudWatch User Guide, "Recommended alarms: Amazon SQS") unless another source is named.
"""

from datetime import timedelta
from decimal import Decimal

from slo import Alert, Rolling, Severity, Slo, TimeSlice
from slo.causes import Cause, Component, Query, Signal, Source, Threshold
from slo.metrics.queue import (
    QUEUE_METRICS,
    SQS_MESSAGES_DELETED,
    SQS_MESSAGES_IN_FLIGHT,
    SQS_MESSAGES_SENT,
    SQS_MESSAGES_VISIBLE,
    SQS_OLDEST_MESSAGE_AGE,
)
from slo.runbook import Runbook, Step

OWNER = "loyalty-sre"
MINUTE = timedelta(minutes=1)

sources = (Source(component=Component.QUEUE, process="exporters", metrics=QUEUE_METRICS),)

_COUNTS = (
    'aws sqs get-queue-attributes --queue-url "$QUEUE_URL" --attribute-names All  # what waits, and what is in flight'
)
_WORKERS = "kubectl get pods -l app.kubernetes.io/component=worker  # are there workers, and do they restart?"

waiting = Slo(
    service="queue",
    name="waiting",
    component=Component.QUEUE,
    signals=(Signal.LATENCY,),
    description="No deferred redemption waits in the queue for more than five minutes.",
    objective=Decimal("99.9"),
    window=Rolling(days=30),
    sli=TimeSlice(SQS_OLDEST_MESSAGE_AGE.where(role="work"), bad_above=Decimal(300)),
    reason=(
        "Five minutes and 99.9 % are what the settlement promises the guests; this is the same, as AWS itself sees it, "
        "so that a worker that is gone cannot hide it."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Guests whose redemption was accepted for later wait for more than five minutes. It is what "
            "`RedemptionSettlementPage` tells, as SQS itself sees it."
        ),
        diagnosis=(
            _COUNTS,
            _WORKERS,
            "kubectl logs -l app.kubernetes.io/component=worker --since 30m  # what stops them",
        ),
        mitigation=(
            Step(
                "Start or add workers: `kubectl scale deployment/redemption-worker --replicas N`",
                "there are none, or too few, and the ledger answers",
                "more load on the ledger",
            ),
            Step(
                "Mend the ledger first",
                "it does not answer; then workers receive nothing, on purpose",
                "none: messages are kept for days",
            ),
            Step(
                "`redemption-service redrive`",
                "there are dead letters, and what killed them is mended",
                "settling twice settles once, so none",
            ),
        ),
        escalation=(
            "If this fires and `RedemptionSettlementPage` does not, no worker reports: treat it as that page, and call "
            "the owner now."
        ),
    ),
)


causes = (
    Cause(
        component=Component.QUEUE,
        signal=Signal.TRAFFIC,
        name="nothing-deleted",
        summary="Messages come into the queue, and none is dealt with.",
        condition=Query(
            promql=(
                'rate(sqs_messages_sent_total{role="work"}[15m]) > 0\n'
                "and\n"
                'rate(sqs_messages_deleted_total{role="work"}[15m]) == 0'
            ),
            metrics=(SQS_MESSAGES_SENT, SQS_MESSAGES_DELETED),
            fires={
                'sqs_messages_sent_total{queue="deferred", role="work"}': "0+10",
                'sqs_messages_deleted_total{queue="deferred", role="work"}': "0",
            },
            near_miss={
                'sqs_messages_sent_total{queue="deferred", role="work"}': "0+10",
                'sqs_messages_deleted_total{queue="deferred", role="work"}': "0+1",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "15 of 15 minutes, as in AWS's recommended alarm on messages sent; a worker settles a message in seconds."
        ),
        owner=OWNER,
        diagnosis=(_WORKERS, _COUNTS),
        mitigation="Start workers. While the ledger is away none can settle anything: then nothing is wrong here.",
    ),
    Cause(
        component=Component.QUEUE,
        signal=Signal.ERRORS,
        name="dead-letters",
        summary="Messages were given up after several attempts.",
        condition=Threshold(gauge=SQS_MESSAGES_VISIBLE.where(role="dead_letter"), above=Decimal(0)),
        hold=5 * MINUTE,
        reason=(
            "Each is a guest's redemption that was accepted and not settled, so one is too many. The messages that are "
            "visible count: those that AWS moves are not counted as sent."
        ),
        owner=OWNER,
        diagnosis=(
            'aws sqs receive-message --queue-url "$DEAD_LETTER_URL" --visibility-timeout 0  # one of them; it stays',
            _COUNTS,
        ),
        mitigation="Mend why they fail, then start a redrive to the work queue; settling twice moves no point twice.",
    ),
    Cause(
        component=Component.QUEUE,
        signal=Signal.SATURATION,
        name="backlog-grows",
        summary="The queue holds more than the workers settle in ten minutes.",
        condition=Query(
            promql=(
                'sqs_messages_visible{role="work"} / rate(sqs_messages_deleted_total{role="work"}[10m]) > 600\n'
                "and\n"
                'sqs_messages_visible{role="work"} > 100'
            ),
            metrics=(SQS_MESSAGES_VISIBLE, SQS_MESSAGES_DELETED),
            fires={
                'sqs_messages_visible{queue="deferred", role="work"}': "7000",
                'sqs_messages_deleted_total{queue="deferred", role="work"}': "0+600",
            },
            near_miss={
                'sqs_messages_visible{queue="deferred", role="work"}': "5000",
                'sqs_messages_deleted_total{queue="deferred", role="work"}': "0+600",
            },
        ),
        hold=10 * MINUTE,
        reason=(
            "What waits, divided by the pace at which it goes, is the time until the last one is settled; "
            "ten minutes are twice what the guests were promised. A hundred messages are no backlog at any pace."
        ),
        owner=OWNER,
        diagnosis=(_COUNTS, _WORKERS),
        mitigation="Add workers, if the database has room: look at its load first.",
    ),
    Cause(
        component=Component.QUEUE,
        signal=Signal.SATURATION,
        name="in-flight-full",
        summary="The queue soon hands out no more messages.",
        condition=Threshold(gauge=SQS_MESSAGES_IN_FLIGHT.where(role="work"), above=Decimal(16_000)),
        hold=5 * MINUTE,
        reason="80 % of the 20,000 that a FIFO queue has in flight at most (Amazon SQS Developer Guide, quotas).",
        owner=OWNER,
        diagnosis=(_COUNTS, _WORKERS),
        mitigation=(
            "Find workers that receive and never delete; a shorter visibility timeout gives their messages back."
        ),
    ),
)
