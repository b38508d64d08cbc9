"""An answer that is kept for a while, so that many tabs ask no more than one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from review.errors import ReviewError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What is known, and since when.

    Attributes:
        value: The newest answer; None when there was none yet.
        read_at: Unix time of that answer; None likewise.
        error: Why there is no newer one; None when there is nothing newer to know.
    """

    value: T | None
    read_at: float | None
    error: str | None


class Kept(Generic[T]):
    """Something that is read again when it is asked for and its answer is older than some seconds.

    One thread reads at a time. The others get what was known before, or wait when nothing was. That nobody answers is
    kept as long as an answer is, so a server in trouble is asked no more often than one that is well.

    Args:
        read: Reads it; may raise `ReviewError`.
        seconds: How long an answer is good for.
        readers: How many threads may read anything at once.
    """

    def __init__(self, read: Callable[[], T], seconds: float, readers: threading.Semaphore) -> None:
        self._read = read
        self._seconds = seconds
        self._readers = readers
        self._reading = threading.Lock()
        self._known: Known[T] | None = None
        self._until = 0.0

    def get(self) -> Known[T]:
        """What is known now."""
        before = self._known
        if not self._reading.acquire(blocking=before is None):
            assert before is not None, "otherwise it has waited"
            return before
        try:
            if self._known is None or time.monotonic() >= self._until:
                self._known = self._again(self._known)
                self._until = time.monotonic() + self._seconds
            return self._known
        finally:
            self._reading.release()

    def _again(self, before: Known[T] | None) -> Known[T]:
        try:
            with self._readers:
                return Known(self._read(), time.time(), None)
        except ReviewError as error:
            return replace(before, error=str(error)) if before else Known(None, None, str(error))
