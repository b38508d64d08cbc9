"""Sloth specs from elsewhere become SLOs of ours, so that a team can move in a minute.

::

    imported = read(Path("checkout.yaml").read_text(), "checkout.yaml")
    print(to_python(imported.slos))

Read are `prometheus/v1` and the Kubernetes kind `PrometheusServiceLevel`, several documents a file. Sloth drops what
it does not know in silence; here an unknown key, like every other fault, is an error with its line.

Counts and rates: our rules record events per second, and an alert's minimum of bad events is that rate times its
window. A foreign query that counts per window (`increase`) reads the same in every ratio and burn rate, but its
"rate" is a count per five minutes, with `increase` 300 times too high, so a minimum of bad events is met by far fewer.
Such a query is imported, with a note.
"""

from alerts.sloth_import.nodes import SpecError
from alerts.sloth_import.printer import to_python
from alerts.sloth_import.reader import Imported, read

__all__ = ["Imported", "SpecError", "read", "to_python"]
