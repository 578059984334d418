"""The private halves of the adapters against the simulator: stream and REST together equal its ledger exactly."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from account_store import D, Store, Truth
from private_client import keys_in
from pydantic import SecretStr
from yarl import URL

from feedmill.accounts.hygiene import Level, judge
from feedmill.exchanges import binance_signed
from feedmill.exchanges.account_base import AccountRequest, Credentials, Mend, Rejection, SignedRequest
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.base import FrameKind
from feedmill.exchanges.binance_spot import account as spot
from feedmill.exchanges.binance_spot.account_mapper import SpotAccountMapper
from feedmill.exchanges.binance_spot.account_rest import SpotAccountRest
from feedmill.exchanges.binance_usdm import account as usdm
from feedmill.exchanges.binance_usdm.account_mapper import UsdmAccountMapper
from feedmill.exchanges.binance_usdm.account_rest import UsdmAccountRest
from feedmill.exchanges.deribit import account as deribit
from feedmill.exchanges.deribit.account_mapper import DeribitAccountMapper
from feedmill.exchanges.deribit.account_rest import DeribitAccountRest
from feedmill.exchanges.reconcile import Reconciliation, Stage

SPOT, USDM, DERIBIT = "binance/Spot", "binance/UsdM", "deribit/Derivatives"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class SmallSpot(SpotAccountRest):
    PAGE = 4


class SmallUsdm(UsdmAccountRest):
    PAGE = 4


class SmallDeribit(DeribitAccountRest):
    PAGE = 60
    """More than one action makes in one ms: a page goes on by time."""


@pytest.fixture
def venue(simulate, tmp_path: Path):
    """``async with venue(SPOT) as world``: two accounts that do nothing by themselves."""

    @asynccontextmanager
    async def start(name: str, kind: str = "hmac", **limits: Any) -> AsyncIterator[World]:
        keys = tmp_path / "keys.json"
        limits = {"weight_window": 1e9} | limits  # No minute ends within: the weights of all requests add up.
        async with (
            simulate(name, accounts=2, account_rate=0.0, limits=limits, config={"keys_file": keys}) as sim,
            aiohttp.ClientSession() as http,
        ):
            yield World(name, sim, keys_in(keys, name, kind)[0], http)

    return start


class World:
    """One account: its keys, its adapter, what is stored of it."""

    def __init__(self, name: str, sim: Any, key: dict[str, str], http: aiohttp.ClientSession) -> None:
        self.name, self.sim, self.http = name, sim, http
        self.account = key["account"]
        fields = {field: SecretStr(text) for field, text in key.items() if field not in ("account", "type")}
        self.credentials = Credentials.of(fields)
        self.side = sim.venues[name].private
        self.stream, self.rest = sim.endpoints[name]
        listings = self.side.listings
        mapper = {SPOT: SpotAccountMapper, USDM: UsdmAccountMapper, DERIBIT: DeribitAccountMapper}[name]
        self.mapper = mapper({native: listing.symbol for native, listing in listings.items()})
        self.instruments = {
            each.symbol: Traded(native, (each.base, each.quote) if name == SPOT else (each.settle,))
            for native, each in listings.items()
        }
        self.store = Store()
        self.run: Reconciliation | None = None
        self.read = 0

    # -- the stream

    async def log_on(self, client: Any) -> None:
        """With the messages of the adapter, each answer judged by it."""
        self.read = 0
        if self.name == SPOT:
            if self.credentials.private_key is not None:
                await self._ask(client, spot, spot.logon(self.credentials, 1, now_ms()))
                await self._ask(client, spot, spot.subscribe_logged_on(2))
            else:
                await self._ask(client, spot, spot.subscribe(self.credentials, 2, now_ms()))
        elif self.name == DERIBIT:
            await self._ask(client, deribit, deribit.heartbeat(1))
            verdict = await self._ask(client, deribit, deribit.logon(self.credentials, 2, now_ms(), "n0nce"))
            assert verdict.grant is not None
            verdict = await self._ask(client, deribit, deribit.refresh(verdict.grant, 3))
            assert verdict.grant is not None
            verdict = await self._ask(client, deribit, deribit.subscribe(4))
            assert verdict.accepted == frozenset(deribit.CHANNELS)

    async def _ask(self, client: Any, module: Any, message: Any) -> Any:
        await client.send(message.payload.decode())
        await client.until(lambda got: got.get("id") == message.request_id)
        verdict = module.classify(client.raw[-1])
        assert (verdict.kind, verdict.request_id, verdict.record) == (FrameKind.ACK, message.request_id, False)
        return verdict

    async def url(self) -> str:
        if self.name == SPOT:
            return spot.url(self.stream)
        if self.name == DERIBIT:
            return deribit.url(self.stream)
        status, _, body = await self.call(self.signed(usdm.CREATE))
        assert status == 200
        return usdm.url(self.stream, usdm.grant(body).token).get_secret_value()

    async def hear(self, client: Any, count: int) -> None:
        """``count`` actions of the accounts, and what the stream tells of them."""
        self.side.step(count)
        await self.sim.drained()
        await client.drain()
        for raw in client.raw[self.read :]:
            events = self.mapper.map(raw, time.time_ns())
            self.store.take(events)
            for event in events if self.run else ():
                self.run.heard(event)
        self.read = len(client.raw)

    # -- REST

    def signed(self, request: AccountRequest) -> SignedRequest:
        if self.name == DERIBIT:
            return deribit.sign(self.rest, request, self.credentials, now_ms(), "n0nce")
        return binance_signed.sign(self.rest, request, self.credentials, now_ms())

    async def call(self, request: SignedRequest) -> tuple[int, Any, bytes]:
        url = URL(request.url.get_secret_value(), encoded=True)
        async with self.http.request(request.method, url, headers=request.headers) as answer:
            return answer.status, answer.headers, await answer.read()

    def judge(self, status: int, headers: Any, body: bytes) -> Rejection | None:
        return (deribit if self.name == DERIBIT else binance_signed).judge(status, headers, body)

    async def reconcile(self, rest: Any, known: Any, between: Callable[[int], Any]) -> Reconciliation:
        run = self.run = Reconciliation(rest(self.instruments, known, now_ms()), "gap-1", time.time_ns())
        used_before = None
        while (asked := run.next(10_000)) is not None:
            status, headers, body = await self.call(self.signed(asked.request))
            assert self.judge(status, headers, body) is None, (asked.request, body)
            if self.name != DERIBIT:
                used = int(headers["X-MBX-USED-WEIGHT-1M"])
                if used_before is not None:
                    assert used - used_before == asked.request.weight, asked.request
                used_before = used
            await between(asked.number)
            request = asked.request
            events = self.mapper.map_rest(request.kind, request.symbol, status, body, time.time_ns())
            self.store.take(run.answered(asked, events, more=self.mapper.more(request.kind, body)))
        assert run.stage is Stage.DONE
        assert run.pause == 0
        return run

    # -- against the truth

    def truth(self, ledger: Any) -> Truth:
        return Truth(lambda kind: [row for row in ledger(self.name, kind) if row[0] == self.account])

    def check(self, truth: Truth) -> None:
        store = self.store
        assert store.fills_as_written(realised=self.name != SPOT) == truth.fills()
        assert store.orders_as_written() == truth.orders()
        assert {asset: D(held.total) for asset, held in store.balances.items() if D(held.total)} == {
            asset: total for asset, total in truth.balances().items() if total
        }
        if self.name == SPOT:
            told = {asset: (D(held.free), D(held.locked)) for asset, held in store.balances.items()}
            assert {asset: both for asset, both in told.items() if any(both)} == {
                asset: both for asset, both in truth.split().items() if any(both)
            }
        else:
            held = {key[0]: (D(x.size), D(x.entry_price or "0")) for key, x in store.positions.items()}
            assert {symbol: both for symbol, both in held.items() if both[0]} == {
                symbol: both for symbol, both in truth.positions().items() if both[0]
            }
        states = {(r[1], r[2], int(r[13]), D(r[9]), D(r[8])): None for r in truth.rows("orders")}
        for state in store.states.values():
            key = state.symbol, state.order_id, state.venue_ns, D(state.filled), D(state.size)
            assert key in states, "no state that never was"


CASES = {
    "spot-hmac": (SPOT, "hmac", SmallSpot),
    "spot-ed25519": (SPOT, "ed25519", SmallSpot),
    "usdm": (USDM, "hmac", SmallUsdm),
    "deribit": (DERIBIT, "hmac", SmallDeribit),
}


@pytest.mark.parametrize("case", CASES)
async def test_stream_and_rest_together_equal_the_ledger(venue, connect, ledger, case: str) -> None:
    """Listening, then away, then back: what happened meanwhile comes by REST while more is going on."""
    name, kind, rest = CASES[case]
    async with venue(name, kind) as world:
        async with connect(await world.url()) as client:
            await world.log_on(client)
            await world.hear(client, 150)
        heard = set(world.store.fills)
        assert len(heard) > 10
        known = world.store.known(numbered=name != DERIBIT)
        world.side.step(250)
        await world.sim.drained()
        before = world.truth(ledger).moved()
        async with connect(await world.url()) as client:
            await world.log_on(client)

            async def more(number: int) -> None:
                if number % 5 == 0:
                    await world.hear(client, 8)

            run = await world.reconcile(rest, known, more)
        truth = world.truth(ledger)
        missed = set(truth.fills()) - heard
        assert len(missed) > 20
        assert truth.self_trades() > 0
        world.check(truth)
        marker = run.reconciled(time.time_ns())
        assert marker.refused == []
        assert marker.requests > 10
        told = sorted((each.asset, D(each.change)) for each in world.store.changes.values())
        moved = truth.moved()
        if name == DERIBIT:
            assert len(told) >= len(before), (
                "deposits and withdrawals come by REST, those made since then the next time"
            )
        for each in told:
            moved.remove(each)  # None that never was, none twice.


@pytest.mark.parametrize("case", ["spot-hmac", "usdm", "deribit"])
async def test_rest_alone_and_the_stream_alone_agree(venue, connect, ledger, case: str) -> None:
    """Equal natural keys, and what one source lacks is in the other."""
    name, kind, rest = CASES[case]
    async with venue(name, kind) as world:
        empty = world.store.known(numbered=name != DERIBIT)
        async with connect(await world.url()) as client:
            await world.log_on(client)
            await world.hear(client, 300)
        stream, world.store = world.store, Store()

        async def nothing(number: int) -> None:
            return None

        await world.reconcile(rest, empty, nothing)
        truth = world.truth(ledger)
        world.check(truth)
        asked = world.store
        assert set(stream.fills) == set(asked.fills) == set(truth.fills())
        assert set(stream.orders) == set(asked.orders)
        last = {key for key in asked.states if key in stream.states}
        assert last == set(asked.states), "the last state of each order has the same key in both"
        if name == DERIBIT:
            return  # Its fills do not name the client's id.
        assert {fill.client_order_id for fill in asked.fills.values()} == {""}
        world.store = Store()
        world.store.take([*asked.fills.values(), *stream.fills.values()])
        clients = {key: row[3] for row in truth.rows("orders") for key in [(row[1], row[2])]}
        assert {key: fill.client_order_id for key, fill in world.store.fills.items()} == {
            key: clients[key[0], key[2]] for key in asked.fills
        }


async def test_fees_that_a_stream_does_not_tell_come_by_rest(venue, connect, ledger) -> None:
    async with venue(USDM) as world:
        url = (await world.url()).replace("/ws/", "/ws?listenKey=") + "&events=TRADE_LITE"
        async with connect(url) as client:
            await world.hear(client, 150)
        assert len(world.store.fills) > 10
        assert {fill.fee for fill in world.store.fills.values()} == {""}
        known = Store().known(numbered=True)

        async def nothing(number: int) -> None:
            return None

        await world.reconcile(SmallUsdm, known, nothing)
        world.check(world.truth(ledger))


async def test_refusals_are_told_apart(venue, connect) -> None:
    async with venue(SPOT) as world:
        account = AccountRequest("balances", "/api/v3/account", {}, 20)

        async def mend(credentials: Credentials, shift_ms: int = 0) -> Mend | None:
            signed = binance_signed.sign(world.rest, account, credentials, now_ms() + shift_ms)
            found = world.judge(*await world.call(signed))
            return found and found.mend

        good = world.credentials
        assert await mend(good) is None
        assert await mend(Credentials(SecretStr("A" * 64), good.api_secret)) is Mend.USER
        assert await mend(Credentials(good.api_key, SecretStr("wrong"))) is Mend.USER
        assert await mend(good, -7000) is Mend.CLOCK
        world.sim.fault("rest_429", count=1, seconds=3)
        found = world.judge(*await world.call(world.signed(account)))
        assert found is not None
        assert (found.mend, found.wait) == (Mend.RETRY, 3.0)
        async with connect(spot.url(world.stream)) as client:
            await world.log_on(client)
            again = spot.subscribe(good, 9, now_ms())
            await client.send(again.payload.decode())
            await client.until(lambda got: got.get("id") == 9)
            twice = spot.classify(client.raw[-1]).rejection
            assert twice is not None
            assert twice.mend is Mend.DONE
            world.sim.fault("expire_session", symbol=world.account)
            await client.until(lambda got: got.get("event", {}).get("e") == "eventStreamTerminated")
            assert spot.classify(client.raw[-1]).ended


async def test_a_listen_key_that_ended(venue, connect) -> None:
    async with venue(USDM) as world:
        async with connect(await world.url()) as client:
            await world.hear(client, 5)
            world.sim.fault("expire_session", symbol=world.account)
            await client.until(lambda got: got.get("e") == "listenKeyExpired")
            verdict = usdm.classify(client.raw[-1])
            assert (verdict.ended, verdict.record) == (True, False)
        refused = world.judge(*await world.call(world.signed(usdm.RENEW)))
        assert refused is not None
        assert refused.mend is Mend.RENEW
        status, _, body = await world.call(world.signed(usdm.CREATE))
        assert status == 200
        first = usdm.grant(body).token
        _, _, body = await world.call(world.signed(usdm.RENEW))
        assert usdm.grant(body).token == first
        status, _, _ = await world.call(world.signed(usdm.CLOSE))
        assert status == 200


async def test_deribits_wrong_time_and_wrong_secret(venue, connect) -> None:
    async with venue(DERIBIT) as world, connect(deribit.url(world.stream)) as client:

        async def refusal(credentials: Credentials, at_ms: int, *, checked: bool) -> Mend:
            await client.send(deribit.logon(credentials, 7, at_ms, "n").payload.decode())
            await client.until(lambda got: got.get("id") == 7)
            found = deribit.classify(client.raw[-1], clock_checked=checked).rejection
            assert found is not None
            return found.mend

        assert await refusal(world.credentials, now_ms() - 120_000, checked=False) is Mend.CLOCK
        async with world.http.get(f"{world.rest}/api/v2{deribit.TIME.path}") as answer:
            venues_ms = deribit.server_ms(await answer.read())
        wrong = Credentials(world.credentials.api_key, SecretStr("wrong"))
        assert await refusal(wrong, venues_ms, checked=True) is Mend.USER
        await client.send(deribit.subscribe(8).payload.decode())
        await client.until(lambda got: got.get("id") == 8)
        found = deribit.classify(client.raw[-1]).rejection
        assert found is not None
        assert found.mend is Mend.RENEW


async def test_what_a_key_may_do(venue, connect) -> None:
    async with venue(SPOT) as world:

        async def level() -> Level:
            status, headers, body = await world.call(world.signed(binance_signed.PERMISSIONS))
            assert world.judge(status, headers, body) is None
            found = binance_signed.permissions(body)
            return judge(found, allow_withdraw=False, now_ns=time.time_ns()).level

        assert await level() is Level.WARNING, "from any address"
        world.side.change_key(world.account, {"ips": ["127.0.0.1"]})
        assert await level() is Level.OK
        world.side.change_key(world.account, {"withdraw": True})
        assert await level() is Level.REFUSED


async def test_what_a_deribit_key_may_do(venue, connect) -> None:
    async with venue(DERIBIT) as world, connect(deribit.url(world.stream)) as client:

        async def withdraws() -> bool | None:
            await client.send(deribit.logon(world.credentials, 5, now_ms(), "n", scope="").payload.decode())
            await client.until(lambda got: got.get("id") == 5)
            return deribit.rights(client.raw[-1]).withdraw

        assert await withdraws() is False
        world.side.change_key(world.account, {"withdraw": True})
        assert await withdraws() is True
        await world.log_on(client)  # The scope of our own token is narrower.
