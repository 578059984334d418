"""One member of a pipeline's pool of account receivers, put together: which accounts are its own, and how it ends.

An account that is ours is listened to, distributed and stored here, all three by one lease. Correctness does not hang
on the leases: the streams, the distributors and the storing compare and set where the data lives.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from feedmill import __version__
from feedmill.accounts.store import Listed
from feedmill.exchanges.account_base import Credentials
from feedmill.pool import status
from feedmill.pool.fleets import Fleets
from feedmill.pool.held import Held
from feedmill.pool.markets import Market, MarketKey, NotSupported, market_of
from feedmill.pool.measures import Meter
from feedmill.pool.roster import Roster
from feedmill.pool.seats import Seats
from feedmill.pool.settings import PoolSettings
from feedmill.pool.slots import slot_of, slots_of
from feedmill.pool.tails import AWAY, Tails
from feedmill.pool.vault import UNUSABLE, Vault
from feedmill.processor.accounts.store import AccountStore, Batch
from feedmill.processor.accounts.worker import AccountWorker
from feedmill.processor.hints import Hints
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker
from feedmill.shared.budget import ByteBudget
from feedmill.shared.clock import monotonic
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
LOOK = 0.05
MIN_RETRY, MAX_RETRY = 5.0, 300.0
"""Seconds before secrets that could not be used are looked at again; each look is in the audit log."""


class Pool:
    """``run`` it once."""

    def __init__(
        self,
        settings: PoolSettings,
        redis_url: RedisUrl,
        database_url: postgres.Url,
        key_file: Path | None,
        health: Health,
        log: Any,
    ) -> None:
        self.settings = settings
        self.health = health
        self._redis_url = redis_url
        self._log = log
        self._wake = asyncio.Event()
        self._open = asyncio.Event()
        self._fault = asyncio.Event()
        self._ssl: ssl.SSLContext | None = None
        self._http: aiohttp.ClientSession | None = None
        self.redis = self._breaker("redis", settings.redis_failures, settings.redis_reset)
        self.postgres = self._breaker("postgres", settings.postgres_failures, settings.postgres_reset)
        self.roster = Roster(database_url, settings.list_every, self._wake.set, log)
        self.vault = Vault(database_url, key_file)
        self.streams = AccountStreams(redis_url, settings.replica, ByteBudget(settings.memory), log=log)
        self.hints = Hints(redis_url, log)
        self.meter = Meter()
        self.worker = AccountWorker(
            redis_url, database_url, redis=self.redis, database=self.postgres, log=log,
            connections=settings.connections, statement_timeout=settings.statement_timeout, stored=self._stored,
        )  # fmt: skip
        self.fleets = Fleets(redis_url, settings, log)
        self.tails = Tails(redis_url)
        self.seats = Seats(redis_url, settings, self._taken, self._leave, self._fault.set, log)
        self.slots: set[int] = set()
        """Whose accounts are worked on."""
        self.held: dict[str, Held] = {}
        self.markets: dict[MarketKey, Market] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = False
        status.install(self)

    def _breaker(self, server: str, failures: int, reset: float) -> Breaker:
        return Breaker(
            server, fail_max=failures, reset_timeout=reset, first_reset=FIRST_RESET,
            on_change=lambda state: self._log.info("breaker", server=server, state=state),
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop``; then what was heard is appended, distributed and stored, as far as the servers allow it.

        What is not stored by then stays in Redis, for the next member. Raises faults of the code.
        """
        self._log.info("accounts.start", replica=self.settings.replica, pipeline="/".join(self.settings.pipeline))
        working, served = asyncio.Event(), asyncio.Event()
        connector = aiohttp.TCPConnector(limit=64)
        headers = {"User-Agent": f"feedmill/{__version__}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as self._http:
            works = {
                "roster": self.roster.run(),
                "streams": self._again(self.streams.run, working),
                "worker": self._again(lambda: self.worker.run(working), working),
                "hints": self.hints.run(served),
                "beat": self.seats.share.beat(served),
                "steer": self._steer(),
                "open": self._opening(),
                "dry": self._drying(),
                "count": self._counting(),
                "fault": self._fault.wait(),
                "stop": stop.wait(),
            }
            tasks = {name: asyncio.ensure_future(work) for name, work in works.items()}
            try:
                # A task that ends before it was asked to has failed: that ends the process.
                await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                stop.set()
                await self._drain(tasks, working)
                served.set()
                await asyncio.wait([tasks["hints"], tasks["beat"]], timeout=1.0)
            finally:
                for task in tasks.values():
                    task.cancel()
                results = await asyncio.gather(*tasks.values(), return_exceptions=True)
                self._stopping = True
                await asyncio.gather(*(market.close() for market in self.markets.values()), *self._closing)
                await self.seats.close()
                await self.fleets.close()
                self.tails.abort()
                self.vault.session.abort()
        for error in results:
            if isinstance(error, Exception):
                raise error
        self._log.info("ended", commits=self.worker.figures.commits, fills=self.worker.figures.fills)

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

    def _taken(self, slot: int) -> None:
        self.slots.add(slot)
        for held in self._of(slot):
            held.leaving = False
        self._wake.set()

    def _of(self, slot: int) -> list[Held]:
        return [held for name, held in self.held.items() if slot_of(name) == slot]

    async def _leave(self, slot: int, ours: bool) -> None:
        """Let the accounts of a slot go: in order while the lease is ours, at once where another has it."""
        leaving = self._of(slot)
        for held in leaving:
            held.leaving = True
            self._quiet(held)
        names = [held.name for held in leaving]
        if ours and not self._stopping:
            try:
                async with asyncio.timeout(self.settings.append_timeout):
                    await self._appended(names)
                    await self._distributed(names)
                    await self._all_stored(names)
            except TimeoutError:
                self._log.info("accounts.left_behind", slot=slot, action="the next member goes on")
        self.slots.discard(slot)
        self._wake.set()

    async def _steer(self) -> None:
        """Do what follows from the list of accounts and the slots held, each time one of them has changed."""
        while True:
            self._wake.clear()
            self._sort()
            await self._wake.wait()

    def _sort(self) -> None:
        accounts = self.roster.accounts
        if self.roster.read:
            self.seats.serve(slots_of(accounts))
        wanted = {name: listed for name, listed in accounts.items() if slot_of(name) in self.slots}
        for name in self.held.keys() - wanted.keys():
            self._quiet(self.held.pop(name))
        for name, listed in wanted.items():
            held = self.held.get(name)
            if held is None:
                held = self.held[name] = Held(listed)
            self._update(held, listed)
        self._share_out()
        self._open.set()

    def _update(self, held: Held, listed: Listed) -> None:
        before, held.listed = held.listed, listed
        if listed.account.revision != before.account.revision:
            held.tries, held.again_at, held.final = 0, 0.0, False
        if not held.wanted or held.secrets != held.opened:
            # Secrets that changed may be revoked already: nothing is asked for with the former ones.
            held.credentials = None
            held.known.clear()
        if not held.wanted:
            self._quiet(held)
            return
        held.dry = False
        try:
            key, venue, accounts = market_of(listed.account)
        except NotSupported as error:
            self._quiet(held)
            held.problem, held.final = str(error), True
            return
        if held.market is not None and held.market.key != key:
            self._quiet(held)
        held.market = self._market(key, venue, accounts)

    def _quiet(self, held: Held) -> None:
        """Listen to it no longer. What was heard is still distributed and stored."""
        if held.given and held.market is not None:
            held.market.lines.remove(held.name)
            self.streams.close(held.name)
        held.given = False
        held.credentials, held.opened = None, ()
        held.known.clear()

    def _market(self, key: MarketKey, venue: Any, accounts: Any) -> Market:
        found = self.markets.get(key)
        if found is None:
            assert self._http is not None
            if key.stream.startswith("wss:") and self._ssl is None:
                self._ssl = ssl.create_default_context()
            found = self.markets[key] = Market(
                key, venue, accounts, streams=self.streams, fleets=self.fleets, redis_url=self._redis_url,
                http=self._http, ssl_context=self._ssl, credentials=self._credentials, log=self._log,
            )  # fmt: skip
            found.start()
        return found

    def _share_out(self) -> None:
        """Tell each distributor and the worker what is theirs."""
        of: dict[MarketKey, set[str]] = {key: set() for key in self.markets}
        for name, held in self.held.items():
            if not held.dry and held.market is None:
                self._find_market(held)
            if not held.dry and held.market is not None:
                of[held.market.key] = of.get(held.market.key, set()) | {name}
        for key, names in of.items():
            if names:
                self.markets[key].work_on(names)
            else:
                market = self.markets.pop(key)
                task = asyncio.create_task(market.close(), name="close market")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self.worker.work_on(name for name, held in self.held.items() if not held.dry)

    def _find_market(self, held: Held) -> None:
        """Of one that is off: what was heard of it before is still to be distributed."""
        try:
            held.market = self._market(*market_of(held.listed.account))
        except NotSupported:
            held.dry = True

    # -- secrets

    async def _credentials(self, name: str) -> Credentials:
        """Those of an account that is ours, once they are known."""
        held = self.held[name]
        while held.credentials is None:
            await held.known.wait()
        return held.credentials

    async def _opening(self) -> None:
        """Open the secrets of accounts that are to be listened to and are not yet, or have others now."""
        while True:
            self._open.clear()
            now = monotonic()
            due = [held for held in self.held.values() if self._is_due(held)]
            for held in due:
                if held.again_at <= now and self._is_due(held):
                    await self._give(held)
            left = [held.again_at - monotonic() for held in self.held.values() if self._is_due(held)]
            try:
                async with asyncio.timeout(max(LOOK, min(left)) if left else None):
                    await self._open.wait()
            except TimeoutError:
                pass

    def _is_due(self, held: Held) -> bool:
        if self._stopping or held.leaving or not held.wanted or held.market is None:
            return False
        return held.secrets != held.opened

    async def _give(self, held: Held) -> None:
        """To the lines, with the secrets as they are now."""
        secrets, listed = held.secrets, held.listed
        try:
            credentials = await self.vault.open(listed)
        except UNUSABLE as error:
            self._later(held, str(error), final=True)
            return
        except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
            self._later(held, f"the secrets cannot be read: {postgres.describe(error)}", final=False)
            return
        if self.held.get(held.name) is not held or held.secrets != secrets or not self._is_due(held):
            return
        assert held.market is not None
        held.problem, held.final, held.tries = "", False, 0
        held.credentials, held.opened = credentials, secrets
        held.known.set()
        self.streams.open(held.name)
        held.market.listen(held.name, credentials)
        held.given = True

    def _later(self, held: Held, why: str, *, final: bool) -> None:
        if held.problem != why:
            self._log.warning("account.not_listened", account=held.name, cause=why)
        held.problem, held.final = why, final
        held.again_at = monotonic() + (min(MIN_RETRY * 2.0**held.tries, MAX_RETRY) if final else MIN_RETRY / 5)
        held.tries = min(held.tries + 1, 10)

    # -- what is left in the streams

    def _stored(self, store: AccountStore, batch: Batch) -> None:
        self.hints.give(account_ref(store.account), store.position)
        self.meter.stored(store, batch)

    async def _drying(self) -> None:
        """Accounts that are off are worked on until their streams are empty."""
        while True:
            await asyncio.sleep(DRY_EVERY)
            off = [name for name, held in self.held.items() if not held.wanted and not held.dry]
            if not off:
                continue
            try:
                done = await self.tails.distributed([n for n in off if self.streams.closed(n)], self._distributed_to)
                done = await self.tails.stored(done, self.worker.position)
            except AWAY:
                continue
            for name in done:
                held = self.held.get(name)
                if held is not None and not held.wanted:
                    held.dry = True
                    held.market = None
                    self.hints.drop(account_ref(name))
            if done:
                self._wake.set()

    def _distributed_to(self, name: str) -> str:
        held = self.held.get(name)
        return held.market.distributor.position(name) if held is not None and held.market is not None else ""

    async def _appended(self, names: Iterable[str]) -> None:
        for name in names:
            await self.streams.ended(name)

    async def _distributed(self, names: Iterable[str]) -> None:
        await self._until(set(names), lambda left: self.tails.distributed(left, self._distributed_to))

    async def _all_stored(self, names: Iterable[str]) -> None:
        await self._until(set(names), lambda left: self.tails.stored(left, self.worker.position))

    async def _until(self, left: set[str], done: Callable[[set[str]], Awaitable[set[str]]]) -> None:
        left = {name for name in left if name in self.held and not self.held[name].dry}
        while left:
            try:
                left -= await done(left)
            except AWAY:
                await asyncio.sleep(0.2)
            if left:
                await asyncio.sleep(LOOK)

    async def _counting(self) -> None:
        while True:
            status.count(self)
            await asyncio.sleep(COUNT_EVERY)

    # -- the end

    async def _drain(self, tasks: Mapping[str, asyncio.Future[Any]], working: asyncio.Event) -> None:
        self._stopping = True
        for name in ("steer", "open", "dry", "roster"):
            tasks[name].cancel()
        names = list(self.held)
        for held in self.held.values():
            self._quiet(held)
        settings = self.settings
        stages = (
            ("append", self._appended(names), settings.append_timeout),
            ("distribute", self._distributed(names), settings.distribute_timeout),
            ("store", self._all_stored(names), settings.store_timeout),
        )
        for stage, work, seconds in stages:
            try:
                async with asyncio.timeout(seconds):
                    await work
            except TimeoutError:
                self._log.warning("drain.overdue", stage=stage, action="the next member goes on from here")
        working.set()
        _, late = await asyncio.wait([tasks["worker"]], timeout=1.0)
        if late:
            self.worker.abort()
        await self.seats.close()
