"""From the venue to an account's events: lines, streams, desk and distributor on a real Redis, through faults.

The judge is the simulator's ledger: orders, fills, balances and positions must be as it has them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as redis_asyncio
from pydantic import SecretStr

from feedmill.distributor.accounts.service import AccountDistributor
from feedmill.exchanges.account_base import Credentials
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.account_session import VenueClock
from feedmill.exchanges.registry import get_venue
from feedmill.local.embedded import EmbeddedRedis
from feedmill.receiver.accounts.answers import AccountAnswers
from feedmill.receiver.accounts.desk import AccountDesk
from feedmill.receiver.accounts.lines import AccountLines
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared.account_events import AccountBlock, decode_account
from feedmill.shared.budget import ByteBudget, TokenBucket
from feedmill.shared.keys import account_ref
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "simulator"))
from account_store import Store, Truth

SPOT, USDM, DERIBIT = VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
WAIT = 120


class Flow:
    """Everything of two accounts; its parts can be cut, killed and started again."""

    def __init__(self, name: str, server: EmbeddedRedis, folder: Path, sim: Any, http: aiohttp.ClientSession) -> None:
        self.name, self.server, self.folder, self.sim = name, server, folder, sim
        self.side = sim.venues[name].private
        found = get_venue(*name.split("/"))
        assert found.accounts is not None
        self.venue = found.accounts
        self.credentials: dict[str, Credentials] = {}
        for account in self.side.accounts:
            key = next(key for key in self.side.keys.of(account) if key.kind == "hmac")
            self.credentials[f"default/{account}"] = Credentials(SecretStr(key.id), SecretStr(key.secret))
        self.names = list(self.credentials)
        stream, rest = sim.endpoints[name]
        weight = TokenBucket(50_000, 1000)
        url = RedisUrl.parse(server.url)
        self.streams = AccountStreams(url, "r0", ByteBudget(1 << 24), alive_interval=1.0, log=get_logger())
        self.lines = AccountLines(
            self.venue, stream, rest, self.streams, weight=weight, connects=TokenBucket(100, 100), silence=60.0,
            min_backoff=0.05, max_backoff=0.2, log=get_logger(),
        )  # fmt: skip
        self.desk = AccountDesk(
            self.venue, rest, http, clock=VenueClock(), budgets={"weight": weight, "instruments": weight},
            read_limits=found.rest(rest).read_limits, limit=50_000, min_backoff=0.01, log=get_logger(),
        )  # fmt: skip
        self.answers = AccountAnswers(self.desk, self.streams, self.credentials.__getitem__)
        self.stop = asyncio.Event()
        self.distributor = self._distributor()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def _distributor(self) -> AccountDistributor:
        made = AccountDistributor(
            RedisUrl.parse(self.server.url), self.venue, self.answers, self._instruments, block_ms=20, log=get_logger()
        )
        made.work_on(set(self.names))
        return made

    async def _instruments(self) -> dict[str, Traded]:
        listed = await self.desk.ask(self.credentials[self.names[0]], self.venue.instruments)
        assert listed.refused is None
        return self.venue.traded(listed.body)

    def start(self) -> None:
        for name in self.names:
            self.streams.open(name)
            self.lines.add(name, self.credentials[name])
        self.tasks["streams"] = asyncio.create_task(self.streams.run())
        self.tasks["lines"] = asyncio.create_task(self.lines.run())
        self.tasks["distributor"] = asyncio.create_task(self.distributor.run(self.stop))

    async def kill(self, what: str) -> None:
        task = self.tasks.pop(what)
        task.cancel()
        await asyncio.wait({task})

    async def restart_distributor(self) -> None:
        await self.kill("distributor")
        self.distributor = self._distributor()
        self.tasks["distributor"] = asyncio.create_task(self.distributor.run(self.stop))

    async def step(self, count: int) -> None:
        self.side.step(count)
        await self.sim.drained()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                await asyncio.sleep(0.01)

    async def listened(self) -> None:
        await self.until(lambda: self.lines.ready >= set(self.names))

    async def blocks(self, account: str) -> list[AccountBlock]:
        """All commits of the account; that they are a chain is checked."""
        client = redis_asyncio.from_url(self.server.url)
        try:
            entries = await client.xrange(account_ref(account).events)
        finally:
            await client.aclose()
        before, found = b"", []
        for number, (_, fields) in enumerate(entries, 1):
            assert (int(fields[b"n"]), fields[b"p"]) == (number, before)
            before = fields[b"id"]
            found.append(decode_account(fields[b"e"]))
            assert found[-1].account == account
        return found

    def truth(self, account: str) -> Truth:
        short = account.partition("/")[2]

        def rows(kind: str) -> list[list[str]]:
            path = self.folder / f"{self.name.replace('/', '-')}.{kind}.tsv"
            found = (line.split("\t") for line in path.read_text("utf-8").splitlines())
            return [row for row in found if row[0] == short]

        return Truth(rows)

    async def settled(self) -> None:
        """Listened to, everything appended and committed, every gap closed and swept."""
        async with asyncio.timeout(WAIT):
            while True:
                await self.listened()
                await self.streams.settled()
                client = redis_asyncio.from_url(self.server.url)
                done = self.distributor.reconciling.isdisjoint(self.names)
                for name in self.names:
                    ref = account_ref(name)
                    last = await client.xrevrange(ref.raw, count=1)
                    done = done and bool(last) and await client.hget(ref.checkpoint, "pos") == last[0][0]
                await client.aclose()
                gaps = [each for name in self.names for block in await self.blocks(name) for each in block.gaps]
                last_of = {gap.id: gap.state for gap in gaps}
                if done and set(last_of.values()) == {"closed"}:
                    return
                await asyncio.sleep(0.02)

    async def check(self) -> None:
        for name in self.names:
            store, truth = Store(), self.truth(name)
            for block in await self.blocks(name):
                assert block.dead_letters == []
                assert [each.refused for each in block.reconciled if each.refused] == []
                for events in (block.orders, block.fills, block.balances, block.changes, block.positions):
                    store.take(events)
            assert len(store.fills) > 20
            assert store.fills_as_written(realised=self.name != SPOT) == truth.fills()
            assert store.orders_as_written() == truth.orders()
            told = {asset: D(held.total) for asset, held in store.balances.items()}
            wanted = truth.balances()
            assert {asset: told.get(asset, D(0)) for asset in wanted} == wanted
            if self.name != SPOT:
                held = {key[0]: D(each.size) for key, each in store.positions.items() if D(each.size)}
                assert held == {symbol: each[0] for symbol, each in truth.positions().items() if each[0]}


@asynccontextmanager
async def flowing(name: str, server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Flow]:
    limits = {} if name == DERIBIT else {"weight_window": 1e9, "weight": 100_000}
    made = VenueConfig(name, limits=default_limits(name, **limits), rate=1, accounts=2, account_rate=0.0)
    ledger = tmp_path / "ledger"
    async with (
        Simulator(SimulatorConfig((made,), ledger=ledger, id_base=1000)) as sim,
        aiohttp.ClientSession() as http,
    ):
        flow = Flow(name, server, ledger, sim, http)
        try:
            yield flow
        finally:
            for what in list(flow.tasks):
                await flow.kill(what)


@pytest.mark.parametrize("name", VENUES)
async def test_an_account_is_its_ledger_through_cuts_kills_and_a_redis_that_restarts(
    redis_server: EmbeddedRedis, tmp_path: Path, name: str
) -> None:
    async with flowing(name, redis_server, tmp_path) as flow:
        await flow.step(60)  # Before anybody listened.
        flow.start()
        await flow.listened()
        await flow.step(60)
        await flow.settled()
        await flow.check()

        assert flow.sim.fault("abort", channel="Account") >= 1
        await flow.step(40)  # Unheard.
        await flow.listened()
        await flow.step(20)
        await flow.restart_distributor()
        await flow.step(20)
        await flow.settled()
        await flow.check()

        await flow.step(20)
        await asyncio.to_thread(redis_server.kill)
        await flow.step(20)
        assert flow.sim.fault("abort", channel="Account") >= 1
        await flow.step(20)
        await asyncio.to_thread(redis_server.start)
        await flow.step(20)
        await flow.settled()
        await flow.check()
        causes = {gap.cause for block in await flow.blocks(flow.names[0]) for gap in block.gaps}
        assert {"first", "disconnected"} <= causes


async def test_a_distributor_killed_while_it_reconciles_begins_again_and_two_at_once_do_no_harm(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with flowing(USDM, redis_server, tmp_path) as flow:
        await flow.step(100)
        flow.start()
        await flow.listened()
        for _ in range(5):
            await flow.until(lambda: flow.distributor.figures.commits > 0)  # Each has figures of its own.
            await flow.restart_distributor()
            await flow.step(3)
        second = flow._distributor()
        flow.tasks["second"] = asyncio.create_task(second.run(flow.stop))
        async with asyncio.timeout(WAIT):
            # The second one may take its time to begin: they meet only while there is something to commit.
            steps = 0
            while steps < 10 or not second.figures.mismatches + flow.distributor.figures.mismatches:
                await flow.step(5)
                await flow.streams.settled()
                steps += 1
        await flow.kill("second")
        await flow.settled()
        await flow.check()


async def test_a_server_that_forgot_everything_gets_the_whole_account_again(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with flowing(DERIBIT, redis_server, tmp_path) as flow:
        flow.start()
        await flow.listened()
        await flow.step(100)
        await flow.settled()
        client = redis_asyncio.from_url(redis_server.url)
        await client.flushall()
        await client.aclose()
        await flow.step(30)
        await flow.until(lambda: flow.distributor.figures.mismatches >= len(flow.names))
        await flow.settled()
        await flow.check()


async def test_an_account_that_floods_and_one_that_is_refused_hold_no_other_up(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with flowing(USDM, redis_server, tmp_path) as flow:
        wrong, good = flow.names
        right = flow.credentials[wrong]
        flow.credentials[wrong] = Credentials(right.api_key, SecretStr("PlantedSecret" * 4))
        flow.start()
        await flow.until(lambda: good not in flow.distributor.reconciling)
        for at in range(3000):
            flow.streams.frame(wrong, at + 1, b"flood %d" % at)
        await flow.step(200)
        flow.names = [good]
        await flow.settled()
        await flow.check()
        await flow.until(lambda: flow.distributor.figures.letters == 3000)
        text = repr(await flow.blocks(wrong))
        assert "Planted" not in text
        assert "flood 2999" in text


async def test_an_instrument_that_was_not_listed_yet_is_looked_up(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    async with flowing(SPOT, redis_server, tmp_path) as flow:
        whole, asked = flow._instruments, 0

        async def listed() -> dict[str, Traded]:
            nonlocal asked
            asked += 1
            found = await whole()
            return found if asked > 1 else dict(list(found.items())[:1])

        flow.distributor = AccountDistributor(
            RedisUrl.parse(redis_server.url), flow.venue, flow.answers, listed, block_ms=20, log=get_logger()
        )
        flow.distributor.work_on(set(flow.names))
        flow.start()
        await flow.settled()
        await flow.step(120)
        await flow.settled()
        await flow.check()
        assert asked == 2


async def test_it_stops_when_it_is_asked_to(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    async with flowing(USDM, redis_server, tmp_path) as flow:
        flow.start()
        await flow.settled()
        flow.stop.set()
        async with asyncio.timeout(WAIT):
            await flow.tasks["distributor"]
        assert flow.distributor.figures.error == ""
