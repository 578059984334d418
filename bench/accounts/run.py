"""One run: new accounts are read, the pool is started anew, then one member is killed, within the exchange's limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.accounts.stage import Member, Stage, until
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.simulator.report import Accounts

VENUE = "binance/Spot"
WEIGHT = 6000
HURRIED = "bench.accounts.hurried"
LONG = 3600.0
START = "USDT"
"""What accounts begin with: where they hold nothing else, there are few instruments whose past is asked for at once."""


class Trouble(RuntimeError):
    """A run that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    accounts: int = 1000
    rate: float = 5.0
    """Actions a second of all accounts together; an action is one to five events."""
    symbols: str = ""
    """More instruments of the exchange."""
    swept: float = 900.0
    """Seconds to wait at most until new accounts are swept too."""
    fills: int = 0
    """To be stored at least before it is judged, so that the comparison says something."""


@dataclass(slots=True)
class Reconciled:
    """Everybody is listened to and reconciled again."""

    accounts: int = 0
    """Whose streams were lost."""
    listened: float = 0.0
    """Seconds until the exchange sees a subscription for every account."""
    half: float = 0.0
    most: float = 0.0
    """... until 99 % of the gaps are closed in the database."""
    all: float = 0.0
    peak: int = 0
    """The most weight that a minute saw."""


@dataclass(slots=True)
class Measured:
    load: Load
    filled: float = 0.0
    """Seconds until all new accounts were read, without a limit."""
    swept: bool = False
    restart: Reconciled = field(default_factory=Reconciled)
    kill: Reconciled = field(default_factory=Reconciled)
    empty: float = 0.0
    """MiB of a member without accounts."""
    half: float = 0.0
    """... with half of them."""
    whole: float = 0.0
    """... with all of them, after the other was killed."""
    cpu: float = 0.0
    """Of one core, of the member that has all, in quiet."""
    refused: int = 0
    """Requests that the exchange refused for their weight."""
    accounts: Accounts = field(default_factory=Accounts)

    @property
    def per_account(self) -> float:
        """KiB."""
        return 1024 * (self.whole - self.empty) / self.load.accounts

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Run:
    def __init__(self, stage: Stage, load: Load, say: Callable[[str], Any]) -> None:
        self.stage, self.say = stage, say
        self.found = Measured(load)
        self._ended_ns = 0

    async def go(self) -> Measured:
        await self._empty()
        await self._fill()
        await self._restart()
        await self._kill()
        await self._judge()
        return self.found

    async def _both(self, names: tuple[str, str], program: str) -> list[Member]:
        return [await self.stage.member(name, program) for name in names]

    async def _empty(self) -> None:
        """What a member needs without accounts."""
        member = await self.stage.member("empty")
        await until(lambda: self.stage.ready(member), 60.0, "a member without accounts is ready")
        await asyncio.sleep(3.0)
        self.found.empty = member.rss
        await member.stop()
        del self.stage.members["empty"]

    async def _fill(self) -> None:
        stage, count = self.stage, self.found.load.accounts
        await stage.post("limits", {"weight": 10**9})
        await stage.add_accounts()
        self.say(f"{count} accounts are in the credential store")
        began = time.monotonic()
        members = await self._both(("new-0", "new-1"), HURRIED)
        await until(lambda: self._closed(count, 0), LONG, "new accounts are read", 1.0)
        self.found.filled = time.monotonic() - began
        self.say(f"all are read, without a limit of weight: {self.found.filled:.0f} s")
        try:
            await until(lambda: self._quiet(count), self.found.load.swept, "new accounts are swept", 1.0)
            self.found.swept = True
        except TimeoutError:
            self.say("not all are swept yet: it goes on")
        self._ended_ns = time.time_ns()  # The gaps of the restart begin with the end of these.
        for code in await asyncio.gather(*(member.stop() for member in members)):
            if code != 0:
                raise Trouble(f"a member ended with code {code}\n{stage.trouble()}")
        stage.members.clear()

    async def _restart(self) -> None:
        """All accounts at once, within the limit."""
        stage, count = self.stage, self.found.load.accounts
        await stage.post("limits", {"weight": WEIGHT})
        await stage.forget_budgets()
        began = time.monotonic()
        await self._both(("pool-0", "pool-1"), "feedmill.cli.main")
        self.found.restart = await self._until_reconciled(count, count, began, self._ended_ns)
        self._say("the pool is started anew", self.found.restart)

    async def _kill(self) -> None:
        stage, count = self.stage, self.found.load.accounts
        first, second = (stage.members[name] for name in ("pool-0", "pool-1"))
        await until(self._settled, LONG, "both members are at rest", 1.0)
        self.found.half = max(first.rss, second.rss)
        lost = int((await stage.health(second))["accounts"]["held"])
        await stage.post("limits", {"weight": WEIGHT})  # The most that a minute saw is counted anew.
        since, began = time.time_ns(), time.monotonic()
        await second.kill()
        self.found.kill = await self._until_reconciled(count, lost, began, since)
        self._say("one member is killed", self.found.kill)
        cpu, at = first.cpu, time.monotonic()
        await asyncio.sleep(15.0)
        self.found.cpu = (first.cpu - cpu) / (time.monotonic() - at)
        self.found.whole = first.rss

    async def _judge(self) -> None:
        await until(self._traded, LONG, "there are enough fills", 1.0)
        stats = await self.stage.stats()
        self.found.refused = sum(stats["rest_status"].get(status, 0) for status in ("429", "418"))
        self.found.refused += stats["refused"].get("-1003", 0)
        report = await self.stage.verified(300.0)
        [venue] = report.venues
        self.found.accounts = venue.accounts
        for note in venue.notes:
            self.say(note)

    # -- looking

    async def _closed(self, count: int, since_ns: int) -> bool:
        self._alive()
        there, still_open = await self.stage.gaps(since_ns)
        return there >= count and still_open == 0

    async def _quiet(self, count: int) -> bool:
        self._alive()
        return await self.stage.states("listening") >= count

    async def _traded(self) -> bool:
        [(stored,)] = await self.stage.rows("SELECT count(*) FROM fills")
        return bool(stored >= self.found.load.fills)

    async def _settled(self) -> bool:
        """The accounts are shared out, and no gap is open."""
        self._alive()
        held = [int((await self.stage.health(each))["accounts"]["held"]) for each in self.stage.members.values()]
        return min(held) > 0.3 * sum(held) and (await self.stage.gaps())[1] == 0

    def _alive(self) -> None:
        for member in self.stage.members.values():
            if not member.alive and member.process is not None and member.process.returncode != -9:
                raise Trouble(f"{member.name} has ended\n{self.stage.trouble()}")

    async def _until_reconciled(self, count: int, lost: int, began: float, since_ns: int) -> Reconciled:
        stage, found = self.stage, Reconciled(lost)

        async def heard() -> bool:
            return await stage.listened() >= count

        # A killed member's sockets end with it, but the exchange has to notice.
        if lost < count:
            await until(lambda: self._less(count), 30.0, "the exchange notices", 0.02)
        await until(heard, LONG, "all are listened to")
        found.listened = time.monotonic() - began
        while not found.all:
            self._alive()
            there, still_open = await stage.gaps(since_ns)
            now, done = time.monotonic() - began, there - still_open
            if done >= lost / 2 and not found.half:
                found.half = now
            if done >= 0.99 * lost and not found.most:
                found.most = now
            if there >= lost and still_open == 0:
                found.all = now
            elif now > LONG:
                raise Trouble(f"{still_open} of {there} gaps are open after {now:.0f} s\n{stage.trouble()}")
            await asyncio.sleep(0.25)
        found.peak = int((await stage.stats())["weight"]["peak"])
        return found

    async def _less(self, count: int) -> bool:
        return await self.stage.listened() < count

    def _say(self, what: str, found: Reconciled) -> None:
        self.say(
            f"{what}: {found.accounts} accounts listened to in {found.listened:.1f} s, reconciled in {found.all:.0f} s "
            f"(half of them in {found.half:.0f} s, 99 % in {found.most:.0f} s), at most {found.peak} weight a minute"
        )


async def run(load: Load, folder: Path, say: Callable[[str], Any]) -> Measured:
    """On servers of its own. Raises Trouble, TimeoutError."""
    async with AsyncExitStack() as stack:
        redis, postgres = EmbeddedRedis(folder / "redis"), EmbeddedPostgres(folder / "postgres")
        for server in (redis, postgres):
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
        stage = Stage(folder / "stage", postgres.url)
        stage.folder.mkdir()
        more = ["--account-assets", START, *(("--symbols", load.symbols) if load.symbols else ())]
        await stage.begin(VENUE, load.accounts, load.rate, redis.url, postgres.url, *more)
        stack.push_async_callback(stage.end)
        try:
            return await Run(stage, load, say).go()
        except TimeoutError as error:
            raise Trouble(f"{error}\n{stage.trouble()}") from error
