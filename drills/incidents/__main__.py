"""The command: `python -m drills.incidents [NAME ...] [--json] [--update]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from drills.harness import HarnessError, TerminatedError
from drills.incidents.incident import rehearsal
from drills.incidents.report import Result, result, table, update
from drills.incidents.table import INCIDENTS
from service.embedded_postgres import EmbeddedPostgresError
from slo.errors import SloError

OK, FAILED, WRONG_USE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse the incidents that are named, or all; returns the exit code.

    0 all is well, 1 it is not, 2 wrong use, 130 ended by Ctrl-C, 143 ended by SIGTERM.
    """
    parser = argparse.ArgumentParser(
        prog="python -m drills.incidents",
        description="Let everything fail that can, and see who is told what, and when.",
        epilog="incidents:\n" + "\n".join(f"  {name:16} {one.meaning}" for name, one in INCIDENTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[[], *INCIDENTS], help="which; all if none is named"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines, and no table")
    parser.add_argument("--update", action="store_true", help="write the figures into docs/incidents.md; needs all")
    options = parser.parse_args(arguments)
    if options.update and options.names:
        parser.error("--update writes the whole table, so name no incident")
    try:
        results = [_rehearsed(name) for name in options.names or INCIDENTS]
        if options.json:
            print(json.dumps([one.as_json() for one in results], indent=2))
        else:
            print(table(results), end="")
        if options.update:
            update(results)
    except TerminatedError:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (HarnessError, EmbeddedPostgresError, SloError, TimeoutError) as error:
        print(f"the incidents could not be rehearsed: {error}", file=sys.stderr)
        return FAILED
    return FAILED if any(one.violations for one in results) else OK


def _rehearsed(name: str) -> Result:
    started = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - started:5.1f} s  {line}", file=sys.stderr, flush=True)

    with rehearsal(INCIDENTS[name], tell) as shown:
        found = result(shown)
    for violation in found.violations:
        tell(f"WRONG: {violation}")
    return found


if __name__ == "__main__":
    sys.exit(main())
