"""Leaves room in the server: above a share of its memory nothing is appended while the distributor is behind.

What comes in goes to the spill then, and the rest of the server's memory is for the distributors' commits and their
events. Once this shard's distributor has caught up with the raw stream appending goes on however full the server is,
since what others keep there may never become less. Where the spill takes nothing more, or the receiver ends, the
server's memory is used up to its end.
"""

from __future__ import annotations

from feedmill.receiver.appender import Appender
from feedmill.receiver.session import Producer
from feedmill.shared.clock import monotonic
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.wire import Script, Wire

SHARE = 0.6
"""Of maxmemory."""
BEHIND_MS = 2000
"""The distributor is behind when what it handled last is that much older than the newest entry."""
LOOK_EVERY = 1.0
# XINFO also brings the first and the last entry, a quarter of a megabyte each: only the id leaves the server.
_POSITIONS = Script("""#!lua flags=no-writes,allow-oom
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
local tip = '0-0'
if not info.err then
  for index = 1, #info, 2 do
    if info[index] == 'last-generated-id' then tip = info[index + 1] end
  end
end
return {tip, redis.call('HGET', KEYS[2], 'pos') or '0-0'}
""")


class Headroom:
    def __init__(self, shard: ShardRef, producer: Producer, appender: Appender) -> None:
        self._keys = [shard.raw, shard.checkpoint]
        self._producer = producer
        self._appender = appender
        self._looked_at = 0.0

    async def look(self, wire: Wire) -> None:
        """At most once in ``LOOK_EVERY`` seconds. Raises WireClosed or WireError."""
        now = monotonic()
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        why = await self._why(wire)
        if self._producer.ended or self._producer.stuck:
            why = ""
        self._appender.hold(why)

    async def _why(self, wire: Wire) -> str:
        memory: bytes = await wire.call("INFO", "memory")
        numbers = dict(line.split(b":", 1) for line in memory.splitlines() if b":" in line)
        used, most = int(numbers.get(b"used_memory", 0)), int(numbers.get(b"maxmemory", 0))
        if not most or used <= SHARE * most:
            return ""
        tip, handled = await wire.run(_POSITIONS, self._keys)
        behind = id_of(tip.decode())[0] - id_of(handled.decode())[0]
        if behind <= BEHIND_MS:
            return ""
        return f"Redis uses {used >> 20} of {most >> 20} MiB and the distributor is behind"
