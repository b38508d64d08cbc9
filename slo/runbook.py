"""What only people know of a promise, for whoever was just woken because of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slo.errors import raise_if_any

_COMMENT = "  # "


@dataclass(frozen=True, slots=True)
class Step:
    """Something that stops the harm.

    Attributes:
        do: What to do, as a command or in one sentence without a full stop.
        when: Only if this is so.
        risk: What it may cost.

    Raises:
        SloError: One of them is empty.
    """

    do: str
    when: str
    risk: str

    def __post_init__(self) -> None:
        empty = [name for name in ("do", "when", "risk") if not getattr(self, name).strip()]
        raise_if_any(
            f"step {self.do or self.when or self.risk!r}",
            [f"the {name} is empty; a responder needs what to do, when, and its risk" for name in empty],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """The parts of a runbook that no definition can tell; numbers, queries and links are added when it is written.

    Attributes:
        impact: What users notice while the promise is broken, in their words.
        diagnosis: Commands that tell more, each with what it tells behind two spaces and a `#`.
        mitigation: What stops the harm, the likeliest first.
        escalation: Whom to call besides the owner, and when.

    Raises:
        SloError: A part is missing.
    """

    impact: str
    diagnosis: tuple[str, ...]
    mitigation: tuple[Step, ...]
    escalation: str

    def __post_init__(self) -> None:
        raise_if_any("runbook", self._problems())

    def _problems(self) -> Iterator[str]:
        for part in ("impact", "escalation"):
            if not getattr(self, part).endswith("."):
                yield f"the {part} must be one or more sentences that end with a full stop"
        for part, thing in (("diagnosis", "command"), ("mitigation", "step")):
            if not getattr(self, part):
                yield f"there is no {part}; give at least one {thing}"
        for command in self.diagnosis:
            text, _, comment = command.partition(_COMMENT)
            if not text.strip() or not comment.strip():
                yield f"the command {command!r} needs what it tells, as in `uptime  # is it loaded?`"
