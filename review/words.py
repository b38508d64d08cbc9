"""How a review writes times, numbers and shares, the same in every form."""

from __future__ import annotations

from datetime import UTC, datetime

from review.model import Span

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_SMALL = 10
_LARGE = 1_000_000


def moment(at: float) -> str:
    """`Sun 1 Jun 14:05`, in UTC, as everything in a review."""
    then = datetime.fromtimestamp(at, UTC)
    return f"{then:%a} {then.day} {then:%b %H:%M}"


def full_moment(at: float) -> str:
    """`2025-06-01 14:05 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def iso(at: float) -> str:
    """`2025-06-01T14:05:00Z`, for machines."""
    return datetime.fromtimestamp(round(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(of: Span) -> str:
    """`Sun 1 Jun 14:05 to 15:10`; with the second day when it is another."""
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (of.begin, of.end))
    return f"{moment(of.begin)} to {f'{end:%H:%M}' if begin.date() == end.date() else moment(of.end)}"


def length(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if round(seconds) < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    minutes_long = round(seconds / _MINUTE) * _MINUTE
    if minutes_long < 2 * _HOUR:
        return f"{minutes_long / _MINUTE:.0f} min"
    if minutes_long < 2 * _DAY:
        hours, rest = divmod(minutes_long, _HOUR)
        return f"{hours:.0f} h" + (f" {rest / _MINUTE:.0f} min" if rest else "")
    days, rest = divmod(round(seconds / _HOUR) * _HOUR, _DAY)
    return f"{days:.0f} d" + (f" {rest / _HOUR:.0f} h" if rest else "")


def percent(share: float) -> str:
    """`42.3 %`."""
    value = round(100 * share, 1) + 0.0  # no "-0.0"
    return f"{value:.1f} %"


def count(events: float) -> str:
    """`1,234`, `4.5`, `12.3 M`."""
    if abs(events) >= _LARGE:
        return f"{events / _LARGE:,.1f} M"
    if abs(events) < _SMALL and abs(events - round(events)) > 0.05:  # noqa: PLR2004 - it would read as whole
        return f"{events:.1f}"
    return f"{round(events) + 0:,}"


def minutes(value: float) -> str:
    """`4.32 min`, `43.2 min`, `432 min`."""
    return f"{value:,.0f} min" if abs(value) >= 100 else f"{value:.3g} min"  # noqa: PLR2004 - three digits


def burn(rate: float) -> str:
    """`14.4 x`."""
    return f"{rate:,.0f} x" if rate >= 100 else f"{rate:.1f} x"  # noqa: PLR2004 - three digits


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 incident`, `2 incidents`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
