"""Tells Redis how far each shard's events are stored, so that the distributor may trim them.

Only a hint, over a connection of its own: the connections that read are blocked most of the time, and a command sent
behind a blocking read waits for its end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from feedmill.processor.store import Position
from feedmill.shared.backoff import Backoff
from feedmill.shared.keys import ShardRef
from feedmill.shared.lease import sleep_or
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Script, Wire, WireError, connect

_TELL = Script("""#!lua flags=allow-oom
return redis.call('HSET', KEYS[1], 'n', ARGV[1], 'id', ARGV[2], 'stream', ARGV[3])
""")
"""``allow-oom``: this hint is what lets a full server be emptied; refused, it would stay full for ever."""

EVERY = 0.25
"""Seconds between two writes at least: each costs this process three wake-ups, and little is stored meanwhile."""
ANSWER = 2.0
"""Seconds after which a Redis that does not answer counts as away."""
AGAIN = 5.0
"""Seconds after which all hints are written once more: a server may have forgotten them."""


class Hints:
    """One per process. Only the newest hint of a shard is kept; all are written again after a reconnect."""

    def __init__(self, redis_url: RedisUrl, log: Any) -> None:
        self._url = redis_url
        self._log = log
        self._latest: dict[ShardRef, Position] = {}
        self._changed: set[ShardRef] = set()
        self._leaving: set[ShardRef] = set()
        self._wake = asyncio.Event()
        self._wire: Wire | None = None

    def give(self, shard: ShardRef, position: Position) -> None:
        """This is stored."""
        if position.n:
            self._latest[shard] = position
            self._changed.add(shard)
            self._leaving.discard(shard)
            self._wake.set()

    def drop(self, shard: ShardRef) -> None:
        """The shard is no longer ours: after the one that waits its hints are another's to write."""
        if shard in self._changed:
            self._leaving.add(shard)
        else:
            self._latest.pop(shard, None)

    async def run(self, stop: asyncio.Event) -> None:
        """Write hints until ``stop`` is set, then those that are left."""
        backoff = Backoff(0.2, 5.0)
        stopper = asyncio.create_task(self._wake_on(stop))
        try:
            while True:
                try:
                    async with asyncio.timeout(AGAIN):
                        await self._wake.wait()
                except TimeoutError:
                    self._changed.update(self._latest)
                self._wake.clear()
                try:
                    async with asyncio.timeout(ANSWER):
                        await self._write()
                    backoff.reset()
                except (OSError, TimeoutError, WireError) as error:
                    self._drop_wire()
                    wait = backoff.next()
                    self._log.info("hints.not_written", error=type(error).__name__, retry_in=round(wait, 3))
                    self._changed.update(self._latest)
                    self._wake.set()
                    if not stop.is_set():
                        await sleep_or(stop, wait)
                        continue
                if stop.is_set():
                    return
                await sleep_or(stop, EVERY)
        finally:
            stopper.cancel()
            self._drop_wire()

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _write(self) -> None:
        if not self._changed:
            return
        if self._wire is None or not self._wire.is_open:
            self._wire = await connect(self._url, name="feedmill-processor-hints")
        changed, self._changed = self._changed, set()
        answers = []
        for shard in changed:
            at = self._latest[shard]
            answers.append(self._wire.run(_TELL, [shard.applied], at.n, at.commit_id, at.stream_id))
        for answer in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        for shard in changed & self._leaving:
            self._leaving.discard(shard)
            self._latest.pop(shard, None)

    def _drop_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
