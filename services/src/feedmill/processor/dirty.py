"""Which candles may be unfinished: kept in memory, found again from the tables after a restart. Pure.

There is no queue table. A 1m candle that changed has ``complete = false`` in the same transaction as its trades, so the
tables themselves say what is left to do (a partial index finds it); this only spares asking them every two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

MINUTE = 60
NEAR = 60 * MINUTE
"""Seconds: minutes of an instrument closer than this are one range."""

Range = tuple[int, int, int]
"""(instrument, first minute, last minute), begins as epoch seconds."""


class Dirty:
    """Minutes to look at, per instrument."""

    def __init__(self) -> None:
        self._minutes: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self._minutes)

    def add(self, minutes: Iterable[tuple[int, int]]) -> None:
        for instrument, minute in minutes:
            self._minutes.setdefault(instrument, set()).add(minute)

    def add_range(self, item: Range) -> None:
        """Its ends stand for all of it where they are near each other; else every hour in between is named."""
        instrument, low, high = item
        self._minutes.setdefault(instrument, set()).update((*range(low, high, NEAR), high))

    def take(self, instruments: int) -> list[Range]:
        """Take the ranges of at most that many instruments, the longest waiting first."""
        ranges: list[Range] = []
        for instrument in list(self._minutes)[:instruments]:
            ranges.extend(merge(instrument, self._minutes.pop(instrument)))
        return ranges

    def put_back(self, ranges: Iterable[Range]) -> None:
        for item in ranges:
            self.add_range(item)

    def drop(self, instruments: Iterable[int]) -> None:
        for instrument in instruments:
            self._minutes.pop(instrument, None)


def merge(instrument: int, minutes: Iterable[int]) -> list[Range]:
    """Minutes -> ranges that hold them, joined where they are near."""
    ranges: list[Range] = []
    for minute in sorted(minutes):
        if ranges and minute - ranges[-1][2] <= NEAR:
            ranges[-1] = (instrument, ranges[-1][1], minute)
        else:
            ranges.append((instrument, minute, minute))
    return ranges
