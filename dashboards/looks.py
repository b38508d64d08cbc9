"""What is good and what is bad about an SLO's figures: the colours that all boards share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from dashboards.panels import BAD, GOOD, WARN, Steps
from dashboards.queries import Queries
from slo.compile import CompiledSlo
from slo.windows import Severity

# A budget below a quarter is the moment to slow down releases; below nothing, the promise is broken.
BUDGET_STEPS: Steps = ((BAD, None), (WARN, 0), (GOOD, Decimal("0.25")))

# Four hours: what a page still has to be worth getting up for. Three days: the slowest ticket's long window.
EXHAUSTION_STEPS: Steps = ((BAD, None), (WARN, 4 * 3600), (GOOD, 3 * 86400))

ANY_IS_WARN: Steps = ((GOOD, None), (WARN, 1))
ANY_IS_BAD: Steps = ((GOOD, None), (BAD, 1))

EVENTS_STEPS: Steps = ((BAD, None), (GOOD, 1))

OF_SEVERITY: Mapping[Severity, str] = {Severity.PAGE: BAD, Severity.TICKET: WARN}


def burn_steps(ask: Queries) -> Steps:
    """Above 1 the budget does not last; from the slowest page's factor on, somebody is woken."""
    return ((GOOD, None), (WARN, 1), (BAD, ask.page_factor_min()))


def objective_decimals(compiled: Iterable[CompiledSlo]) -> int:
    """Digits after the point that the most exact objective needs in percent, so that none is shown as 100 %."""
    exponents = (one.slo.objective.normalize().as_tuple().exponent for one in compiled)
    return max((0, *(-exponent for exponent in exponents if isinstance(exponent, int))))
