"""SQS: its queues, and which of them take dead letters."""

from __future__ import annotations

import json

from exporters.sources.resources import Found, Kind, Place
from slo.metrics.queue import QUEUE_METRICS

_PAGE = 1000  # only with a page size does SQS say where the next page begins


class Sqs(Kind):
    """Queues."""

    metrics = QUEUE_METRICS

    def find(self, place: Place) -> Found:
        """Every queue with its role: `dead_letter` when the redrive policy of another one names it."""
        tagged = place.tagged("sqs")
        queues: dict[str, str] = {}
        dead_letters = set()
        for url in place.all("sqs:ListQueues", MaxResults=_PAGE):
            names = ["QueueArn", "RedrivePolicy"]
            told = place.ask("sqs:GetQueueAttributes", QueueUrl=url, AttributeNames=names).get("Attributes", {})
            if told["QueueArn"] not in tagged:
                continue
            queues[told["QueueArn"]] = told["QueueArn"].rpartition(":")[2]
            dead_letters.add(json.loads(told.get("RedrivePolicy", "{}")).get("deadLetterTargetArn"))
        return Found(
            [
                place.labels | {"queue": name, "role": "dead_letter" if arn in dead_letters else "work"}
                for arn, name in queues.items()
            ]
        )
