"""What a definition's alerts would have done: an exact evaluator of the compiled rules over counted events.

It says what Prometheus would say, without one: `tests/slo/test_simulation.py` holds the two side by side on the same
traffic. Semantics:

- Rules run every evaluation interval, at the moment of a scrape; an event is seen at the end of the interval in which
  it happened. Prometheus scrapes and evaluates at moments of its own, so it may be an interval later.
- Windows are what the recording rules make of them: the shortest is a `rate` over its scrapes, the longer ones are
  means of that, those of a day and more of five-minute means, which the alerts read five minutes late.
- The counters have counted long before the traffic begins, each as one series that never restarts, and nothing is
  lost: a restart, a missed scrape or a pod that is gone changes what Prometheus sees, not what happened.
- Before the traffic begins there is nothing: means are taken over what exists, as by rules that have just started.
- Alerts on the absence of data are left out: events that did not happen are no missing series.
"""

from slo.simulation.alerting import Alerting, BurnAlert, BurnWay
from slo.simulation.evaluator import Firing, Outcome, Simulation, simulate
from slo.simulation.traffic import Incident, Traffic

__all__ = ["Alerting", "BurnAlert", "BurnWay", "Firing", "Incident", "Outcome", "Simulation", "Traffic", "simulate"]
