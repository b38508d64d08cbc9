"""SQS: the queue of deferred redemptions, and its dead-letter queue.

A queue that rests for six hours has no metrics any more: what is missing waits for nobody.
"""

from slo.metrics.aws import AWS_LABELS
from slo.metrics.kinds import CloudWatch, Counter, Gauge

QUEUE_LABELS = (*AWS_LABELS, "queue")
QUEUE_ROLES = ("work", "dead_letter")
"""A dead-letter queue is one that another queue's redrive policy names."""


def _of_each_role(name: str, statistic: str) -> tuple[CloudWatch, ...]:
    """A queue has one role, so of these addresses the exporter asks for one."""
    return tuple(
        CloudWatch(
            namespace="AWS/SQS",
            name=name,
            statistic=statistic,
            dimensions={"QueueName": "queue"},
            labels={"role": role},
        )
        for role in QUEUE_ROLES
    )


SQS_OLDEST_MESSAGE_AGE = Gauge(
    "sqs_oldest_message_age_seconds",
    "How long the oldest message has waited; one that was received three times already is left out by AWS.",
    labels={"role": QUEUE_ROLES},
    open_labels=QUEUE_LABELS,
    cloudwatch=_of_each_role("ApproximateAgeOfOldestMessage", "Maximum"),
)

SQS_MESSAGES_VISIBLE = Gauge(
    "sqs_messages_visible",
    "Messages that wait, about.",
    labels={"role": QUEUE_ROLES},
    open_labels=QUEUE_LABELS,
    cloudwatch=_of_each_role("ApproximateNumberOfMessagesVisible", "Maximum"),
)

SQS_MESSAGES_IN_FLIGHT = Gauge(
    "sqs_messages_in_flight",
    "Messages that were received and not yet deleted, about; a standard queue holds at most 120,000, a FIFO 20,000.",
    labels={"role": QUEUE_ROLES},
    open_labels=QUEUE_LABELS,
    cloudwatch=_of_each_role("ApproximateNumberOfMessagesNotVisible", "Maximum"),
)

SQS_MESSAGES_SENT = Counter(
    "sqs_messages_sent_total",
    "Messages that were sent; those that AWS moves to a dead-letter queue are not counted there.",
    labels={"role": QUEUE_ROLES},
    open_labels=QUEUE_LABELS,
    cloudwatch=_of_each_role("NumberOfMessagesSent", "Sum"),
)

SQS_MESSAGES_DELETED = Counter(
    "sqs_messages_deleted_total",
    "Messages that were deleted, as they were dealt with.",
    labels={"role": QUEUE_ROLES},
    open_labels=QUEUE_LABELS,
    cloudwatch=_of_each_role("NumberOfMessagesDeleted", "Sum"),
)

QUEUE_METRICS = (
    SQS_OLDEST_MESSAGE_AGE,
    SQS_MESSAGES_VISIBLE,
    SQS_MESSAGES_IN_FLIGHT,
    SQS_MESSAGES_SENT,
    SQS_MESSAGES_DELETED,
)
