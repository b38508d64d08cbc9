"""From the fault to whoever is told: every way to fail, rehearsed with every part real, and judged.

Each incident starts everything (`stage`), sees that nobody is told anything, strikes (`faults`), and judges what people
get (`incident`): the right alert, within the time that follows from its promise's policy (`expected`), once, to the
right route, and nothing else. `table` has them all; `python -m drills.incidents` runs them.
"""

from drills.incidents.incident import Incident, Rehearsal, rehearsal
from drills.incidents.table import INCIDENTS

__all__ = ["INCIDENTS", "Incident", "Rehearsal", "rehearsal"]
