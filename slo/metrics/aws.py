"""What all metrics of AWS resources have in common.

`instance`, `region`, `zone`, `cluster` and `type` belong to whoever scrapes
(https://prometheus.io/docs/instrumenting/writing_exporters/#labels), so none of our labels has such a name.

A statistic of AWS is one minute's; a `Sum` goes into a counter of ours, which the exporter keeps.
"""

from decimal import Decimal

AWS_LABELS = ("aws_account_id", "aws_region")
"""On every series of an AWS resource: one exporter may look after several accounts and regions."""

PERCENT = Decimal("0.01")
MICROSECONDS = Decimal("0.000001")
TAKEN_AWAY = Decimal(-1)
