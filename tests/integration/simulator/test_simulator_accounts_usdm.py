"""Binance USD-M's private side: listen keys, /private streams, signed REST; by an independent client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from private_client import keys_in, plain, signed_get

VENUE = "binance/UsdM"
D = Decimal


@pytest.fixture
def venue(simulate, tmp_path: Path):
    @asynccontextmanager
    async def start(**fields: Any) -> AsyncIterator[Any]:
        keys = tmp_path / "keys.json"
        fields = {"accounts": 2, "account_rate": 0.0, "config": {"keys_file": keys}} | fields
        fields["limits"] = {"weight_window": 1e9}
        async with simulate(VENUE, **fields) as sim:
            yield sim, keys_in(keys, VENUE)

    return start


def side(sim) -> Any:
    return sim.venues[VENUE].private


def private(sim) -> str:
    return sim.endpoints[VENUE][0] + "/private"


async def listen_key(sim, key: dict[str, str], method: str = "POST") -> tuple[int, Any]:
    status, body, _ = await plain(f"{sim.endpoints[VENUE][1]}/fapi/v1/listenKey", method, key)
    return status, body.get("listenKey", body)


def of_kind(messages: list[Any], kind: str) -> list[Any]:
    return [each for each in messages if each["e"] == kind]


async def test_a_listen_key_brings_all_that_happens_to_the_account(venue, connect, ledger) -> None:
    async with venue() as (sim, keys):
        key, name = keys[0], keys[0]["account"]
        status, text = await listen_key(sim, key)
        assert status == 200
        assert (await listen_key(sim, key))[1] == text, "one an account"
        async with connect(f"{private(sim)}/ws/{text}") as client:
            await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            side(sim).step(300)
            await sim.drained()
            await client.drain()
        got = [each for each in client.got if "e" in each]
        orders = [row for row in ledger(VENUE, "orders") if row[0] == name]
        told = [each["o"] for each in of_kind(got, "ORDER_TRADE_UPDATE")]
        assert [
            (str(row["i"]), row["S"], D(row["q"]), D(row["p"]), D(row["z"]), row["X"], row["x"]) for row in told
        ] == [(row[2], row[4], D(row[8]), D(row[7]), D(row[9]), row[11], row[12]) for row in orders]
        fills = [row for row in ledger(VENUE, "fills") if row[0] == name]
        trades = [row for row in told if row["x"] == "TRADE"]
        assert [
            (str(row["t"]), D(row["L"]), D(row["l"]), D(row.get("n", "0")), row["m"], D(row["rp"])) for row in trades
        ] == [(row[2], *map(D, row[5:8]), row[9] == "1", D(row[10])) for row in fills]
        assert {row["N"] for row in trades if "N" in row} <= {"USDT", "BNB"}
        assert all(row["t"] == 0 for row in told if row["x"] != "TRADE")
        assert [(each["t"], each["i"]) for each in of_kind(got, "TRADE_LITE")] == [
            (row["t"], row["i"]) for row in trades
        ]
        updates = of_kind(got, "ACCOUNT_UPDATE")
        balances = [row for row in ledger(VENUE, "balances") if row[0] == name and row[4] != "START"]
        assert [(row["a"], D(row["wb"])) for each in updates for row in each["a"]["B"]] == [
            (row[1], D(row[2])) for row in balances
        ]
        positions = [row for row in ledger(VENUE, "positions") if row[0] == name]
        assert [(D(row["pa"]), D(row["ep"])) for each in updates for row in each["a"]["P"]] == [
            (D(row[2]), D(row[3])) for row in positions
        ]
        assert {each["a"]["m"] for each in updates} == {"ORDER", "DEPOSIT", "WITHDRAW"}


async def test_the_ways_to_connect(venue, connect) -> None:
    async with venue() as (sim, keys):
        one, two = [(await listen_key(sim, key))[1] for key in keys]
        query = f"listenKey={one}&events=ORDER_TRADE_UPDATE&listenKey={two}&events=ACCOUNT_UPDATE"
        async with (
            connect(f"{private(sim)}/ws?listenKey={one}&events=ORDER_TRADE_UPDATE/ACCOUNT_UPDATE") as some,
            connect(f"{private(sim)}/stream?{query}") as both,
            connect(f"{private(sim)}/stream") as asked,
            connect(f"{private(sim)}/ws/nonsense") as wrong,
            connect(f"{sim.endpoints[VENUE][0]}/ws/{one}") as legacy,
        ):
            everybody = (some, both, asked, wrong, legacy)
            assert await asked.ask({"method": "SUBSCRIBE", "params": [two], "id": 5}) == {"result": None, "id": 5}
            for each in everybody:
                await each.ask({"method": "LIST_SUBSCRIPTIONS", "id": 6})
            assert asked.got[-1]["result"] == [two]
            side(sim).step(100)
            await sim.drained()
            for each in everybody:
                await each.drain()
            assert {each["e"] for each in some.got if "e" in each} == {"ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE"}
            wrapped = [each for each in both.got if "stream" in each]
            assert {(each["stream"], each["data"]["e"]) for each in wrapped} == {
                (one, "ORDER_TRADE_UPDATE"),
                (two, "ACCOUNT_UPDATE"),
            }
            wrapped = [each for each in asked.got if "stream" in each]
            assert {each["data"]["e"] for each in wrapped} == {"ORDER_TRADE_UPDATE", "TRADE_LITE", "ACCOUNT_UPDATE"}
            assert {each["stream"] for each in wrapped} == {two}
            for silent in (wrong, legacy):
                assert all("result" in each for each in silent.got), "neither refused nor spoken to"
            await asked.ask({"method": "UNSUBSCRIBE", "params": [two], "id": 7})
            before = len(asked.got)
            side(sim).step(20)
            await sim.drained()
            await asked.drain()
            assert len(asked.got) == before


async def test_the_end_of_a_listen_key(venue, connect) -> None:
    async with venue() as (sim, keys):
        _, text = await listen_key(sim, keys[0])
        async with connect(f"{private(sim)}/ws/{text}") as client, connect(f"{private(sim)}/stream") as other:
            await other.ask({"method": "SUBSCRIBE", "params": [text], "id": 1})
            await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 2})
            sim.fault("skew", seconds=3599)
            assert await listen_key(sim, keys[1]) != (200, text)
            sim.fault("skew", seconds=3601)
            expired = await client.until(lambda got: got.get("e") == "listenKeyExpired")
            assert expired["listenKey"] == text
            assert (await other.until(lambda got: "stream" in got))["data"]["e"] == "listenKeyExpired"
            side(sim).step(50)
            await sim.drained()
            await client.drain()
            assert client.got[-1] == expired, "open, and silent"
            assert await listen_key(sim, keys[0], "PUT") == (
                400, {"code": -1125, "msg": "This listenKey does not exist."},
            )  # fmt: skip
            assert (await listen_key(sim, keys[0]))[1] != text


async def test_renewal_and_removal_of_a_listen_key(venue, connect) -> None:
    async with venue() as (sim, keys):
        key = keys[0]
        assert (await listen_key(sim, key, "PUT"))[0] == 400
        _, text = await listen_key(sim, key)
        assert await listen_key(sim, key, "PUT") == (200, text)
        assert sim.fault("expire_session", symbol=keys[1]["account"]) == 0
        assert sim.fault("expire_session", symbol=key["account"]) == 1
        assert (await listen_key(sim, key, "PUT"))[1]["code"] == -1125
        _, text = await listen_key(sim, key)
        assert await listen_key(sim, key, "DELETE") == (200, {})
        assert (await listen_key(sim, key, "DELETE"))[1]["code"] == -1125
        assert (await listen_key(sim, key | {"apiKey": "x"}))[1]["code"] == -2015
        _, text = await listen_key(sim, key)
        async with connect(f"{private(sim)}/ws/{text}") as client:
            await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            new = side(sim).rotate(key["account"])
            assert (await client.until(lambda got: "e" in got))["e"] == "listenKeyExpired"
            assert (await listen_key(sim, key))[1]["code"] == -2015
            assert (await listen_key(sim, {"apiKey": new[0].id}))[0] == 200


async def test_rest_answers_what_the_ledger_says(venue, ledger) -> None:
    async with venue() as (sim, keys):
        base, key, name = sim.endpoints[VENUE][1], keys[0], keys[0]["account"]
        side(sim).step(500)
        await sim.drained()
        wallets = {row[1]: D(row[2]) for row in ledger(VENUE, "balances") if row[0] == name}
        status, balances, headers = await signed_get(base, "/fapi/v3/balance", key)
        assert (status, headers["X-MBX-USED-WEIGHT-1M"]) == (200, "5")
        assert {row["asset"]: D(row["balance"]) for row in balances} == wallets
        _, account, _ = await signed_get(base, "/fapi/v3/account", key)
        assert {row["asset"]: D(row["walletBalance"]) for row in account["assets"]} == wallets
        held = {row[1].replace("-", ""): (D(row[2]), D(row[3])) for row in ledger(VENUE, "positions") if row[0] == name}
        _, positions, _ = await signed_get(base, "/fapi/v3/positionRisk", key)
        shown = {row["symbol"]: (D(row["positionAmt"]), D(row["entryPrice"])) for row in positions}
        assert {symbol: at for symbol, at in shown.items() if at[0]} == {s: at for s, at in held.items() if at[0]}
        last = {(row[1].replace("-", ""), int(row[2])): row for row in ledger(VENUE, "orders") if row[0] == name}
        _, opened, _ = await signed_get(base, "/fapi/v1/openOrders", key)
        assert {(row["symbol"], row["orderId"]) for row in opened} == {
            at for at, row in last.items() if row[11] in ("NEW", "PARTIALLY_FILLED")
        }
        _, orders, _ = await signed_get(base, "/fapi/v1/allOrders", key, limit=1000)
        assert {(row["symbol"], row["orderId"]): row["status"] for row in orders} == {
            at: row[11] for at, row in last.items()
        }
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
            wanted = {
                (int(row[2]), int(row[3])): (*map(D, row[5:8]), row[8], D(row[10]))
                for row in ledger(VENUE, "fills")
                if row[0] == name and row[1].replace("-", "") == symbol
            }
            _, rows, _ = await signed_get(base, "/fapi/v1/userTrades", key, symbol=symbol, fromId=0, limit=1000)
            assert wanted
            assert {
                (row["id"], row["orderId"]): (
                    D(row["price"]), D(row["qty"]), D(row["commission"]), row["commissionAsset"], D(row["realizedPnl"]),
                )
                for row in rows
            } == wanted  # fmt: skip
        assert (await signed_get(base, "/fapi/v1/userTrades", key))[1]["code"] == -1102
        long = {"symbol": "BTCUSDT", "startTime": 1, "endTime": 10**12}
        assert (await signed_get(base, "/fapi/v1/userTrades", key, **long))[1]["code"] == -1127
        assert (await signed_get(base, "/sapi/v1/account/apiRestrictions", key))[1]["enableWithdrawals"] is False
        assert (await signed_get(base, "/fapi/v3/balance", key | {"apiSecret": "x"}))[1]["code"] == -1022
