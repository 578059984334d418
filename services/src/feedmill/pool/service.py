"""One member of a pipeline's pool of account receivers, put together; which accounts are its own, and how it ends.

An account that is ours is listened to, distributed and stored here, all three by one lease. Correctness does not hang
on the leases: the streams, the distributors and the storing compare and set where the data lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from feedmill import __version__
from feedmill.accounts.declared import is_declared
from feedmill.pool import status
from feedmill.pool.asker import AWAY, Asker
from feedmill.pool.checks import Checks
from feedmill.pool.declaring import Declaring
from feedmill.pool.drain import Drain
from feedmill.pool.fleets import Fleets
from feedmill.pool.giving import Giving
from feedmill.pool.holdings import Holdings
from feedmill.pool.measures import Meter
from feedmill.pool.mounts import Mounts
from feedmill.pool.owners import Owners
from feedmill.pool.roster import Roster
from feedmill.pool.seats import Seats
from feedmill.pool.settings import PoolSettings
from feedmill.pool.slots import slots_of
from feedmill.pool.tails import Tails
from feedmill.pool.vault import Vault
from feedmill.processor.accounts.store import AccountStore, Batch
from feedmill.processor.accounts.worker import AccountWorker
from feedmill.processor.hints import Hints
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, tells
from feedmill.shared.budget import ByteBudget
from feedmill.shared.health import Health
from feedmill.shared.keys import account_ref
from feedmill.shared.lease import sleep_or
from feedmill.shared.redis.url import RedisUrl

FIRST_RESET = 1.0
"""Seconds of a breaker's first rest; it doubles up to the configured one."""
DRY_EVERY = 5.0
"""Seconds between two looks whether the streams of accounts that are off are empty."""
COUNT_EVERY = 5.0
"""Seconds between two counts of the accounts' states, for the metrics."""


class Pool:
    """``run`` it once."""

    def __init__(
        self, settings: PoolSettings, redis_url: RedisUrl, database_url: postgres.Url, health: Health, log: Any
    ) -> None:
        self.settings = settings
        self.health = health
        self._log = log
        self._wake = asyncio.Event()
        self._mount = asyncio.Event()
        self._sorted = asyncio.Event()
        self._fault = asyncio.Event()
        self._stopping = False
        self.redis = self._breaker("redis", settings.redis_failures, settings.redis_reset)
        self.postgres = self._breaker("postgres", settings.postgres_failures, settings.postgres_reset)
        self.roster = Roster(database_url, settings.list_every, self._changed, log)
        self.mounts = Mounts(settings.secrets_dir, self._wake.set, log)
        self.vault = Vault(database_url, settings.key_file, self.mounts)
        self.declaring = Declaring(self.vault, self.mounts, self.roster.look, log)
        self.streams = AccountStreams(redis_url, settings.replica, ByteBudget(settings.memory), log=log)
        self.hints = Hints(redis_url, log)
        self.meter = Meter()
        self.worker = AccountWorker(
            redis_url, database_url, redis=self.redis, database=self.postgres, log=log,
            connections=settings.connections, statement_timeout=settings.statement_timeout, stored=self._stored,
            describe=lambda *asked: self.holdings.describe(*asked),
        )  # fmt: skip
        self.fleets = Fleets(redis_url, settings, log)
        self.holdings = Holdings(self.streams, self.worker, self.fleets, self.vault, redis_url, self._gone, log)
        checks = Checks(self.vault, allow_withdraw=settings.allow_withdraw, log=log)
        self.giving = Giving(self.holdings, self.vault, checks, settings.check_every, log)
        self._asker = Asker(redis_url, "feedmill-accounts")
        self.owners = Owners(self._asker, self.vault.session)
        self.drain = Drain(self.streams, self.holdings, self.worker, Tails(self._asker), log)
        self.seats = Seats(redis_url, settings, self._taken, self._leave, self._fault.set, log)
        self.declaring.declare(settings.pipeline[0], settings.declared)
        status.install(self)

    def _breaker(self, server: str, failures: int, reset: float) -> Breaker:
        return Breaker(
            server, fail_max=failures, reset_timeout=reset, first_reset=FIRST_RESET,
            on_change=tells(self._log, server),
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop``; then what was heard is appended, distributed and stored, as far as the servers allow it.

        What is not stored by then stays in Redis, for the next member. Raises faults of the code.
        """
        self._log.info("accounts.start", replica=self.settings.replica, pipeline="/".join(self.settings.pipeline))
        working, served = asyncio.Event(), asyncio.Event()
        connector = aiohttp.TCPConnector(limit=64)
        async with aiohttp.ClientSession(
            connector=connector, headers={"User-Agent": f"feedmill/{__version__}"}
        ) as http:
            self.holdings.open_for(http)
            works = {
                "declare": self.declaring.run(),
                "roster": self.roster.run(),
                "mounts": self._mounting(),
                "steer": self._steer(),
                "own": self._owning(),
                "give": self.giving.run(),
                "check": self.giving.check(),
                "dry": self._drying(),
                "streams": self._again(self.streams.run, working),
                "worker": self._again(lambda: self.worker.run(working), working),
                "hints": self.hints.run(served),
                "beat": self.seats.share.beat(served),
                "count": self._counting(),
                "fault": self._fault.wait(),
                "stop": stop.wait(),
            }
            tasks = {name: asyncio.ensure_future(work) for name, work in works.items()}
            try:
                # A task that ends before it was asked to has failed: that ends the process.
                await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                await self._end(tasks, working)
                served.set()
                await asyncio.wait([tasks["hints"], tasks["beat"]], timeout=1.0)
            finally:
                self._stopping = True
                for task in tasks.values():
                    task.cancel()
                results = await asyncio.gather(*tasks.values(), return_exceptions=True)
                await self.holdings.close()
                await self.seats.close()
                await self.fleets.close()
                self._asker.close()
                self.vault.session.abort()
        for error in results:
            if isinstance(error, Exception):
                raise error
        self._log.info("ended", commits=self.worker.figures.commits, fills=self.worker.figures.fills)

    async def _end(self, tasks: Mapping[str, asyncio.Future[Any]], working: asyncio.Event) -> None:
        self._stopping = True
        before = [tasks[name] for name in ("declare", "roster", "mounts", "steer", "own", "give", "check", "dry")]
        for task in before:
            task.cancel()
        await asyncio.wait(before)
        for held in self.holdings.held.values():
            self.holdings.quiet(held)
        await self.drain.all_of(list(self.holdings.held), self.settings)
        working.set()
        _, late = await asyncio.wait([tasks["worker"]], timeout=1.0)
        if late:
            self.worker.abort()
        await self.seats.close()

    async def _again(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """A fault of the code is told and the work begun again."""
        backoff = Backoff(1.0, 30.0, floor=0.5)
        while not stop.is_set():
            try:
                await work()
            except Exception:
                wait = backoff.next()
                self._log.exception("accounts.fault", retry_in=round(wait, 3))
                await sleep_or(stop, wait)

    # -- which accounts

    def reconfigure(self, settings: PoolSettings) -> None:
        """Work by other settings from now on."""
        self.settings = settings
        self.redis.limit(settings.redis_failures, settings.redis_reset)
        self.postgres.limit(settings.postgres_failures, settings.postgres_reset)
        self.fleets.move(settings)
        self.vault.use_key_file(settings.key_file)
        self.giving.reconfigure(settings.check_every, allow_withdraw=settings.allow_withdraw)
        self.declaring.declare(settings.pipeline[0], settings.declared)
        self._changed()
        self._log.info("accounts.reconfigured", declared=len(settings.declared))

    def _changed(self) -> None:
        """The list of accounts, or what they are to do, may be another."""
        self.declaring.look()
        self._wake.set()
        self._mount.set()

    def _taken(self, slot: int) -> None:
        self.holdings.slots.add(slot)
        for held in self.holdings.of(slot):
            held.leaving = False
        self._changed()

    async def _leave(self, slot: int, ours: bool) -> None:
        """Let the accounts of a slot go: in order while the lease is ours, at once where another has it."""
        leaving = self.holdings.of(slot)
        for held in leaving:
            held.leaving = True
            self.holdings.quiet(held)
        if ours and not self._stopping:
            await self.drain.all_of([held.name for held in leaving], self.settings)
        self.holdings.slots.discard(slot)
        self._wake.set()

    async def _steer(self) -> None:
        """Do what follows from the list of accounts and the slots held, each time one of them has changed."""
        while True:
            self._wake.clear()
            if self.roster.read:
                self.seats.serve(slots_of(self.roster.accounts))
                self.holdings.sort(self.roster.accounts)
                self._sorted.set()
                self.giving.look()
            await self._wake.wait()

    async def _owning(self) -> None:
        """Make sure that the streams of an account's name are its own, before anything is done with them."""
        backoff = Backoff(0.2, 5.0)
        while True:
            await self._sorted.wait()
            self._sorted.clear()
            new = {held for held in self.holdings.held.values() if not held.owned}
            if not new:
                continue
            try:
                await self.owners.take({held.name: held.listed.account.id for held in new})
            except (*AWAY, *postgres.RETRYABLE, postgres.SchemaBehind) as error:
                wait = backoff.next()
                self._log.warning("accounts.not_owned", error=type(error).__name__, retry_in=round(wait, 3))
                await asyncio.sleep(wait)
                self._sorted.set()
                continue
            backoff.reset()
            for held in new:
                held.owned = True
            self._wake.set()

    async def _mounting(self) -> None:
        """Follow the mounted secrets of the ExchangeAccounts that are ours."""
        while True:
            self._mount.clear()
            held = list(self.holdings.held.values())
            await self.mounts.look(each.name for each in held if is_declared(each.listed.account))
            await sleep_or(self._mount, self.settings.list_every)

    # -- what is stored, and what is left in the streams

    def _stored(self, store: AccountStore, batch: Batch) -> None:
        self.hints.give(account_ref(store.account), store.position)
        self.meter.stored(store, batch)
        held = self.holdings.held.get(store.account)
        if held is not None:
            times = (fill.exchange_ns for _, block in batch.blocks for fill in block.fills)
            held.last_fill_ns = max(held.last_fill_ns, *times, 0)

    def _gone(self, name: str) -> None:
        self.hints.drop(account_ref(name))

    async def _drying(self) -> None:
        """Accounts that are off are worked on until their streams are empty."""
        while True:
            await asyncio.sleep(DRY_EVERY)
            off = [name for name, held in self.holdings.held.items() if not held.wanted and not held.dry]
            try:
                done = await self.drain.empty(off) if off else set()
                held_now = self.holdings.held
                removed = [name for name in done if name in held_now and held_now[name].listed.removed]
                if removed:
                    await self.owners.end(removed)
            except (*AWAY, *postgres.RETRYABLE, postgres.SchemaBehind):
                continue
            for name in done:
                held = self.holdings.held.get(name)
                if held is not None and not held.wanted:
                    held.dry, held.market = True, None
                    self._gone(name)
            if done:
                self._wake.set()

    async def _counting(self) -> None:
        while True:
            status.count(self)
            await asyncio.sleep(COUNT_EVERY)
