"""The demonstration's front door; that it works is in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import demo
from drills.harness import process


def test_a_missing_tool_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and the line names the program and `make tools`; no traceback."""
    monkeypatch.setattr(process, "TOOLS", tmp_path)
    assert demo.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("The demonstration failed: toxiproxy-server is missing:")
    assert "`make tools`" in error
    assert error.count("\n") == 1


def test_wrong_use_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option is told, and nothing is started."""
    with pytest.raises(SystemExit) as ended:
        demo.main(["--bogus"])
    assert ended.value.code == 2
    assert "--bogus" in capsys.readouterr().err
