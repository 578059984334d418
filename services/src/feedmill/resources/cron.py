"""Schedules in cron form, as Kubernetes reads them, so that local mode and the operator know when one is due. Pure.

Five fields (minute hour day month weekday) or ``@hourly`` and its kind. Days are those of the month **or** of the week
where neither field begins with ``*``. A time that the clocks leave out in spring is left out; one that they
show twice in autumn counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS = {
    "JAN": 1, "FEB": 2, "MAR": 3, "APR": 4, "MAY": 5, "JUN": 6,
    "JUL": 7, "AUG": 8, "SEP": 9, "OCT": 10, "NOV": 11, "DEC": 12,
}  # fmt: skip
_WEEKDAYS = {"SUN": 0, "MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5, "SAT": 6}
_NS = 1_000_000_000
_DAYS_AHEAD = 8 * 366
"""29 February can be eight years away."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule that was read; see :func:`parse_cron`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 = Sunday."""
    either_day: bool
    """A day counts when one of ``days`` and ``weekdays`` holds, instead of both."""

    def next_after(self, after_ns: int, zone: tzinfo = UTC) -> int | None:
        """The first time later than ``after_ns`` (Unix ns); None where there is none in eight years (30 February)."""
        day = _local(after_ns, zone).date()
        return self._first(day, 1, lambda at_ns: at_ns > after_ns, zone)

    def last_before(self, before_ns: int, zone: tzinfo = UTC) -> int | None:
        """The last time at or before ``before_ns`` (Unix ns); None as above."""
        day = _local(before_ns, zone).date()
        return self._first(day, -1, lambda at_ns: at_ns <= before_ns, zone)

    def _first(self, day: date, step: int, fits: Callable[[int], bool], zone: tzinfo) -> int | None:
        # A day of the zone may begin before or end after that of another offset: one more on the near side.
        day -= timedelta(days=step)
        for _ in range(_DAYS_AHEAD):
            if self._is_day(day):
                times = sorted(self._times(day, zone), reverse=step < 0)
                found = next((at_ns for at_ns in times if fits(at_ns)), None)
                if found is not None:
                    return found
            day += timedelta(days=step)
        return None

    def _is_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week

    def _times(self, day: date, zone: tzinfo) -> Iterator[int]:
        for hour in self.hours:
            for minute in self.minutes:
                told = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                # A set: outside the autumn's hour both are the same.
                for at in {told.astimezone(UTC), told.replace(fold=1).astimezone(UTC)}:
                    if at.astimezone(zone).replace(tzinfo=None) == told.replace(tzinfo=None):
                        yield round(at.timestamp()) * _NS


@cache
def parse_cron(text: str) -> Cron:
    """Read a schedule; raises ValueError that says which field is wrong and what may stand there."""
    fields = _SHORT.get(text, text).split(" ")
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields instead of five (minute hour day month weekday)")
    minute, hour, day, month, weekday = fields
    return Cron(
        _field(minute, "minute", 0, 59),
        _field(hour, "hour", 0, 23),
        _field(day, "day", 1, 31),
        _field(month, "month", 1, 12, _MONTHS),
        _field(weekday, "weekday", 0, 6, _WEEKDAYS),
        not _is_star(day) and not _is_star(weekday),
    )


@cache
def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name (``Europe/Berlin``, ``UTC``); raises ValueError for one that is not known."""
    if name in ("UTC", "Etc/UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a known time zone: write one such as UTC or Europe/Berlin") from None


def _local(at_ns: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at_ns // _NS, zone)


def _is_star(field: str) -> bool:
    """Whether a field of days leaves the other one to decide; ``*/2`` does not."""
    return any(part.split("/")[0] == "*" and part.partition("/")[2] in ("", "1") for part in field.split(","))


def _field(text: str, what: str, low: int, high: int, names: Mapping[str, int] | None = None) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step_text = part.partition("/")
        step = _number(step_text, what, 1, high - low + 1) if "/" in part else 1
        if span == "*":
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, what, low, high, names)
            last = _number(end, what, low, high, names) if dash else (high if "/" in part else first)
        if last < first:
            raise ValueError(f"{what} {part!r} ends before it begins")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, what: str, low: int, high: int, names: Mapping[str, int] | None = None) -> int:
    if names is not None and text.upper() in names:
        return names[text.upper()]
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and low <= int(text) <= high):
        raise ValueError(f"{what} {text!r} is not one of {low} to {high}")
    return int(text)
