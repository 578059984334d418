"""Topics that were subscribed and have not brought anything yet. Pure.

When such a topic's last connection ends, what the venue emitted meanwhile is not known by any number. The gap begins at
the time of the subscription instead, and ends with the first event ever.
"""

from __future__ import annotations

import msgspec

from feedmill.distributor.gaps import CLOSED, new_gap
from feedmill.shared.events import Gap

NUMBERED = frozenset({"Trades", "Ticker"})
"""Channels watched here. Books have their own bootstrap, candles are whole with the next one."""


class Awaited(msgspec.Struct, array_like=True):
    """One topic without an event; is its own checkpoint field."""

    since_ns: int
    gap: Gap | None = None


class Unseen:
    """Keyed ``channel/symbol``. ``touched`` and ``gone`` name what the next commit must write and delete."""

    def __init__(self, shard: str, awaited: dict[str, Awaited]) -> None:
        self._shard = shard
        self.awaited = awaited
        self.touched: set[str] = set()
        self.gone: set[str] = set()

    def covered(self, channel: str, symbol: str, at_ns: int) -> None:
        """A connection subscribed to a topic that never had an event."""
        key = f"{channel}/{symbol}"
        if key not in self.awaited:
            self.awaited[key] = Awaited(at_ns)
            self.touched.add(key)
            self.gone.discard(key)

    def lost(self, channel: str, symbol: str, cause: str, at_ns: int) -> Gap | None:
        """No connection brings it any more; answers the gap to emit."""
        key = f"{channel}/{symbol}"
        awaited = self.awaited.get(key)
        if awaited is None or awaited.gap is not None:
            return None
        gap = new_gap(self._shard, symbol, channel, cause, -1, awaited.since_ns, at_ns)
        gap.id = f"{self._shard}/{symbol}/{channel}/since-{awaited.since_ns}"
        awaited.gap = gap
        self.touched.add(key)
        return msgspec.structs.replace(gap)

    def forget(self, channel: str, symbol: str) -> None:
        """It is wanted no longer. A gap that was told is kept, for the first event to end it."""
        key = f"{channel}/{symbol}"
        awaited = self.awaited.get(key)
        if awaited is not None and awaited.gap is None:
            del self.awaited[key]
            self.touched.discard(key)
            self.gone.add(key)

    def ended(self, channel: str, symbol: str, at_ns: int) -> Gap | None:
        """It will never have an event; answers the gap that ends with that."""
        awaited = self.awaited.get(f"{channel}/{symbol}")
        if awaited is None or awaited.gap is None:
            return None
        gap, awaited.gap = awaited.gap, None
        gap.state, gap.to_ns = CLOSED, at_ns
        gap.revision += 1
        return gap

    def seen(self, channel: str, symbol: str, to_seq: int, at_ns: int) -> Gap | None:
        """Its first event; answers the gap that ends with it."""
        key = f"{channel}/{symbol}"
        awaited = self.awaited.pop(key, None)
        if awaited is None:
            return None
        self.touched.discard(key)
        self.gone.add(key)
        gap = awaited.gap
        if gap is not None:
            gap.state, gap.to_seq, gap.to_ns = CLOSED, to_seq, at_ns
            gap.revision += 1
        return gap
