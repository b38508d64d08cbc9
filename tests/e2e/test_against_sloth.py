"""For even traffic we agree with Sloth: both rule sets run side by side in Prometheus' engine, on the same series."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import sloth
from slo import compile_slo
from tests.alerts.rules_bench import DAY, FIRING, HOUR, MINUTE, Answers, Stretch, asks, play, shop, traffic
from tests.contract.places import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTH = ROOT / ".tools/bin/sloth"
OURS, RIVAL = shop(), shop(service="rival")  # the same promise under a name of its own, or their series would be one
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
PER_SECOND = 100
FIVE_MINUTES = 5 * MINUTE  # the rules run so often here: means do not change when they have fewer samples
END = DAY + 6 * HOUR


def rival_rules(folder: Path) -> list[dict[str, Any]]:
    """What the real Sloth makes of our exported spec."""
    spec, rules = folder / "spec.yaml", folder / "sloth.yaml"
    spec.write_text(sloth.render([compile_slo(RIVAL)])[0].text)
    subprocess.run([SLOTH, "generate", "--no-log", "-i", spec, "-o", rules], check=True, capture_output=True)
    groups: list[dict[str, Any]] = yaml.safe_load(rules.read_text())["groups"]
    return groups


def of(service: str, series: str, **labels: str) -> str:
    """One series of an SLO."""
    matchers = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f'{series}{{sloth_service="{service}"{matchers}}}'


PAIRS = [
    *((f"slo:sli_error:ratio_rate{window}", {"sloth_window": window}) for window in WINDOWS),
    ("slo:current_burn_rate:ratio", {}),
    ("slo:period_burn_rate:ratio", {}),
    ("slo:period_error_budget_remaining:ratio", {}),
    ("slo:objective:ratio", {}),
    ("slo:error_budget:ratio", {}),
    ("slo:time_period:days", {}),
]


# Burn rate -> who is told: nobody, working hours, or working hours and somebody who sleeps.
TOLD = {0.5: set[str](), 2: {"ticket"}, 4: {"ticket"}, 30: {"page", "ticket"}}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Answers]:
    """What both say after more than a day of even traffic, by burn rate."""
    folder = tmp_path_factory.mktemp("both")
    rival = rival_rules(folder)
    exprs = [of(service, series, **labels) for service in ("shop", "rival") for series, labels in PAIRS]
    asked = [*asks(exprs, END), *asks(FIRING, END)]

    def played(burn: float) -> Answers:
        series = traffic(Stretch(END, PER_SECOND, burn * float(OURS.budget_ratio)), scrape=MINUTE)
        return play(folder / str(burn), OURS, series, asked, scrape=MINUTE, every=FIVE_MINUTES, more_rules=rival)

    return {burn: played(burn) for burn in TOLD}


@pytest.mark.parametrize(("series", "labels"), PAIRS, ids=lambda value: value if isinstance(value, str) else "")
def test_for_even_traffic_the_figures_agree(series: str, labels: dict[str, str], answers: dict[float, Answers]) -> None:
    """Every series that Sloth has reads within 2 % of what ours reads."""
    for said in answers.values():
        ours, theirs = (said.number(of(service, series, **labels), END) for service in ("shop", "rival"))
        assert ours == pytest.approx(theirs, rel=0.02)
        assert theirs != 0


@pytest.mark.parametrize("burn", TOLD)
def test_for_even_traffic_the_same_people_are_told(burn: float, answers: dict[float, Answers]) -> None:
    """Nobody at half the budget's pace; a ticket at 2 and 4 times, a page with it at 30 times: by both."""
    told: dict[str, set[str]] = {"shop": set(), "rival": set()}
    for labels, _ in answers[burn].series(FIRING, END):
        told[labels["sloth_service"]].add(labels["sloth_severity"])
    assert told == {"shop": TOLD[burn], "rival": TOLD[burn]}
