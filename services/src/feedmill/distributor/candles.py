"""The venue's own candles: one source at a time, later over earlier, closed over open. Pure.

Deribit never says that a candle is closed: one with a later open time from the same connection says so. What the other
connections brought of the last candle and after it is kept, so a planned renewal at the end of a minute costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from feedmill.distributor.gaps import CLOSED, new_gap
from feedmill.shared.clock import MS
from feedmill.shared.events import Candle, Gap

CHANNEL = "Candles"
MOST = 4
"""Candles kept of a connection that does not count: the latest of them."""


class CandleTrack(msgspec.Struct, array_like=True):
    """State of one instrument's candles of one interval; is its own checkpoint field."""

    last: Candle
    source: str
    """The connection that brought it."""
    cause: str = ""
    """Why the connection ended since; empty while it lives."""
    beside: dict[str, list[Candle]] = msgspec.field(default_factory=dict)
    """Connection that does not count -> what it brought last of each candle that is not older than the last one."""
    ended_ns: int = 0
    """Until when (ns, receive time) the connection that counted is known to have brought all, once it has ended; 0 =
    not known."""

    def show(self, candle: Candle, source: str) -> bool:
        """One of a source that does not count; False = it is of no use."""
        if candle.open_ns < self.last.open_ns:
            return False
        kept = self.beside.setdefault(source, [])
        if not kept or candle.open_ns > kept[-1].open_ns:
            kept.append(candle)
            del kept[:-MOST]
        elif candle.open_ns == kept[-1].open_ns and (candle.closed or not kept[-1].closed):
            kept[-1] = candle
        return True

    def take_over(self, source: str, shard: str, out: list[Candle], gaps: list[Gap], *, since_ns: int) -> None:
        """``source`` counts from now on: first what it brought while another one did. ``since_ns``: from when (receive
        time) it brings all; 0 = not known."""
        kept = self.beside.pop(source, ())
        if 0 < since_ns <= self.ended_ns and len(kept) < MOST:
            self._follow(source)  # It was there before the other one ended: no candle ended between them.
        for candle in kept:
            if candle.open_ns == self.last.open_ns and self._is_behind(candle):
                self._follow(source)
            else:
                self.accept(candle, source, shard, out, gaps)

    def _is_behind(self, candle: Candle) -> bool:
        """Whether the last one is a later state of the same candle."""
        last = self.last
        return (last.closed and not candle.closed) or Decimal(candle.volume) < Decimal(last.volume)

    def ended(self, source: str, cause: str, others: Iterable[str], until_ns: int) -> str | None:
        """A connection brings it no more, or has lost some; ``until_ns``: until when it is known to have brought all.
        Answers which of ``others`` is to count now, if any can."""
        self.beside.pop(source, None)
        if source != self.source:
            return None
        self.source, self.cause, self.ended_ns = "", cause, until_ns
        return max((each for each in others if each in self.beside), key=self._reach, default=None)

    def _reach(self, source: str) -> tuple[int, int]:
        kept = self.beside[source]
        return kept[-1].open_ns, len(kept)

    def accept(self, candle: Candle, source: str, shard: str, out: list[Candle], gaps: list[Gap]) -> bool:
        """Take a candle of the source that counts, with what it says of the one before; False = known already."""
        last = self.last
        if candle.open_ns < last.open_ns:
            return False
        if candle.open_ns == last.open_ns:
            if last.closed and not candle.closed:
                return False
            if candle == msgspec.structs.replace(last, receive_ns=candle.receive_ns):
                self._follow(source)
                return False
        elif not last.closed:
            if last.exchange_ns:
                # The venue says when a candle is closed (it gives times too): that message is missing.
                gaps.append(self._missed(candle, shard, "sequence"))
            elif source == self.source and not self.cause:
                out.append(msgspec.structs.replace(last, closed=True))
            else:
                gaps.append(self._missed(candle, shard, "disconnected"))
        elif (self.cause or source != self.source) and not self._next(candle):
            gaps.append(self._missed(candle, shard, "disconnected"))
        self._follow(source)
        if candle.open_ns > last.open_ns:
            self._passed(candle.open_ns)
        self.last = candle
        out.append(candle)
        return True

    def _passed(self, open_ns: int) -> None:
        for source, kept in list(self.beside.items()):
            kept[:] = [each for each in kept if each.open_ns >= open_ns]
            if not kept:
                del self.beside[source]

    def _follow(self, source: str) -> None:
        self.source, self.cause = source, ""

    def _next(self, candle: Candle) -> bool:
        """Whether ``candle`` is the one right after the last (by the least distance an interval can have)."""
        return candle.open_ns - self.last.open_ns <= interval_ns(candle.interval)

    def _missed(self, candle: Candle, shard: str, cause: str) -> Gap:
        """Candles whose end nobody saw: the last one when it was open, and those between."""
        last = self.last
        from_seq = last.open_ns // MS - (0 if last.closed else 1)
        gap = new_gap(shard, candle.symbol, CHANNEL, self.cause or cause, from_seq, last.receive_ns, candle.receive_ns)
        gap.id = f"{shard}/{candle.symbol}/{CHANNEL}:{candle.interval}/{from_seq}"
        gap.to_seq, gap.to_ns, gap.state = candle.open_ns // MS, candle.receive_ns, CLOSED
        return gap


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 31 * 86_400}


def interval_ns(interval: str) -> int:
    """Length of ``1m``, ``1h``, ... in ns (a month: its longest)."""
    return int(interval[:-1]) * _UNITS[interval[-1]] * 1_000_000_000
