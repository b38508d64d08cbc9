"""Stops what its parent leaves behind; runs as a process of its own, and is a script, not a module to import.

Each line of its input is `+GROUP FOLDER` for a process group that was started with a temporary folder, or `-GROUP` for
one that has ended. The input ends when the parent does, however it does; then the groups that are left get SIGTERM, and
SIGKILL a little later, and their folders are removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

_GRACE_SECONDS_MAX = 10.0


def main() -> None:
    """Read until the parent is gone, then stop every group that is left and remove its folder."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: dict[int, str] = {}
    for line in sys.stdin:
        group, _, folder = line[1:].rstrip("\n").partition(" ")
        if line.startswith("+"):
            groups[int(group)] = folder
        else:
            groups.pop(int(group), None)
    for group in groups:
        _send(group, signal.SIGTERM)
    give_up = time.monotonic() + _GRACE_SECONDS_MAX
    while any(_send(group, 0) for group in groups) and time.monotonic() < give_up:
        time.sleep(0.05)
    for group in groups:
        _send(group, signal.SIGKILL)
    for folder in groups.values():
        shutil.rmtree(folder, ignore_errors=True)


def _send(group: int, number: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
