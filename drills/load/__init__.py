"""Load: many cheap requests to a redemption service on this machine, what became of each, and how long it took.

::

    report = load(service.url, Plan(accounts=("a", "b"), per_second=2000))  # open loop: a constant rate
    report = load(service.url, Plan(accounts=("a", "b"), connections=64))  # closed loop: finds the capacity
    report.redemptions.goodput_per_second, report.redemptions.accepted_latency.p99_seconds

A drill records the history, settles what is unknown after the fault, and has it judged (`drills.verdict`)::

    with loading(url, Plan(accounts=accounts, record=True)) as flow:
        ...                                # hurt it
    history = resolve(flow.report().history, url)

The generator shares the cores with what it measures, so it is written for few instructions: benchmarks run it as a
process of its own, `python -m drills.load --help`.
"""

from drills.load.generator import Loading, load, loading
from drills.load.history import History, Operation, Outcome
from drills.load.plan import Plan, PlanError
from drills.load.report import Latency, Report, Tally
from drills.load.resolution import resolve

__all__ = [
    "History",
    "Latency",
    "Loading",
    "Operation",
    "Outcome",
    "Plan",
    "PlanError",
    "Report",
    "Tally",
    "load",
    "loading",
    "resolve",
]
