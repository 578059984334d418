"""Binance Spot's private side: WebSocket API user data, signed REST, errors; by an independent client."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from private_client import keys_in, now_ms, plain, sign, signed_get, signed_params

VENUE = "binance/Spot"
D = Decimal


@pytest.fixture
def venue(simulate, tmp_path: Path):
    """A venue whose accounts do nothing by themselves; (simulator, file of keys)."""

    @asynccontextmanager
    async def start(**fields: Any) -> AsyncIterator[Any]:
        keys = tmp_path / "keys.json"
        fields = {"accounts": 3, "account_rate": 0.0, "config": {"keys_file": keys}} | fields
        # One window of weight, so that no minute ends within a test.
        fields["limits"] = {"weight_window": 1e9} | fields.get("limits", {})
        async with simulate(VENUE, **fields) as sim:
            yield sim, keys

    return start


def api(sim) -> str:
    return sim.endpoints[VENUE][0] + "/ws-api/v3"


def side(sim) -> Any:
    return sim.venues[VENUE].private


def ask(method: str, ident: Any = 1, **params: Any) -> dict[str, Any]:
    return {"id": ident, "method": method} | ({"params": params} if params else {})


def number(text: str) -> Decimal:
    return D(text)


def events_of(client, subscription: int, kind: str) -> list[Any]:
    wrapped = [got for got in client.got if got.get("subscriptionId") == subscription]
    return [got["event"] for got in wrapped if got["event"]["e"] == kind]


async def test_two_accounts_on_one_connection_equal_the_ledger(venue, connect, ledger) -> None:
    async with venue() as (sim, keys_file), connect(api(sim)) as client:
        assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600
        logged_on, signed = keys_in(keys_file, VENUE, "ed25519")[0], keys_in(keys_file, VENUE)[1]
        on = await client.ask(ask("session.logon", 1, **signed_params(logged_on)))
        assert on["status"] == 200
        assert on["result"]["apiKey"] == logged_on["apiKey"]
        first = await client.ask(ask("userDataStream.subscribe", 2))
        assert first["result"] == {"subscriptionId": 0}
        assert first["rateLimits"][0]["count"] == 6, "connect, logon, subscribe"
        again = await client.ask(ask("userDataStream.subscribe", 3))
        assert again["error"]["code"] == -2035
        second = await client.ask(ask("userDataStream.subscribe.signature", 4, **signed_params(signed)))
        assert second["result"] == {"subscriptionId": 1}
        listed = await client.ask(ask("session.subscriptions", 5))
        assert listed["result"] == [{"subscriptionId": 0}, {"subscriptionId": 1}]
        side(sim).step(400)
        await sim.drained()
        await client.drain()
        for at, name in ((0, logged_on["account"]), (1, signed["account"])):
            reports = events_of(client, at, "executionReport")
            orders = [row for row in ledger(VENUE, "orders") if row[0] == name]
            assert [_order(row) for row in reports] == [
                (row[2], row[4], row[5], row[6], *map(number, row[7:11]), row[11], row[12], row[13][:-6])
                for row in orders
            ]
            fills = [row for row in ledger(VENUE, "fills") if row[0] == name]
            assert len(fills) > 20
            assert [_fill(row) for row in reports if row["x"] == "TRADE"] == [
                (row[2], row[3], row[4], *map(number, row[5:8]), row[8], row[9] == "1") for row in fills
            ]
            assert all(row["t"] == -1 and row["N"] is None for row in reports if row["x"] != "TRADE")
            told = [
                (row["a"], number(row["f"]), number(row["l"]), str(event["u"]))
                for event in events_of(client, at, "outboundAccountPosition")
                for row in event["B"]
            ]
            balances = [row for row in ledger(VENUE, "balances") if row[0] == name and row[4] != "START"]
            assert told == [(row[1], number(row[2]), number(row[3]), row[5][:-6]) for row in balances]
            moved = [row for row in ledger(VENUE, "transfers") if row[0] == name]
            deltas = [(each["a"], number(each["d"])) for each in events_of(client, at, "balanceUpdate")]
            assert deltas == [(row[2], number(row[3])) for row in moved]
            assert moved
        gone = await client.ask(ask("session.logout", 6))
        assert gone["result"]["apiKey"] is None
        assert len(events_of(client, 0, "eventStreamTerminated")) == 1
        assert (await client.ask(ask("session.subscriptions", 7)))["result"] == [{"subscriptionId": 1}]
        assert (await client.ask(ask("userDataStream.unsubscribe", 8, subscriptionId=0)))["error"]["code"] == -2036
        assert (await client.ask(ask("userDataStream.unsubscribe", 9)))["result"] == {}
        assert len(events_of(client, 1, "eventStreamTerminated")) == 1


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        str(row["i"]), row["S"], row["o"], row["f"], number(row["p"]), number(row["q"]), number(row["z"]),
        number(row["Z"]), row["X"], row["x"], str(row["T"]),
    )  # fmt: skip


def _fill(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        str(row["t"]), str(row["i"]), row["S"], number(row["L"]), number(row["l"]), number(row["n"]), row["N"],
        row["m"],
    )  # fmt: skip


async def test_rest_answers_what_the_ledger_says(venue, ledger) -> None:
    async with venue() as (sim, keys_file):
        base = sim.endpoints[VENUE][1]
        key = keys_in(keys_file, VENUE)[0]
        edwards = keys_in(keys_file, VENUE, "ed25519")[0]
        side(sim).step(600)
        await sim.drained()
        name = key["account"]
        status, account, headers = await signed_get(base, "/api/v3/account", key, omitZeroBalances="true")
        assert status == 200
        assert headers["X-MBX-USED-WEIGHT-1M"] == "20"
        latest = {row[1]: (number(row[2]), number(row[3])) for row in ledger(VENUE, "balances") if row[0] == name}
        shown = {row["asset"]: (number(row["free"]), number(row["locked"])) for row in account["balances"]}
        assert shown == latest
        rows = [row for row in ledger(VENUE, "orders") if row[0] == name]
        last = {(row[1].replace("-", ""), int(row[2])): row for row in rows}
        _, opened, headers = await signed_get(base, "/api/v3/openOrders", edwards)
        assert headers["X-MBX-USED-WEIGHT-1M"] == "100"
        assert {(row["symbol"], row["orderId"]) for row in opened} == {
            at for at, row in last.items() if row[11] in ("NEW", "PARTIALLY_FILLED")
        }
        fills = [row for row in ledger(VENUE, "fills") if row[0] == name and row[1] == "BTC-USDT"]
        got: list[Any] = []
        while True:
            from_id = got[-1]["id"] + 1 if got else 0
            _, page, _ = await signed_get(base, "/api/v3/myTrades", key, symbol="BTCUSDT", fromId=from_id, limit=7)
            got += page
            if len(page) < 7:
                break
        assert len({row["id"] for row in got}) > 14
        missing = {(int(row[2]), int(row[3])) for row in fills} - {(row["id"], row["orderId"]) for row in got}
        assert all(any(other[2] == str(at) for other in fills if other[3] != str(order)) for at, order in missing), (
            "a page may end between the two fills of a self-trade, nothing else is missing"
        )
        by_key = {(int(row[2]), int(row[3])): row for row in fills}
        for row in got:
            wanted = by_key[row["id"], row["orderId"]]
            assert (row["isBuyer"], number(row["price"]), number(row["qty"]), number(row["commission"])) == (
                wanted[4] == "BUY", *map(number, wanted[5:8]),
            )  # fmt: skip
            assert row["commissionAsset"] == wanted[8]
        _, orders, _ = await signed_get(base, "/api/v3/allOrders", key, symbol="BTCUSDT", orderId=0, limit=1000)
        assert {row["orderId"]: (row["status"], number(row["executedQty"])) for row in orders} == {
            at: (row[11], number(row[9])) for (symbol, at), row in last.items() if symbol == "BTCUSDT"
        }


async def test_refusals(venue, connect) -> None:
    async with venue(limits={"weight": 400, "ban_after": 2}) as (sim, keys_file), connect(api(sim)) as client:
        base = sim.endpoints[VENUE][1]
        key = keys_in(keys_file, VENUE)[0]
        path = "/api/v3/account"

        async def code(key: dict[str, str], **params: Any) -> Any:
            status, body, _ = await signed_get(base, path, key, **params)
            return status, body["code"]

        assert (await plain(base + path, "GET"))[1]["code"] == -2014
        assert await code(key | {"apiKey": "A" * 64}) == (401, -2015)
        assert await code(key | {"apiSecret": "wrong"}) == (400, -1022)
        assert await code(key, timestamp=now_ms() - 6000, recvWindow=None) == (400, -1021)
        assert await code(key, timestamp=now_ms() + 30_000) == (400, -1021), "also by one that looks at it late"
        assert await code(key, timestamp=now_ms() - 6000, recvWindow=60001) == (400, -1131)
        status, _, _ = await signed_get(base, path, key, timestamp=now_ms() - 6000, recvWindow=60000)
        assert status == 200
        assert (await signed_get(base, "/api/v3/myTrades", key, symbol="NOPE"))[1]["code"] == -1121
        wrong = await client.ask(ask("session.logon", 1, **signed_params(key)))
        assert wrong["error"]["code"] == -4056, "only Ed25519 keys log on"
        late = signed_params(key, timestamp=now_ms() - 6000, recvWindow=None)
        assert (await client.ask(ask("userDataStream.subscribe.signature", 2, **late)))["error"]["code"] == -1021
        bad = signed_params(key) | {"signature": sign(key, "other")}
        refused = await client.ask(ask("userDataStream.subscribe.signature", 3, **bad))
        assert (refused["status"], refused["error"]["code"]) == (400, -1022)
        assert (await client.ask(ask("userDataStream.subscribe", 4)))["error"]["code"] == -2015, "not logged on"
        sim.fault("skew", seconds=-30)
        assert await code(key) == (400, -1021), "the venue's clock is late"
        sim.fault("skew", seconds=0)
        side(sim).change_key(key["account"], {"ips": ["10.1.2.3"]})
        assert await code(key) == (401, -2015)
        side(sim).change_key(key["account"], {"ips": []})
        sim.fault("rest_500", path=path, count=1)
        assert await code(key) == (500, -1000)
        other = keys_in(keys_file, VENUE)[1]
        side(sim).change_key(other["account"], {"seconds": 0})
        assert await code(other) == (401, -2015), "the key is at its end"
        codes = [(await signed_get(base, path, key))[0] for _ in range(20)]
        assert codes[0] == 200
        assert codes[-1] == 418
        assert 429 in codes
        limited = await client.ask(ask("account.status", 5, **signed_params(key)))
        assert limited["status"] == 418
        assert limited["error"]["data"]["retryAfter"] > now_ms()


async def test_rights_of_a_key_and_its_rotation(venue, connect) -> None:
    async with venue() as (sim, keys_file), connect(api(sim)) as client:
        base = sim.endpoints[VENUE][1]
        rights = "/sapi/v1/account/apiRestrictions"
        old, edwards = keys_in(keys_file, VENUE)[0], keys_in(keys_file, VENUE, "ed25519")[0]
        _, body, _ = await signed_get(base, rights, old)
        assert (body["enableReading"], body["enableWithdrawals"], body["ipRestrict"]) == (True, False, False)
        assert "tradingAuthorityExpirationTime" not in body
        changed = {"withdraw": True, "ips": ["127.0.0.1"], "seconds": 3600}
        assert side(sim).change_key(old["account"], changed) == 2
        _, body, _ = await signed_get(base, rights, old)
        assert (body["enableWithdrawals"], body["ipRestrict"]) == (True, True)
        assert body["tradingAuthorityExpirationTime"] > now_ms()
        await client.ask(ask("session.logon", 1, **signed_params(edwards)))
        await client.ask(ask("userDataStream.subscribe", 2))
        async with aiohttp.ClientSession() as http:
            asked = {"account": old["account"], "rotate": True}
            async with http.post(f"{base}/_sim/accounts/key", json=asked) as answer:
                assert await answer.json() == {"hit": 2}
            async with http.post(f"{base}/_sim/accounts/key", json={"account": "nobody"}) as answer:
                assert answer.status == 400
        ended = await client.until(lambda got: got.get("id", 0) is None)
        assert ended["error"]["code"] == -2015
        assert len(events_of(client, 0, "eventStreamTerminated")) == 1
        assert (await signed_get(base, rights, old))[1]["code"] == -2015
        new = keys_in(keys_file, VENUE)[0]
        assert new["account"] == old["account"]
        assert new["apiSecret"] != old["apiSecret"]
        _, body, _ = await signed_get(base, rights, new)
        assert body["enableWithdrawals"], "the new key has the rights of the old one"
        assert (await client.ask(ask("userDataStream.subscribe.signature", 3, **signed_params(new))))["status"] == 200
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{base}/_sim/accounts/keys", params={"account": old["account"]}) as answer:
                told = await answer.json()
            async with http.get(f"{base}/_sim/stats") as answer:
                assert (await answer.json())["private"]["listened"] == 1
        assert side(sim).rotate(old["account"], 60.0)
        assert side(sim).change_key(old["account"], {"replaced": True, "seconds": 0}) == 2
        assert (await signed_get(base, rights, keys_in(keys_file, VENUE)[0]))[1]["code"] == -2015, "the file is older"
        assert [(each["type"], each["ended"], each["uses"], each["refused"]) for each in told] == [
            ("hmac", True, 2, 1),
            ("ed25519", True, 1, 0),
            ("hmac", False, 2, 0),
            ("ed25519", False, 0, 0),
        ]


async def test_faults_of_private_events(venue, connect, ledger) -> None:
    async with venue(accounts=1) as (sim, keys_file), connect(api(sim)) as client, connect(api(sim)) as other:
        key = keys_in(keys_file, VENUE)[0]
        for each in (client, other):
            await each.ask(ask("userDataStream.subscribe.signature", 1, **signed_params(key)))
        assert sim.fault("drop", symbol=key["account"], channel="Account", count=3) == 1
        side(sim).step(50)
        await sim.drained()
        await client.drain()
        sim.fault("double", channel="Account", count=2)
        side(sim).step(50)
        await sim.drained()
        await client.drain()
        done = [row[1] for row in ledger(VENUE, "faults") if row[3] == "Account"]
        assert done == ["drop"] * 3 + ["double"] * 2
        sent = len([raw for raw in client.raw if b'subscriptionId":0,"event' in raw])
        assert sent == sim.stats()[VENUE]["channels"]["Account"]["delivered"] / 2
        assert sent == sim.stats()[VENUE]["channels"]["Account"]["emitted"] - 3 + 2
        assert sim.fault("expire_session", symbol=key["account"]) == 2
        await client.until(lambda got: got.get("event", {}).get("e") == "eventStreamTerminated")
        again = await client.ask(ask("userDataStream.subscribe.signature", 2, **signed_params(key)))
        assert again["result"] == {"subscriptionId": 1}
        assert sim.fault("abort", symbol=key["account"], channel="Account") == 1, "only the one that is subscribed"
        assert (await client.closed())[0] is None
        async with connect(api(sim)) as third:
            await third.ask(ask("userDataStream.subscribe.signature", 1, **signed_params(key)))
            sim.fault("swap", channel="Account", count=1)
            sim.fault("bad_bytes", channel="Account", count=1)
            side(sim).step(20)
            await sim.drained()
            with pytest.raises(ValueError, match=r"JSON|delimiter|Expecting|Unterminated"):
                await third.until(lambda _: False)
        sim.fault("close", every="subscribe", channel="Account", count=1, code=1012)
        async with connect(api(sim)) as fourth:
            await fourth.ask(ask("userDataStream.subscribe.signature", 1, **signed_params(key)))
            assert (await fourth.closed())[0] == 1012


async def test_orders_follow_the_public_market(venue, connect, ledger) -> None:
    async with venue(rate=2000) as (sim, _):
        streams = "/".join(f"{native}@trade" for native in ("btcusdt", "ethusdt", "bnbusdt", "ethbtc"))
        async with connect(f"{sim.endpoints[VENUE][0]}/ws/{streams}") as client:
            await client.read(4000)
            sim.stop_emitting()
            await client.drain()
        side(sim).step(300)
        await sim.drained()
        last = {row["s"]: D(row["p"]) for row in client.got}
        listed = side(sim).listings
        assert any(abs(last[native] - listed[native].price) > 20 * listed[native].tick for native in last), "it moved"
        taken = [(row[1].replace("-", ""), D(row[5])) for row in ledger(VENUE, "fills") if row[9] == "0"]
        assert {native for native, _ in taken} == set(last)
        for native, price in taken:
            assert abs(price - last[native]) <= 6 * listed[native].tick, "a taker pays the market, and its slip"


async def test_a_thousand_accounts_on_one_connection(venue, connect) -> None:
    async with venue(accounts=1000) as (sim, keys_file), connect(api(sim)) as client:
        keys = keys_in(keys_file, VENUE)
        assert len(keys) == 1000
        for at, key in enumerate(keys):
            await client.send(ask("userDataStream.subscribe.signature", at, **signed_params(key)))
        answers = [await client.until(lambda got: "id" in got) for _ in keys]
        assert {answer["result"]["subscriptionId"] for answer in answers} == set(range(1000))
        extra = await client.ask(ask("userDataStream.subscribe.signature", "x", **signed_params(keys[0])))
        assert extra["error"]["code"] == -2035
        side(sim).step(3000)
        await sim.drained()
        topics = side(sim).topics.values()
        wanted = sum(topic.delivered for topic in topics)
        got = 0
        while got < wanted:
            got += "event" in await client.next()
        reported = {message["subscriptionId"] for message in client.got if "event" in message}
        assert len(reported) > 900


async def test_limits_change_on_demand(venue, connect) -> None:
    async with venue(limits={"weight": 1000}) as (sim, keys_file), aiohttp.ClientSession() as http:
        base = sim.endpoints[VENUE][1]
        key = keys_in(keys_file, VENUE)[0]

        async def limit(**fields: Any) -> tuple[int, Any]:
            async with http.post(f"{base}/_sim/limits", json=fields) as answer:
                return answer.status, await answer.json()

        assert (await signed_get(base, "/api/v3/account", key))[0] == 200
        assert sim.venues[VENUE].stats()["weight"] == {"limit": 1000, "peak": 20}
        assert await limit(weight=30) == (200, {"weight": 30})
        assert (await signed_get(base, "/api/v3/account", key))[0] == 200, "what was used is forgotten"
        assert (await signed_get(base, "/api/v3/account", key))[0] == 429
        assert (await limit(weight=100))[0] == 200
        assert (await signed_get(base, "/api/v3/account", key))[0] == 200
        for wrong in ({"wait": 1}, {"weight": "many"}, {"weight": True}):
            status, body = await limit(**wrong)
            assert (status, next(iter(wrong)) in body["error"]) == (400, True)
