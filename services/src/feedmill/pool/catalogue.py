"""What the venue says of a market's instruments, for those that no feed has told of: what profit is counted in.

The list has thousands, of which accounts trade a few: it is kept packed, and only these few are read.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping

from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.base import MapError, Venue
from feedmill.shared.clock import now_ns
from feedmill.shared.events import Instrument

FAST = 1
"""Of zlib: a tenth of the size, which is enough."""


class Catalogue:
    """Of one market."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._natives: dict[str, str] = {}
        self._packed = b""
        self._told_ns = 0
        self._read: dict[str, Instrument] = {}

    async def keep(self, body: bytes, traded: Mapping[str, Traded]) -> None:
        """A newer list, as the venue answered."""
        told_ns = now_ns()
        self._packed = await asyncio.to_thread(zlib.compress, body, FAST)
        self._natives = {symbol: each.native for symbol, each in traded.items()}
        self._told_ns = told_ns
        self._read.clear()

    async def find(self, symbols: Iterable[str]) -> list[Instrument]:
        """Those of them that are in the list and can be read."""
        wanted = set(symbols) & self._natives.keys()
        if new := {self._natives[symbol]: symbol for symbol in wanted - self._read.keys()}:
            try:
                self._read |= await asyncio.to_thread(self._unpack, self._packed, new, self._told_ns)
            except MapError:
                return []
        return [self._read[symbol] for symbol in wanted if symbol in self._read]

    def _unpack(self, packed: bytes, symbols: Mapping[str, str], told_ns: int) -> dict[str, Instrument]:
        events = self._venue.mapper(symbols).map_rest("instruments", "", 200, zlib.decompress(packed), told_ns)
        return {event.symbol: event for event in events if isinstance(event, Instrument)}
