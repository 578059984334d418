"""Accounts reconciled over the desk while REST fails in every way: nothing is lost, nothing is twice."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from feedmill.exchanges.account_base import AccountRequest, Credentials, Mend
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.account_session import VenueClock
from feedmill.exchanges.reconcile import MAX_FLYING, Asked, Reconciliation, Stage
from feedmill.exchanges.registry import get_venue
from feedmill.receiver.accounts.desk import ATTEMPTS, AccountDesk
from feedmill.shared.budget import TokenBucket
from feedmill.shared.log import get_logger
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "simulator"))
from account_store import Store, Truth

SPOT, USDM, DERIBIT = VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")


class World:
    def __init__(self, name: str, sim: Any, http: aiohttp.ClientSession) -> None:
        self.name, self.sim = name, sim
        self.side = sim.venues[name].private
        self.account = next(iter(self.side.accounts))
        key = next(key for key in self.side.keys.of(self.account) if key.kind == "hmac")
        self.credentials = Credentials(SecretStr(key.id), SecretStr(key.secret))
        venue = get_venue(*name.split("/"))
        assert venue.accounts is not None
        self.venue = venue.accounts
        rest = sim.endpoints[name][1]
        self.clock = VenueClock()
        self.weight = TokenBucket(20_000, 1000)
        self.desk = AccountDesk(
            self.venue, rest, http, clock=self.clock, budgets={"weight": self.weight, "instruments": self.weight},
            read_limits=venue.rest(rest).read_limits, limit=20_000, min_backoff=0.01, log=get_logger(),
        )  # fmt: skip

    @property
    def balances(self) -> AccountRequest:
        return next(each for each in self.reconciliation({}).rest.first() if each.kind == "balances")

    def reconciliation(self, instruments: dict[str, Traded]) -> Any:
        known = Store().known(numbered=self.name != DERIBIT)
        return _Run(self.venue.reconcile(instruments, known, time.time_ns() // 1_000_000))


class _Run:
    def __init__(self, rest: Any) -> None:
        self.rest = rest
        self.machine = Reconciliation(rest, "gap-1", 1)


@pytest.fixture
def world(tmp_path: Path):
    @asynccontextmanager
    async def start(name: str, **limits: Any) -> AsyncIterator[World]:
        if name != DERIBIT:
            limits = {"weight_window": 1e9, "weight": 50_000} | limits
        made = VenueConfig(name, limits=default_limits(name, **limits), rate=1, accounts=2, account_rate=0.0)
        async with (
            Simulator(SimulatorConfig((made,), ledger=tmp_path / "ledger", id_base=1000)) as sim,
            aiohttp.ClientSession() as http,
        ):
            yield World(name, sim, http)

    return start


@pytest.mark.parametrize("name", VENUES)
async def test_an_account_is_reconciled_through_failing_rest(world, tmp_path: Path, name: str) -> None:
    async with world(name) as it:
        it.side.step(300)
        await it.sim.drained()
        listed = await it.desk.ask(it.credentials, it.venue.instruments)
        assert listed.refused is None
        instruments = it.venue.traded(listed.body)
        mapper = it.venue.mapper({traded.native: symbol for symbol, traded in instruments.items()})
        store, run = Store(), it.reconciliation(instruments).machine
        it.sim.fault("skew", seconds=-120)
        faults = [("rest_500", 2), ("rest_429", 1), ("rest_500", 1)]

        async def carry_out(asked: Asked) -> None:
            answer = await it.desk.ask(it.credentials, asked.request)
            assert answer.refused is None
            assert answer.sent_ns < answer.at_ns
            kind, symbol = asked.request.kind, asked.request.symbol
            events = mapper.map_rest(kind, symbol, answer.status, answer.body, answer.at_ns)
            store.take(run.answered(asked, events, more=mapper.more(kind, answer.body)))

        flying: set[asyncio.Task[None]] = set()
        most = 0
        while run.stage is not Stage.DONE:
            while (asked := run.next(10_000)) is not None:
                flying.add(asyncio.create_task(carry_out(asked)))
                if asked.number % 4 == 0 and faults:
                    kind, count = faults.pop()
                    it.sim.fault(kind, count=count, seconds=0)
            most = max(most, len(flying))
            if flying:
                done, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        assert most == MAX_FLYING
        assert faults == []
        assert it.clock.offset_ms < -100_000, "by the venue's clock"
        rows = Truth(lambda kind: _rows(tmp_path, name, kind, it.account))
        assert store.fills_as_written(realised=name != SPOT) == rows.fills()
        assert store.orders_as_written() == rows.orders()
        assert run.reconciled(1).refused == []


def _rows(folder: Path, name: str, kind: str, account: str) -> list[list[str]]:
    text = (folder / "ledger" / f"{name.replace('/', '-')}.{kind}.tsv").read_text("utf-8")
    return [row for row in (line.split("\t") for line in text.splitlines()) if row[0] == account]


@pytest.mark.parametrize("name", VENUES)
async def test_what_only_the_user_can_mend_is_given_back_at_once(world, name: str) -> None:
    async with world(name) as it:
        wrong = Credentials(SecretStr("PlantedKey" * 4), SecretStr("PlantedSecret" * 3))
        answer = await it.desk.ask(wrong, it.balances)
        assert answer.refused is not None
        assert answer.refused.mend is Mend.USER
        assert answer.body == b""
        assert "Planted" not in repr(answer)


async def test_a_refused_question_is_not_asked_again(world) -> None:
    async with world(SPOT) as it:
        request = AccountRequest("fills", "/api/v3/myTrades", {"symbol": "NOPE"}, 20, "NO-PE", "NOPE")
        before = it.weight.level
        answer = await it.desk.ask(it.credentials, request)
        assert answer.refused is not None
        assert (answer.refused.mend, answer.refused.code) == (Mend.REFUSED, -1121)
        assert before - it.weight.level < 40


@pytest.mark.parametrize("name", VENUES)
async def test_a_venue_that_stays_away_is_given_up_after_so_many_attempts(world, name: str) -> None:
    async with world(name) as it:
        it.sim.fault("rest_500", count=ATTEMPTS)
        answer = await it.desk.ask(it.credentials, it.balances)
        assert answer.refused is not None
        assert (answer.refused.mend, answer.status) == (Mend.RETRY, 500)
        assert (await it.desk.ask(it.credentials, it.balances)).refused is None, "each attempt was one request"


async def test_retry_after_blocks_all_who_share_the_budget(world) -> None:
    async with world(SPOT) as it:
        blocks: list[float] = []
        block = it.weight.block

        def told(seconds: float) -> None:
            blocks.append(seconds)  # Looked at from outside the block may be over before it is seen.
            block(seconds)

        it.weight.block = told
        it.sim.fault("rest_429", count=1, seconds=1)
        began = time.monotonic()
        answer = await it.desk.ask(it.credentials, it.balances)
        assert answer.refused is None
        assert set(blocks) == {1.0}
        assert time.monotonic() - began >= 1.0
