"""The venue's own candles: one source at a time, later over earlier, closed over open. Pure.

Deribit never says that a candle is closed: one with a later open time from the same connection says so.
"""

from __future__ import annotations

import msgspec

from feedmill.distributor.gaps import CLOSED, new_gap
from feedmill.shared.clock import MS
from feedmill.shared.events import Candle, Gap

CHANNEL = "Candles"


class CandleTrack(msgspec.Struct, array_like=True):
    """State of one instrument's candles of one interval; is its own checkpoint field."""

    last: Candle
    source: str
    """The connection that brought it."""
    cause: str = ""
    """Why the connection ended since; empty while it lives."""

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
        self.last = candle
        out.append(candle)
        return True

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
