"""Back-pressure: while Redis is nearly full and processors are behind, nothing is added to the events stream.

Then the raw stream grows instead, and with it the receivers' memory: each link of the chain holds what the next cannot
take. When processors have caught up dispatching goes on however full Redis is, because a commit frees raw entries.
"""

from __future__ import annotations

from typing import Any

from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.wire import Wire, WireError

LOOK_EVERY = 1.0
"""Seconds between two looks at the server."""


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
        memory = _numbers(await self._wire.call("INFO", "memory"))
        self.raw_tip = await self._tip(self._shard.raw)
        used, most = memory.get(b"used_memory", 0), memory.get(b"maxmemory", 0)
        self.why = ""
        if most and used > self._share * most:
            self.stored = (await self._wire.call("HGET", self._shard.applied, "stream") or b"0-0").decode()
            if id_of(self.stored) < id_of(await self._tip(self._shard.events)):
                self.why = f"Redis uses {used >> 20} of {most >> 20} MiB and processors are behind"

    async def _tip(self, stream: str) -> str:
        try:
            answer: list[Any] = await self._wire.call("XINFO", "STREAM", stream)
        except WireError as error:
            if "no such key" in str(error).lower():
                return "0-0"
            raise
        found = dict(zip(answer[::2], answer[1::2], strict=True))
        tip: bytes = found.get(b"last-generated-id", b"0-0")
        return tip.decode()


def _numbers(info: bytes) -> dict[bytes, int]:
    pairs = (line.partition(b":") for line in info.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdigit()}
