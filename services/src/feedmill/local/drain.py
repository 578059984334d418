"""Waits until what one stage produced has been taken over by the next, so that stopping loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from feedmill.local.positions import Positions, PositionsAway, ShardPosition
from feedmill.local.process import ServiceProcess, State
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.pool import RedisPool

LOOK = 0.05
_AT_WORK = (State.RUNNING, State.STARTING, State.BACKOFF)


@dataclass(slots=True)
class DrainReport:
    """How the end went. ``notes``: for people, what could not be waited for."""

    clean: bool = True
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.clean = False
        if text not in self.notes:
            self.notes.append(text)


class Drain:
    """Reads positions until they meet. Gives up, and says so, when that will not happen."""

    def __init__(
        self, redis: RedisPool, shards: Sequence[ShardRef], forced: asyncio.Event, timeout: float, stall: float
    ) -> None:
        """``timeout``: seconds for a stage in all; ``stall``: seconds in which nothing has moved."""
        self._positions = Positions(redis, shards)
        self._forced = forced
        self._timeout = timeout
        self._stall = stall

    async def until_taken_over(self, stream: str, workers: Sequence[ServiceProcess], report: DrainReport) -> None:
        """``stream``: raw (taken over by distributors) or events (by processors)."""
        if not workers or not self._positions.shards:
            return
        began = moved = time.monotonic()
        last: list[ShardPosition] | None = None
        while not self._forced.is_set():
            why, behind = "", list(self._positions.shards)
            try:
                found = await self._positions.read()
                behind = [item.shard for item in found if not _taken_over(item, stream)]
                if not behind:
                    return
                if found != last:
                    last, moved = found, time.monotonic()
            except PositionsAway as error:
                why = str(error)
            now = time.monotonic()
            if not any(item.state in _AT_WORK and not item.crash_loop for item in workers):
                why = why or f"no {workers[0].spec.role} is running"
            elif now - began > self._timeout:
                why = why or f"not done after {self._timeout:g} s"
            elif now - moved > self._stall:
                why = why or f"nothing moved for {self._stall:g} s"
            else:
                await self._pause()
                continue
            what = "captured frames" if stream == "raw" else "events"
            where = ", ".join(str(shard) for shard in behind)
            report.note(f"{what} of {where} stay in Redis ({why}): they are handled at the next start")
            return
        report.note("forced: what was not stored yet stays in Redis and is handled at the next start")

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._forced.wait(), LOOK)


def _taken_over(position: ShardPosition, stream: str) -> bool:
    return position.raw_drained if stream == "raw" else position.events_drained
