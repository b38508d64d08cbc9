"""Work on many values, spread over the machine's cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below, starting a process takes longer than it saves: an SLO takes about a millisecond.
_WORTH_A_PROCESS = 100

# What a forked process finds in its copy of the memory: definitions are no values to send, as they hold frozen views.
_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def spread(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`[function(item) for item in items]`, on all cores when there are many; the function must be pure."""
    shares = min(len(os.sched_getaffinity(0)), len(items) // _WORTH_A_PROCESS)
    if shares <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        return [function(item) for item in items]
    global _work  # noqa: PLW0603 - the way into a forked process
    _work = (function, items)
    edges = [len(items) * share // shares for share in range(shares + 1)]
    try:
        with ProcessPoolExecutor(shares - 1, multiprocessing.get_context("fork")) as pool:
            others = [pool.submit(_share, begin, end) for begin, end in pairwise(edges[1:])]
            results: list[Result] = _share(0, edges[1])
            for other in others:
                results += other.result()
    finally:
        _work = None
    return results


def _share(begin: int, end: int) -> list[Any]:
    assert _work is not None, "spread() has set it before it forked"
    function, items = _work
    return [function(item) for item in items[begin:end]]
