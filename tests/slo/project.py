"""A project of another team: settings and a folder of definitions, far from this repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SHOP = '''\
"""What the shop promises."""

from decimal import Decimal

from slo import Counter, Events, Slo

REQUESTS = Counter("shop_requests_total", "Requests.", labels={"code": ("ok", "error")})

availability = Slo(
    service="shop",
    name="availability",
    description="Shoppers get an answer.",
    objective=Decimal("99.9"),
    sli=Events(bad=REQUESTS.where(code="error"), all=REQUESTS.where()),
    owner="shop-team",
)
'''

SETTINGS = """\
[tool.slo]
definitions = ["promises"]

[tool.slo.links]
grafana = "https://grafana.shop.example/"
runbooks = "https://wiki.shop.example/runbooks"
traces = "https://traces.shop.example"
logs = "https://logs.shop.example"
"""


def make_project(folder: Path, settings: str = SETTINGS, files: Mapping[str, str] | None = None) -> Path:
    """Write the files, by default the shop's promises, and the settings; returns the settings file."""
    for path, text in ({"promises/shop.py": SHOP} if files is None else files).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pyproject.toml"
    file.write_text(settings)
    return file
