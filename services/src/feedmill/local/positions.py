"""How far the shards have come, read from Redis: what was captured, what was dispatched, what was stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from feedmill.shared.breaker import BreakerOpen
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.pool import RedisPool

READ_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ShardPosition:
    """Redis stream ids as text; empty = nothing yet."""

    shard: ShardRef
    captured: str
    """Last entry ever put into the raw stream."""
    dispatched: str
    """Raw position of the distributor's last commit."""
    emitted: str
    """Last entry ever put into the events stream."""
    stored: str
    """Events position of the processor's last commit."""

    @property
    def raw_drained(self) -> bool:
        return not self.captured or self.captured == self.dispatched

    @property
    def events_drained(self) -> bool:
        return not self.emitted or self.emitted == self.stored


class PositionsAway(ConnectionError):
    """Redis does not answer."""


class Positions:
    """Reads the positions of some shards. The pool stays its owner's."""

    def __init__(self, redis: RedisPool, shards: Sequence[ShardRef]) -> None:
        self.shards = list(shards)
        self._redis = redis

    async def read(self) -> list[ShardPosition]:
        """Raises PositionsAway."""
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return await self._read()
        except BreakerOpen as error:
            raise PositionsAway(f"Redis does not answer: {self._redis.breaker.last_error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise PositionsAway(f"Redis does not answer: {error}") from error

    async def _read(self) -> list[ShardPosition]:
        answers = await self._redis.execute_all(
            [
                command
                for shard in self.shards
                for command in (
                    ("XINFO STREAM", shard.raw),
                    ("HGET", shard.checkpoint, "pos"),
                    ("XINFO STREAM", shard.events),
                    ("HGET", shard.applied, "stream"),
                )
            ]
        )
        found: list[ShardPosition] = []
        for number, shard in enumerate(self.shards):
            raw, pos, events, applied = answers[4 * number : 4 * number + 4]
            found.append(ShardPosition(shard, _last(raw), _text(pos), _last(events), _text(applied)))
        return found


def _last(answer: Any) -> str:
    if isinstance(answer, Exception):
        if "no such key" in str(answer):
            return ""
        raise answer
    last = _text(answer.get("last-generated-id", answer.get(b"last-generated-id")))
    return "" if last == "0-0" else last


def _text(answer: Any) -> str:
    if isinstance(answer, Exception):
        raise answer
    if answer is None:
        return ""
    return answer.decode() if isinstance(answer, bytes) else str(answer)
