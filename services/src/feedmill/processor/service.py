"""The processor put together: the shards it may work on, what they share, and how it ends without losing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from feedmill.processor import status
from feedmill.processor.finisher import CandleFinisher
from feedmill.processor.hints import Hints
from feedmill.processor.measures import Figures
from feedmill.processor.records import Records
from feedmill.processor.repair import Repairer
from feedmill.processor.settings import ProcessorSettings, ShardSettings
from feedmill.processor.shard import ShardWorker
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, tells
from feedmill.shared.clock import monotonic
from feedmill.shared.health import Health
from feedmill.shared.lease import Lease, Link, Share, sleep_or
from feedmill.shared.redis.url import RedisUrl

FIRST_RESET = 1.0
"""Seconds of a breaker's first rest; it doubles up to the configured one."""


DRY = 5.0
"""Seconds without anything new after which the stream of a removed feed counts as drained."""
DRY_LIMIT = 120.0
"""Seconds after which a removed feed is given up although its stream still brings something."""


class ShardSeat:
    """One shard and the lease that says whether this process works on it."""

    def __init__(self, shard: ShardSettings, lease: Lease, worker: ShardWorker, log: Any) -> None:
        self.shard = shard
        self.stop = asyncio.Event()
        self.leaving: asyncio.Task[None] | None = None
        """Set while the shard is about to be given up, as it is no longer wanted."""
        self.lease = lease
        self.worker = worker
        self.figures = worker.meter.figures
        self._log = log.bind(shard=str(shard.ref))

    async def run(self) -> None:
        """Work on the shard whenever the lease is held, until ``stop`` is set."""
        await self.lease.hold(self.stop, self._work)

    async def reconfigure(self, settings: ProcessorSettings, shard: ShardSettings) -> None:
        """Work by other settings from the next commit on."""
        self.shard = shard
        await self.worker.reconfigure(settings, shard)

    async def dry(self) -> None:
        """Wait until everything in the stream is stored and nothing new comes, or it is another's."""
        seen, since = -1, monotonic()
        deadline = since + DRY_LIMIT
        while self.lease.held and monotonic() < deadline:
            if self.figures.commits != seen or self.figures.behind != 0:
                seen, since = self.figures.commits, monotonic()
            if monotonic() - since >= DRY:
                return
            await sleep_or(self.stop, 0.2)
            if self.stop.is_set():
                return

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
            on_change=tells(log, "redis"),
        )
        self.postgres = Breaker(
            "postgres",
            fail_max=settings.postgres_failures,
            reset_timeout=settings.postgres_reset,
            first_reset=FIRST_RESET,
            on_change=tells(log, "postgres"),
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
        self.repairer = Repairer(
            database_url,
            self.link,
            lambda: [seat.shard for seat in self.seats if seat.figures.owned and seat.worker.has_losses],
            database=self.postgres,
            every=settings.repair_every,
            timeout=settings.statement_timeout,
            log=log,
        )
        self.records = Records(
            database_url,
            settings.due,
            database=self.postgres,
            every=settings.records_every,
            timeout=settings.statement_timeout,
            log=log,
        )
        self._redis_url = redis_url
        self._make_worker = partial(
            ShardWorker,
            redis_url=redis_url,
            database_url=database_url,
            redis=self.redis,
            database=self.postgres,
            figures=self.figures,
            finisher=self.finisher,
            hints=self.hints,
            log=log,
        )
        self.seats = [self._seat(shard) for shard in settings.shards]
        self._tasks: dict[ShardSeat, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._working = False
        self._fault = asyncio.Event()
        """A shard ended that was not asked to."""
        status.install(self)

    def _seat(self, shard: ShardSettings) -> ShardSeat:
        settings = self.settings
        lease = Lease(
            self._redis_url,
            shard.ref.lease("processor"),
            name=settings.replica,
            ttl=settings.lease_ttl,
            log=self._log,
            share=self.share,
        )
        return ShardSeat(shard, lease, self._make_worker(settings, shard), self._log)

    def _start(self, seat: ShardSeat) -> None:
        task = self._tasks[seat] = asyncio.create_task(seat.run(), name=f"shard {seat.shard.ref}")
        task.add_done_callback(lambda _: None if seat.stop.is_set() else self._fault.set())

    # changes
    async def reconfigure(self, settings: ProcessorSettings) -> None:
        """Work by other settings, shard by shard: new ones are contended for, changed ones go on after the commit under
        way, those no longer wanted are given up once their streams are drained.

        Returns when no shard works by old settings; giving up goes on behind.
        """
        before, self.settings = self.settings, settings
        self.redis.limit(settings.redis_failures, settings.redis_reset)
        self.postgres.limit(settings.postgres_failures, settings.postgres_reset)
        if settings.intervals != before.intervals:
            self.finisher.work_with(settings.intervals)
        self.records.plan = settings.due
        everything = replace(before, shards=settings.shards) != settings
        wanted = {shard.ref: shard for shard in settings.shards}
        changed: list[tuple[ShardSeat, ShardSettings]] = []
        for seat in self.seats:
            shard = wanted.pop(seat.shard.ref, None)
            if shard is None:
                if seat.leaving is None:
                    seat.leaving = asyncio.create_task(self._give_up(seat), name=f"give up {seat.shard.ref}")
                    self._leaving.add(seat.leaving)
                    seat.leaving.add_done_callback(self._leaving.discard)
                continue
            if seat.leaving is not None:
                seat.leaving.cancel()
                seat.leaving = None
            if everything or shard != seat.shard:
                changed.append((seat, shard))
        new = [self._seat(shard) for shard in wanted.values()]
        self.seats += new
        self.share.total = len(self.seats)
        if self._working:
            for seat in new:
                self._start(seat)
        await asyncio.gather(*(seat.reconfigure(settings, shard) for seat, shard in changed))
        self._log.info(
            "processor.reconfigured", shards=len(settings.shards), new=len(new), changed=len(changed),
            leaving=len(self.seats) - len(settings.shards),
        )  # fmt: skip

    async def _give_up(self, seat: ShardSeat) -> None:
        """Store what is left of a shard no longer wanted, then let it go."""
        await seat.dry()
        # From here on it cannot be taken back: a new seat would be made.
        self.seats.remove(seat)
        seat.stop.set()
        task = self._tasks.get(seat)
        if task is not None:
            await asyncio.wait({task}, timeout=self.settings.drain_timeout)
            if not task.done():
                seat.worker.abort()
                await asyncio.wait({task}, timeout=self.settings.drain_timeout)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            del self._tasks[seat]
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.error("shard.failed", shard=str(seat.shard.ref), exc_info=error)
        self.share.total = len(self.seats)
        if all(other.shard.ref != seat.shard.ref for other in self.seats):
            seat.worker.meter.close()
            self.figures.shards.pop(str(seat.shard.ref), None)
        self._log.info("shard.given_up", shard=str(seat.shard.ref))

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
        self._working = True
        for seat in self.seats:
            self._start(seat)
        finish = asyncio.create_task(self._finish(served), name="finish")
        hints = asyncio.create_task(self.hints.run(served), name="hints")
        beat = asyncio.create_task(self.share.beat(served), name="beat")
        repair = asyncio.create_task(self.repairer.run(stop), name="repair")
        records = asyncio.create_task(self.records.run(stop), name="records")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        fault = asyncio.create_task(self._fault.wait(), name="fault")
        aside = [finish, hints, beat, repair, records, stopped, fault]
        try:
            # A task that ends before it was asked to has failed: that ends the process.
            await asyncio.wait(aside, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            self._working = False
            await self._drain()
            served.set()
            await self._end([finish, hints, beat], self.settings.finish_timeout)
        finally:
            everything = [*self._leaving, *self._tasks.values(), *aside]
            for task in everything:
                task.cancel()
            results = await asyncio.gather(*everything, return_exceptions=True)
            await self.share.leave()
            self.link.close()
        for error in results:
            if isinstance(error, Exception):
                raise error
        self._log.info("ended", commits={name: seen.n for name, seen in self.figures.shards.items() if seen.n})

    async def _drain(self) -> None:
        """Wait for the shards; one that a server keeps from ending is cut off."""
        for seat in self._tasks:
            seat.stop.set()
        shards = list(self._tasks.values())
        if shards:
            await asyncio.wait(shards, timeout=self.settings.drain_timeout)
        overdue = [task.get_name() for task in shards if not task.done()]
        if overdue:
            self._log.warning("drain.overdue", tasks=overdue, action="cut their connections")
            for seat in self._tasks:
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
