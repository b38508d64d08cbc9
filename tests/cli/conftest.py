"""A project of another team, in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slo.project import make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Its settings file; the definitions are in `promises/shop.py` beside it."""
    return make_project(tmp_path / "shop")
