"""Waits until what was heard of accounts has gone all its way: appended, distributed, stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from feedmill.pool.asker import AWAY
from feedmill.pool.holdings import Holdings
from feedmill.pool.settings import PoolSettings
from feedmill.pool.tails import Tails
from feedmill.processor.accounts.worker import AccountWorker
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared.clock import monotonic

LOOK = 0.05
AGAIN = 0.25
"""Seconds after which a server that is away is asked again."""


class Drain:
    def __init__(
        self, streams: AccountStreams, holdings: Holdings, worker: AccountWorker, tails: Tails, log: Any
    ) -> None:
        self._streams = streams
        self._holdings = holdings
        self._worker = worker
        self._tails = tails
        self._log = log

    async def empty(self, names: Iterable[str]) -> set[str]:
        """Those of accounts no longer listened to, of which everything is stored. Raises one of asker.AWAY."""
        closed = [name for name in names if self._streams.closed(name)]
        done = await self._tails.distributed(closed, self._holdings.distributed_to)
        return await self._tails.stored(done, self._worker.position)

    async def all_of(self, names: Iterable[str], settings: PoolSettings) -> bool:
        """Wait for accounts no longer listened to; False when servers did not let it happen in time."""
        left = [name for name in names if name in self._holdings.held and not self._holdings.held[name].dry]
        stages = (
            ("append", self._appended, settings.append_timeout),
            ("distribute", self._distributed, settings.distribute_timeout),
            ("store", self._stored, settings.store_timeout),
        )
        in_time, deadline = True, monotonic() + settings.drain_timeout
        for stage, work, seconds in stages:
            try:
                async with asyncio.timeout(max(LOOK, min(seconds, deadline - monotonic()))):
                    await work(left)
            except TimeoutError:
                in_time = False
                self._log.warning("accounts.not_drained", stage=stage, action="the next member goes on from here")
        return in_time

    async def _appended(self, names: Iterable[str]) -> None:
        for name in names:
            await self._streams.ended(name)

    async def _distributed(self, names: Iterable[str]) -> None:
        await self._until(set(names), lambda left: self._tails.distributed(left, self._holdings.distributed_to))

    async def _stored(self, names: Iterable[str]) -> None:
        await self._until(set(names), lambda left: self._tails.stored(left, self._worker.position))

    async def _until(self, left: set[str], done: Callable[[set[str]], Awaitable[set[str]]]) -> None:
        while left:
            try:
                left -= await done(left)
            except AWAY:
                await asyncio.sleep(AGAIN)
            if left:
                await asyncio.sleep(LOOK)
