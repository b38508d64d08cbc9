"""Traffic: how many events there were in each interval, and how many of them bad; read, made up, or both."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from slo.errors import SloError
from slo.windows import DAY, HOUR

_ROWS_MAX = 10_000_000
_DAYS_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A stretch of time in which a share of the events is bad.

    Attributes:
        begin: When it begins.
        length: How long it lasts.
        bad_share: Share of the events that turns bad, 0 to 1.
        more_per_second: Events per second that come on top meanwhile, in a flash sale say.
    """

    begin: datetime
    length: timedelta
    bad_share: float
    more_per_second: float = 0.0

    @property
    def end(self) -> datetime:
        """When it is over."""
        return self.begin + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Events in intervals of the same length, one after the other.

    Attributes:
        begin: When the first interval begins.
        interval: The length of each.
        all: Events of each; a fraction is a mean.
        bad: Bad ones of each.
    """

    begin: datetime
    interval: timedelta
    all: Sequence[float]
    bad: Sequence[float]

    @property
    def end(self) -> datetime:
        """When the last interval ends."""
        return self.begin + len(self.all) * self.interval

    @classmethod
    def constant(cls, begin: datetime, length: timedelta, interval: timedelta, per_second: float) -> Traffic:
        """The same all day and night, without a bad event."""
        events = [per_second * interval.total_seconds()] * (length // interval)
        return cls(begin=begin, interval=interval, all=events, bad=[0.0] * len(events))

    @classmethod
    def daily(cls, begin: datetime, length: timedelta, interval: timedelta, per_second: float) -> Traffic:
        """Busy afternoons and quiet nights around a mean, in UTC, without a bad event."""
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)

        def per_interval(number: int) -> float:
            time = begin - midnight + (number + 0.5) * interval
            wave = math.cos(2 * math.pi * ((time - _BUSIEST) / DAY))
            return per_second * interval.total_seconds() * (1 + _SWING * wave)

        events = [per_interval(number) for number in range(length // interval)]
        return cls(begin=begin, interval=interval, all=events, bad=[0.0] * len(events))

    @classmethod
    def slices(cls, begin: datetime, length: timedelta, interval: timedelta, one: timedelta) -> Traffic:
        """One good slice after another: an event at the end of each."""
        ends = [((number + 1) * interval) // one - (number * interval) // one for number in range(length // interval)]
        return cls(begin=begin, interval=interval, all=[float(end) for end in ends], bad=[0.0] * len(ends))

    def every(self, interval: timedelta) -> Traffic:
        """The same events in intervals of another length: spread evenly, or added up.

        Raises:
            SloError: Neither length divides the other.
        """
        if self.interval == interval:
            return self
        if self.interval % interval == timedelta(0):
            parts = self.interval // interval
            spread = ([events / parts for events in some for _ in range(parts)] for some in (self.all, self.bad))
            every, bad = spread
        elif interval % self.interval == timedelta(0):
            parts = interval // self.interval
            whole = len(self.all) // parts * parts
            added = ([sum(some[at : at + parts]) for at in range(0, whole, parts)] for some in (self.all, self.bad))
            every, bad = added
        else:
            lengths = [f"{length.total_seconds():g} s" for length in (self.interval, interval)]
            fault = f"has an interval of {lengths[0]}, and the rules run every {lengths[1]}; one must divide the other"
            raise SloError("traffic", [fault])
        return Traffic(begin=self.begin, interval=interval, all=every, bad=bad)

    def struck_by(self, incidents: Sequence[Incident]) -> Traffic:
        """The same with incidents; an interval that one only touches has its share of it."""
        every, bad = list(self.all), list(self.bad)
        seconds = self.interval.total_seconds()
        for incident in incidents:
            for number, part in self._touched(incident):
                more = part * seconds * incident.more_per_second
                good = (every[number] - bad[number]) * part + more
                every[number] += more
                bad[number] += good * incident.bad_share
        return Traffic(begin=self.begin, interval=self.interval, all=every, bad=bad)

    def _touched(self, incident: Incident) -> Iterator[tuple[int, float]]:
        """The intervals that an incident touches, and which share of each."""
        first = max((incident.begin - self.begin) // self.interval, 0)
        for number in range(first, len(self.all)):
            begin = self.begin + number * self.interval
            shared = min(begin + self.interval, incident.end) - max(begin, incident.begin)
            if shared <= timedelta(0):
                return
            yield number, shared / self.interval


_SWING = 0.75  # of the mean: a quarter of it at the quietest, seven times as much at the busiest
_BUSIEST = 16 * HOUR


# --- from a file ----------------------------------------------------------------------------------------------------

_COLUMNS = ("time", "all", "bad")


def parse(text: str, subject: str) -> Traffic:
    """Read traffic from CSV with the header `time,all,bad`, or from JSON lines with these keys.

    A row tells of one interval: when it begins (ISO 8601, in UTC unless it says otherwise, or Unix seconds), its
    events, and the bad ones among them. Rows ascend; the shortest step between two is the interval, and rows that are
    left out are intervals without an event.

    Raises:
        SloError: The text is none of both, or a row is wrong; the message names the line.
    """
    rows = list(_rows(text, subject))
    if len(rows) < 2:  # noqa: PLR2004 - the step between two rows is the interval
        raise SloError(subject, ["has fewer than two rows; two are needed to know the length of an interval"])
    begin = rows[0][1]
    steps = [later[1] - earlier[1] for earlier, later in pairwise(rows)]
    interval = min(steps)
    for (line, *_), step in zip(rows[1:], steps, strict=True):
        if step <= timedelta(0):
            raise SloError(subject, [f"line {line}: the time is not later than that of the row before"])
        if step % interval:
            fault = f"the step from the row before, {step}, is no multiple of the shortest step, {interval}"
            raise SloError(subject, [f"line {line}: {fault}"])
    if rows[-1][1] - begin > _DAYS_MAX * DAY:
        raise SloError(subject, [f"spans more than {_DAYS_MAX} days"])
    count = (rows[-1][1] - begin) // interval + 1
    if count > _ROWS_MAX:
        raise SloError(subject, [f"has {count:,} intervals; at most {_ROWS_MAX:,} are read"])
    every, bad = [0.0] * count, [0.0] * count
    for _, at, of_all, of_bad in rows:
        number = (at - begin) // interval
        every[number], bad[number] = of_all, of_bad
    return Traffic(begin=begin, interval=interval, all=every, bad=bad)


def _rows(text: str, subject: str) -> Iterator[tuple[int, datetime, float, float]]:
    """Line, begin, all and bad events of each row."""
    for line, cells in _cells(text, subject):
        try:
            at = moment_of(cells[0])
            every, bad = (float(cell) for cell in cells[1:])
        except ValueError as error:
            raise SloError(subject, [f"line {line}: {error}"]) from error
        if not (math.isfinite(every) and 0 <= bad <= every):
            raise SloError(subject, [f"line {line}: {cells[2]} bad of {cells[1]} events is not possible"])
        yield line, at, every, bad


def _cells(text: str, subject: str) -> Iterator[tuple[int, tuple[str, str, str]]]:
    lines = ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
    if text.lstrip().startswith("{"):
        for number, line in lines:
            try:
                given = json.loads(line)
                yield number, (str(given["time"]), str(given["all"]), str(given["bad"]))
            except (ValueError, KeyError, TypeError) as error:
                fault = f"line {number}: is no JSON object with the keys {', '.join(_COLUMNS)}"
                raise SloError(subject, [fault]) from error
        return
    reader = csv.reader(io.StringIO(text))
    header = tuple(cell.strip().lower() for cell in next(reader, []))
    if header != _COLUMNS:
        raise SloError(subject, [f"begins with {','.join(header)!r}; the first line must be {','.join(_COLUMNS)}"])
    for row in reader:
        if not row:
            continue
        if len(row) != len(_COLUMNS):
            raise SloError(subject, [f"line {reader.line_num}: has {len(row)} columns; needed are {len(_COLUMNS)}"])
        yield reader.line_num, (row[0].strip(), row[1].strip(), row[2].strip())


def moment_of(text: str) -> datetime:
    """A moment: ISO 8601, in UTC unless it says otherwise, or Unix seconds.

    Raises:
        ValueError: It is none.
    """
    try:
        moment = datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no time; write 2026-11-03T02:00, or Unix seconds") from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if not _YEAR_MIN <= moment.year <= _YEAR_MAX:
        raise ValueError(f"{text!r} is in the year {moment.year}; use {_YEAR_MIN} to {_YEAR_MAX}")
    return moment.astimezone(UTC)


_YEAR_MIN, _YEAR_MAX = 1975, 9000  # room for a period before and after, and a bare year is no Unix time
