"""The one error that a wrong definition raises."""

from __future__ import annotations

from collections.abc import Iterable


class SloError(ValueError):
    """A definition is wrong.

    The message names the thing, says what is wrong with it, and what is allowed; a definition with several faults
    names all of them, one a line.

    Attributes:
        subject: What the definition calls itself, `SLO shop/availability` say.
        problems: One sentence a fault, never empty.
    """

    def __init__(self, subject: str, problems: Iterable[str]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{subject}: {problem}" for problem in self.problems))


def raise_if_any(subject: str, problems: Iterable[str]) -> None:
    """Raise `SloError` when there is at least one problem."""
    found = tuple(problems)
    if found:
        raise SloError(subject, found)
