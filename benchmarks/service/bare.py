"""The service without its telemetry, to see what that costs: nothing is counted, traced or logged for a request.

Only for the benchmark: `python -m benchmarks.service.bare run` takes the same settings as `redemption-service run`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN

from service import middleware, tracing
from service.__main__ import main
from service.telemetry import Instruments

_NOTHING = tracing.RequestTrace(0, 0, INVALID_SPAN, kept=False, context=Context())


def _ignore(*_arguments: Any, **_named: Any) -> None:  # noqa: ANN401 - stands for anything
    """Do nothing."""


def _no_trace(*_arguments: Any) -> tracing.RequestTrace:  # noqa: ANN401 - as above
    return _NOTHING


def silence() -> None:
    """Take the telemetry of requests away."""
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (middleware.Observer, "count", _ignore),
        (middleware.Observer, "count_shed", _ignore),
        (middleware, "_write", _ignore),
        (middleware, "_end", _ignore),
        (tracing.RequestTracer, "begin", _no_trace),
        (Instruments, "count", _ignore),
    ]
    for owner, name, stand_in in replaced:
        if not hasattr(owner, name):
            raise AttributeError(f"{owner.__name__}.{name} is not there any more; follow it here")
        setattr(owner, name, stand_in)


if __name__ == "__main__":
    silence()
    sys.exit(main())
