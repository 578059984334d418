"""The processor put together: the shards it may work on, what they share, and how it ends without losing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from feedmill.processor import status
from feedmill.processor.finisher import CandleFinisher
from feedmill.processor.hints import Hints
from feedmill.processor.measures import Figures
from feedmill.processor.settings import ProcessorSettings, ShardSettings
from feedmill.processor.shard import ShardWorker
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker
from feedmill.shared.health import Health
from feedmill.shared.lease import Lease, Link, Share, sleep_or
from feedmill.shared.redis.url import RedisUrl

FIRST_RESET = 1.0
"""Seconds of a breaker's first rest; it doubles up to the configured one."""


class ShardSeat:
    """One shard and the lease that says whether this process works on it."""

    def __init__(self, shard: ShardSettings, lease: Lease, worker: ShardWorker, log: Any) -> None:
        self.shard = shard
        self.lease = lease
        self.worker = worker
        self.figures = worker.meter.figures
        self._log = log.bind(shard=str(shard.ref))

    async def run(self, stop: asyncio.Event) -> None:
        """Work on the shard whenever the lease is held, until ``stop``."""
        await self.lease.hold(stop, self._work)

    async def _work(self, ended: asyncio.Event) -> None:
        """A fault of the code in one shard costs the others nothing; it is tried again, and seen in health."""
        backoff = Backoff(1.0, 30.0, floor=0.5)
        while not ended.is_set():
            try:
                await self.worker.run(ended)
            except Exception as error:
                self.figures.fault = f"{type(error).__name__}: {error}"[:300]
                wait = backoff.next()
                self._log.exception("shard.fault", retry_in=round(wait, 3))
                await sleep_or(ended, wait)


class Processor:
    """``run`` it once."""

    def __init__(
        self, settings: ProcessorSettings, redis_url: RedisUrl, database_url: postgres.Url, health: Health, log: Any
    ) -> None:
        self.settings = settings
        self.health = health
        self._log = log
        self.figures = Figures()
        self.redis = Breaker(
            "redis",
            fail_max=settings.redis_failures,
            reset_timeout=settings.redis_reset,
            first_reset=FIRST_RESET,
            on_change=lambda state: log.info("breaker", server="redis", state=state),
        )
        self.postgres = Breaker(
            "postgres",
            fail_max=settings.postgres_failures,
            reset_timeout=settings.postgres_reset,
            first_reset=FIRST_RESET,
            on_change=lambda state: log.info("breaker", server="postgres", state=state),
        )
        self.finisher = CandleFinisher(
            database_url,
            settings.intervals,
            database=self.postgres,
            every=settings.finish_every,
            timeout=settings.statement_timeout,
            log=log,
        )
        self.hints = Hints(redis_url, log)
        self.link = Link(redis_url, f"feedmill-processor-{settings.replica}")
        self.share = Share(
            self.link, settings.members_key, name=settings.replica, total=len(settings.shards), ttl=settings.lease_ttl
        )
        make_worker = partial(
            ShardWorker,
            settings,
            redis_url=redis_url,
            database_url=database_url,
            redis=self.redis,
            database=self.postgres,
            figures=self.figures,
            finisher=self.finisher,
            hints=self.hints,
            log=log,
        )
        self.seats = [
            ShardSeat(
                shard,
                Lease(
                    redis_url,
                    shard.ref.lease("processor"),
                    name=settings.replica,
                    ttl=settings.lease_ttl,
                    log=log,
                    share=self.share,
                ),
                make_worker(shard),
                log,
            )
            for shard in settings.shards
        ]
        status.install(self)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop``, then store what was read, as far as the servers allow it in ``drain_timeout`` seconds.

        What is not stored by then stays in Redis and is stored after the next start. Raises faults of the code.
        """
        self._log.info(
            "processor.start",
            replica=self.settings.replica,
            shards=len(self.seats),
            intervals=list(self.settings.intervals),
        )
        served = asyncio.Event()  # Set when the shards have ended: what serves them ends after them.
        shards = [asyncio.create_task(seat.run(stop), name=f"shard {seat.shard.ref}") for seat in self.seats]
        finish = asyncio.create_task(self._finish(served), name="finish")
        hints = asyncio.create_task(self.hints.run(served), name="hints")
        beat = asyncio.create_task(self.share.beat(served), name="beat")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        everything = [*shards, finish, hints, beat, stopped]
        try:
            # A task that ends before it was asked to has failed: that ends the process.
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await self._drain(shards)
            served.set()
            await self._end([finish, hints, beat], self.settings.finish_timeout)
        finally:
            for task in everything:
                task.cancel()
            results = await asyncio.gather(*everything, return_exceptions=True)
            await self.share.leave()
            self.link.close()
        for error in results:
            if isinstance(error, Exception):
                raise error
        self._log.info("ended", commits={name: seen.n for name, seen in self.figures.shards.items() if seen.n})

    async def _drain(self, shards: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the shards; one that a server keeps from ending is cut off."""
        if shards:
            await asyncio.wait(shards, timeout=self.settings.drain_timeout)
        overdue = [task.get_name() for task in shards if not task.done()]
        if overdue:
            self._log.warning("drain.overdue", tasks=overdue, action="cut their connections")
            for seat in self.seats:
                seat.worker.abort()
            await self._end(shards, 1.0)

    async def _end(self, tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
        """Wait for tasks, then cancel those that are left."""
        _, left = await asyncio.wait(tasks, timeout=seconds)
        if left:
            self._log.warning("end.overdue", tasks=sorted(task.get_name() for task in left), action="cancel")
            self.finisher.abort()
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=2.0)

    async def _finish(self, stop: asyncio.Event) -> None:
        """A fault of the finisher must not stop the storing of trades."""
        backoff = Backoff(1.0, 30.0, floor=0.5)
        while not stop.is_set():
            try:
                await self.finisher.run(stop)
            except Exception as error:
                self.finisher.error = f"{type(error).__name__}: {error}"[:300]
                wait = backoff.next()
                self._log.exception("finisher.fault", retry_in=round(wait, 3))
                await sleep_or(stop, wait)
