"""Deribit's private side: log-on, scopes, tokens, user.* channels, private/get_*; by an independent client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from private_client import deribit_auth, deribit_call, keys_in, now_ms, sign

VENUE = "deribit/Derivatives"
D = Decimal


@pytest.fixture
def venue(simulate, tmp_path: Path):
    @asynccontextmanager
    async def start(**fields: Any) -> AsyncIterator[Any]:
        keys = tmp_path / "keys.json"
        fields = {"accounts": 2, "account_rate": 0.0, "config": {"keys_file": keys}} | fields
        async with simulate(VENUE, **fields) as sim:
            yield sim, keys_in(keys, VENUE)

    return start


def side(sim) -> Any:
    return sim.venues[VENUE].private


def url(sim) -> str:
    return sim.endpoints[VENUE][0] + "/ws/api/v2"


def data_of(client, channel: str) -> list[Any]:
    """Numbers exact."""
    exact = [json.loads(raw, parse_float=Decimal) for raw in client.raw]
    return [got["params"]["data"] for got in exact if got.get("params", {}).get("channel") == channel]


async def rest(sim, method: str, headers: dict[str, str] | None = None, **params: Any) -> tuple[int, Any]:
    target = f"{sim.endpoints[VENUE][1]}/api/v2/{method}"
    async with aiohttp.ClientSession() as http, http.get(target, params=params, headers=headers) as answer:
        return answer.status, json.loads(await answer.text(), parse_float=Decimal)


ALL = ["user.orders.any.any.raw", "user.trades.any.any.raw", "user.changes.any.any.raw", "user.portfolio.any"]
STATES = {"NEW": "open", "PARTIALLY_FILLED": "open", "FILLED": "filled", "CANCELED": "cancelled"}


async def test_channels_equal_the_ledger(venue, connect, ledger) -> None:
    async with venue() as (sim, keys), connect(url(sim)) as client:
        name = keys[0]["account"]
        refused = await client.ask(deribit_call("private/subscribe", 1, channels=ALL))
        assert refused["error"]["code"] == 13009
        granted = (await client.ask(deribit_auth(keys[0], 2)))["result"]
        assert granted["scope"] == "account:read trade:read wallet:read connection mainaccount"
        narrow = [
            "user.orders.BTC-PERPETUAL.100ms",
            "user.portfolio.btc",
            "user.trades.future.ETH.agg2",
            "user.nope.any",
        ]
        answer = await client.ask(deribit_call("private/subscribe", 3, channels=ALL + narrow))
        assert set(answer["result"]) == {*ALL, *narrow[:3]}
        side(sim).step(400)
        await sim.drained()
        await client.drain()
        orders = [row for row in ledger(VENUE, "orders") if row[0] == name]
        told = data_of(client, ALL[0])
        assert [
            (row["order_id"], row["direction"].upper(), row["amount"], row["filled_amount"], row["order_state"])
            for row in told
        ] == [(row[2], row[4], D(row[8]), D(row[9]), STATES[row[11]]) for row in orders]
        assert [each for array in data_of(client, narrow[0]) for each in array] == [
            row for row in told if row["instrument_name"] == "BTC-PERPETUAL"
        ]
        fills = [row for row in ledger(VENUE, "fills") if row[0] == name]
        trades = [each for array in data_of(client, ALL[1]) for each in array]
        assert [_trade(row) for row in trades] == [
            (row[1], row[2], row[3], *map(D, row[5:8]), row[8], row[9] == "1", D(row[10])) for row in fills
        ]
        assert [each for array in data_of(client, narrow[2]) for each in array] == [
            row for row in trades if row["instrument_name"] == "ETH-PERPETUAL"
        ]
        positions = [row for row in ledger(VENUE, "positions") if row[0] == name]
        changes = data_of(client, ALL[2])
        assert [
            (row["instrument_name"], row["size"], row["average_price"]) for each in changes for row in each["positions"]
        ] == [(row[1], D(row[2]), D(row[3])) for row in positions]
        assert [row for each in changes for row in each["trades"]] == trades
        balances = [row for row in ledger(VENUE, "balances") if row[0] == name and row[4] != "START"]
        assert [(row["currency"], row["balance"]) for row in data_of(client, ALL[3])] == [
            (row[1], D(row[2])) for row in balances
        ]
        assert {row["currency"] for row in data_of(client, narrow[1])} == {"BTC"}
        gone = await client.ask(deribit_call("private/unsubscribe", 4, channels=ALL[:1]))
        assert gone["result"] == ALL[:1]


def _trade(row: dict[str, Any]) -> tuple[Any, ...]:
    maker = row["liquidity"] == "M"
    sizes = row["price"], row["amount"], row["fee"]
    return (
        row["instrument_name"],
        row["trade_id"],
        row["order_id"],
        *sizes,
        row["fee_currency"],
        maker,
        row["profit_loss"],
    )


async def test_methods_answer_what_the_ledger_says(venue, ledger) -> None:
    async with venue() as (sim, keys):
        name = keys[0]["account"]
        side(sim).step(500)
        await sim.drained()
        login = {
            "grant_type": "client_credentials",
            "client_id": keys[0]["apiKey"],
            "client_secret": keys[0]["apiSecret"],
        }
        _, granted = await rest(sim, "public/auth", **login)
        bearer = {"Authorization": f"Bearer {granted['result']['access_token']}"}

        async def get(method: str, **params: Any) -> Any:
            status, body = await rest(sim, f"private/{method}", bearer, **params)
            assert status == 200, body
            return body["result"]

        last = {row[2]: row for row in ledger(VENUE, "orders") if row[0] == name}
        opened = {row["order_id"] for row in await get("get_open_orders")}
        assert opened == {ident for ident, row in last.items() if STATES[row[11]] == "open"}
        balances = {row[1]: D(row[2]) for row in ledger(VENUE, "balances") if row[0] == name}
        summaries = (await get("get_account_summaries", extended="true"))["summaries"]
        assert {row["currency"]: row["balance"] for row in summaries} == balances
        assert (await get("get_account_summary", currency="BTC"))["balance"] == balances["BTC"]
        held = {row[1]: (D(row[2]), D(row[3])) for row in ledger(VENUE, "positions") if row[0] == name}
        positions = await get("get_positions", currency="any")
        assert {row["instrument_name"]: (row["size"], row["average_price"]) for row in positions} == held
        fills = {(row[2], row[3]) for row in ledger(VENUE, "fills") if row[0] == name}
        trades: list[Any] = []
        for currency in ("BTC", "ETH", "USDC"):
            page = await get("get_user_trades_by_currency", currency=currency, count=1000, sorting="asc")
            assert page["has_more"] is False
            trades += page["trades"]
        assert {(row["trade_id"], row["order_id"]) for row in trades} == fills
        some = [row for row in trades if row["instrument_name"] == "BTC-PERPETUAL"]
        middle = some[len(some) // 2]["trade_seq"]
        page = await get(
            "get_user_trades_by_instrument", instrument_name="BTC-PERPETUAL", start_seq=middle, count=5, sorting="asc"
        )
        assert [row["trade_seq"] for row in page["trades"]] == [
            row["trade_seq"] for row in some if row["trade_seq"] >= middle
        ][:5]
        assert page["has_more"] is True
        ended = await get("get_order_history_by_currency", currency="any", count=1000, include_unfilled="true")
        assert {row["order_id"]: row["order_state"] for row in ended} == {
            ident: STATES[row[11]] for ident, row in last.items() if ident not in opened
        }
        ident = ended[0]["order_id"]
        assert (await get("get_order_state", order_id=ident))["order_id"] == ident
        moved = [row for row in ledger(VENUE, "transfers") if row[0] == name and row[2] == "BTC"]
        deposits = await get("get_deposits", currency="BTC", count=100)
        withdrawals = await get("get_withdrawals", currency="BTC", count=100)
        assert sorted(row["amount"] for row in deposits["data"]) == sorted(D(row[3]) for row in moved if D(row[3]) > 0)
        assert withdrawals["count"] == sum(D(row[3]) < 0 for row in moved)


async def test_a_rest_request_signed_by_itself(venue) -> None:
    async with venue() as (sim, keys):
        side(sim).step(200)
        await sim.drained()
        target = "/api/v2/private/get_open_orders?kind=future"
        open_orders = len(side(sim).accounts[keys[0]["account"]].open)

        async def get(stamp: int, signed: str) -> tuple[int, Any]:
            signature = sign(keys[0], f"{stamp}\nabc\n{signed}")
            header = f"deri-hmac-sha256 id={keys[0]['apiKey']},ts={stamp},nonce=abc,sig={signature}"
            async with (
                aiohttp.ClientSession(sim.endpoints[VENUE][1]) as http,
                http.get(target, headers={"Authorization": header}) as answer,
            ):
                return answer.status, await answer.json()

        status, body = await get(now_ms(), f"GET\n{target}\n\n")
        assert (status, len(body["result"])) == (200, open_orders)
        assert open_orders > 0
        for stamp, signed in ((now_ms(), "GET\n/api/v2/other\n\n"), (now_ms() - 61_000, f"GET\n{target}\n\n")):
            status, body = await get(stamp, signed)
            assert (status, body["error"]["code"]) == (401, 13004)


async def test_refusals_and_scopes(venue, connect) -> None:
    async with venue() as (sim, keys), connect(url(sim)) as client:
        for wrong in (keys[0] | {"apiSecret": "no"}, keys[0] | {"apiKey": "nobody"}):
            assert (await client.ask(deribit_auth(wrong, 1)))["error"]["code"] == 13004
        sim.fault("skew", seconds=90)
        assert (await client.ask(deribit_auth(keys[0], 2)))["error"]["code"] == 13004, "older than a minute"
        sim.fault("skew", seconds=0)
        side(sim).change_key(keys[0]["account"], {"ips": ["10.0.0.9"]})
        assert (await client.ask(deribit_auth(keys[0], 3)))["error"]["code"] == 13004
        side(sim).change_key(keys[0]["account"], {"ips": [], "withdraw": True})
        granted = (await client.ask(deribit_auth(keys[0], 4, scope="session:a trade:read")))["result"]
        assert granted["scope"] == "trade:read session:a mainaccount"
        for method in ("private/get_account_summaries", "private/get_deposits"):
            assert (await client.ask(deribit_call(method, 5)))["error"]["code"] == 13021
        portfolio = await client.ask(deribit_call("private/subscribe", 6, channels=["user.portfolio.any"]))
        assert portfolio["error"]["code"] == 13021
        assert (await client.ask(deribit_call("private/buy", 7)))["error"]["code"] == -32601, "nobody trades here"
        assert (await client.ask(deribit_call("private/get_open_orders", 8)))["result"] == []
        assert "wallet:read_write" in (await client.ask(deribit_auth(keys[0], 9)))["result"]["scope"]
        async with connect(url(sim)) as other:
            method = deribit_call("private/get_open_orders", 1)
            assert (await other.ask(method))["error"]["code"] == 13009
            method["params"]["access_token"] = granted["access_token"]
            assert (await other.ask(method))["result"] == [], "a session outlives its connection"
            await other.send(deribit_call("private/logout", 2))
            assert (await other.closed())[0] == 1000
        assert (await rest(sim, "private/get_open_orders"))[0] == 401
        for at in range(300):  # More than a full pool and what comes back to it in the ten seconds after.
            await client.send(deribit_call("private/get_open_orders", 100 + at))
        over = await client.until(lambda got: "error" in got)
        assert over["error"]["code"] == 10028, "the account's credits are used up"
        assert (await client.closed())[0] == 1008


async def test_tokens_end_are_renewed_and_revoked(venue, connect) -> None:
    channel = "user.portfolio.any"
    async with venue(limits={"credits": False}) as (sim, keys), connect(url(sim)) as client:
        granted = (await client.ask(deribit_auth(keys[0], 1)))["result"]
        assert granted["expires_in"] == 900
        await client.ask(deribit_call("private/subscribe", 2, channels=[channel]))
        topic = side(sim).topic(keys[0]["account"], channel)
        renewal = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
        renewed = (await client.ask(deribit_call("public/auth", 3, **renewal)))["result"]
        assert (await client.ask(deribit_call("public/auth", 4, **renewal)))["error"]["code"] == 13004, "once only"
        sim.fault("skew", seconds=901)
        while topic.outlets:
            await client.ask(deribit_call("public/test", 5))
        side(sim).step(50)
        await sim.drained()
        await client.drain()
        assert data_of(client, channel) == [], "no private notifications without a valid token"
        assert (await client.ask(deribit_call("private/get_open_orders", 6)))["error"]["code"] == 13009
        renewal["refresh_token"] = renewed["refresh_token"]
        assert "result" in await client.ask(deribit_call("public/auth", 7, **renewal))
        side(sim).step(50)
        await sim.drained()
        await client.until(lambda got: got.get("params", {}).get("channel") == channel)
        sim.fault("skew", seconds=0)
        assert sim.fault("expire_session", symbol=keys[0]["account"]) == 1
        assert (await client.ask(deribit_call("private/get_open_orders", 8)))["error"]["code"] == 13009
        assert "result" in await client.ask(deribit_auth(keys[0], 9))
        new = side(sim).rotate(keys[0]["account"])[0]
        assert (await client.ask(deribit_call("private/get_open_orders", 10)))["error"]["code"] == 13009
        assert (await client.ask(deribit_auth(keys[0], 11)))["error"]["code"] == 13004
        assert "result" in await client.ask(deribit_auth({"apiKey": new.id, "apiSecret": new.secret}, 12))


async def test_connections_of_an_address_are_limited(venue, connect) -> None:
    async with venue(limits={"connections": 2}) as (sim, _), connect(url(sim)), connect(url(sim)):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(url(sim)):
                pass
        assert refused.value.response.status_code == 429
