"""Back-pressure: while Redis is nearly full and processors are behind, nothing is added to the events stream.

Then the raw stream grows instead, and with it the receivers' memory: each link of the chain holds what the next cannot
take. When processors have caught up dispatching goes on however full Redis is, because a commit frees raw entries.
"""

from __future__ import annotations

import asyncio
import math

from feedmill.distributor import metrics
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.wire import Script, Wire

LOOK_EVERY = 1.0
"""Seconds between two looks at the server."""
# XINFO also brings the first and the last entry, a quarter of a megabyte each: only the ids leave the server.
_TIPS = Script("""#!lua flags=no-writes,allow-oom
local function tip(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then return '0-0' end
  for index = 1, #info, 2 do
    if info[index] == 'last-generated-id' then return info[index + 1] end
  end
  return '0-0'
end
return {tip(KEYS[1]), tip(KEYS[2]), redis.call('HGET', KEYS[3], 'stream') or '0-0'}
""")


class Gate:
    """Looks at the server now and then; ``why`` says what holds dispatching back, empty = nothing."""

    def __init__(self, wire: Wire, shard: ShardRef, share: float) -> None:
        self._wire = wire
        self._shard = shard
        self._share = share
        self.why = ""
        self.raw_tip = ""
        self.stored = ""
        """Events entry up to which processors had stored, as seen when the server was last nearly full."""

    async def look(self) -> None:
        """Raises WireClosed or WireError."""
        keys = [self._shard.raw, self._shard.events, self._shard.applied]
        info, tips = await asyncio.gather(self._wire.call("INFO", "memory"), self._wire.run(_TIPS, keys))
        memory = _numbers(info)
        self.raw_tip, events_tip, stored = (tip.decode() for tip in tips)
        used, most = memory.get(b"used_memory", 0), memory.get(b"maxmemory", 0)
        metrics.redis_memory.set(used / most if most else 0)
        self.why = ""
        if most and used > self._share * most:
            self.stored = stored
            if id_of(self.stored) < id_of(events_tip):
                self.why = f"Redis uses {used >> 20} of {most >> 20} MiB and processors are behind"


class Behind:
    """How old the oldest entry is that is not dispatched, told from the stream's ids without reading it.

    The time from the last dispatched one to the newest is not enough: while dispatching is held back, receivers hold
    back too, and nothing newer comes; and after a silence the newest is young, however old the last one is.
    """

    def __init__(self) -> None:
        self._at = (0, 0)
        self._since = 0.0
        """When dispatching came to ``_at``, as far as was seen."""
        self._level = -math.inf
        """When nothing waited."""

    def seconds(self, tip: tuple[int, int], at: tuple[int, int], now: float) -> float:
        """``tip``: id of the newest entry; ``at``: of the last dispatched one, 0-0 = none yet; ``now``: monotonic."""
        if tip <= at or at != self._at:
            self._at, self._since = at, now
        if tip <= at:
            self._level = now
        if not tip > at > (0, 0):
            return 0.0
        return max(min((tip[0] - at[0]) / 1000, now - self._level), now - self._since)


def _numbers(info: bytes) -> dict[bytes, int]:
    pairs = (line.partition(b":") for line in info.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdigit()}
