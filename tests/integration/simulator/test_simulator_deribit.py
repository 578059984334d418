"""Deribit: JSON-RPC, channels, books, heartbeats, credits, REST; by independent clients."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import websockets

from feedmill.simulator import default_limits
from feedmill.simulator.faults import Fault

VENUE = "deribit/Derivatives"
BTC = "BTC-PERPETUAL"


def call(method: str, ident: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "method": f"public/{method}", "params": params}


def url(sim) -> str:
    return sim.endpoints[VENUE][0] + "/ws/api/v2"


def data_of(client, channel: str) -> list[Any]:
    return [got["params"]["data"] for got in client.got if got.get("params", {}).get("channel") == channel]


async def rest(sim, method: str, **params: Any) -> tuple[int, Any]:
    url_ = f"{sim.endpoints[VENUE][1]}/api/v2/{method}"
    async with aiohttp.ClientSession() as session, session.get(url_, params=params) as answer:
        return answer.status, await answer.json()


async def test_subscribe_lists_what_it_accepted_in_its_own_order(simulate, connect) -> None:
    asked = [f"trades.{BTC}.100ms", f"book.{BTC}.100ms", f"quote.{BTC}", "quote.NOPE", f"book.{BTC}.7ms", "nonsense"]
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        answer = await client.ask(call("subscribe", 7, channels=asked))
        assert set(answer["result"]) == set(asked[:3])
        assert answer["result"] != asked[:3], "the order of the request is not kept"
        assert answer["usOut"] >= answer["usIn"] > 10**15
        again = await client.ask(call("subscribe", 8, channels=asked[:1]))
        assert again["result"] == asked[:1]
        gone = await client.ask(call("unsubscribe", 9, channels=[*asked[1:3], "quote.ETH-PERPETUAL"]))
        assert set(gone["result"]) == set(asked[1:3])
        assert (await client.ask(call("unsubscribe_all", 10)))["result"] == "ok"
        assert (await client.ask(call("subscribe", 11, channels=["nonsense"])))["result"] == []


async def test_raw_needs_a_login(simulate, connect) -> None:
    raw = f"trades.{BTC}.raw"
    async with simulate(VENUE, credentials={"me": "secret"}) as sim, connect(url(sim)) as client:
        refused = await client.ask(call("subscribe", channels=[raw, f"quote.{BTC}"]))
        assert refused["error"]["code"] == 13778
        bad = await client.ask(call("auth", 2, grant_type="client_credentials", client_id="me", client_secret="wrong"))
        assert bad["error"]["code"] == 13004
        stamp = int(time.time() * 1000)
        signature = hmac.new(b"secret", f"{stamp}\nn1\n".encode(), hashlib.sha256).hexdigest()
        signed = call("auth", 3, grant_type="client_signature", client_id="me", timestamp=stamp, nonce="n1", data="")
        signed["params"]["signature"] = signature
        granted = (await client.ask(signed))["result"]
        assert granted["token_type"] == "bearer"
        renewed = await client.ask(call("auth", 4, grant_type="refresh_token", refresh_token=granted["refresh_token"]))
        assert renewed["result"]["access_token"] != granted["access_token"]
        assert (await client.ask(call("subscribe", 5, channels=[raw])))["result"] == [raw]
        await client.until(lambda got: got.get("params", {}).get("channel") == raw)


async def test_errors(simulate, connect) -> None:
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        await client.send("{nonsense")
        bad = await client.next()
        assert bad["error"] == {"code": 11050, "data": "invalid json", "message": "bad_request"}
        assert "id" not in bad
        assert (await client.ask(call("no_such_thing", 2)))["error"]["code"] == -32601
        private = {"jsonrpc": "2.0", "id": 3, "method": "private/get_positions", "params": {}}
        assert (await client.ask(private))["error"]["code"] == 13009
        assert (await client.ask(call("get_order_book", 4, instrument_name="NOPE")))["error"]["code"] == 13020
        low = await client.ask(call("set_heartbeat", 5, interval=5))
        assert low["error"]["code"] == -32602
        assert (await client.ask(call("hello", 6, client_name="x", client_version="1")))["result"]["version"]
        assert abs((await client.ask(call("get_time", 7)))["result"] - time.time() * 1000) < 60_000
        status, answer = await rest(sim, "public/get_instrument", instrument_name="NOPE")
        assert (status, answer["error"]["code"]) == (400, 13020)


async def test_trades_chain_and_equal_the_ledger(simulate, connect, ledger) -> None:
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        await client.ask(call("subscribe", channels=[f"trades.{BTC}.100ms", "trades.option.BTC.100ms"]))
        await client.read(500)
        sim.stop_emitting()
        await sim.drained()
        await client.drain()
    batches = data_of(client, f"trades.{BTC}.100ms")
    assert {len(batch) for batch in batches} == {1, 2, 3}
    trades = [trade for batch in batches for trade in batch]
    assert [trade["trade_seq"] for trade in trades] == list(range(1001, 1001 + len(trades)))
    kept = [row for row in ledger(VENUE, "trades") if row[0] == BTC]
    assert [
        (str(t["trade_seq"]), Decimal(str(t["price"])), Decimal(str(t["amount"])), t["direction"], t["timestamp"])
        for t in trades
    ] == [
        (row[1], Decimal(row[2]), Decimal(row[3]), {"1": "buy", "2": "sell"}[row[4]], int(row[5]) // 1_000_000)
        for row in kept
    ]
    assert any("e" in row[3] for row in kept), "amounts are at times printed with an exponent"
    options = {trade["instrument_name"] for batch in data_of(client, "trades.option.BTC.100ms") for trade in batch}
    assert len(options) > 1
    assert all(name.startswith("BTC-") for name in options)


def apply(book: dict[str, dict[float, float]], data: dict[str, Any]) -> None:
    for side in ("bids", "asks"):
        for action, price, amount in data[side]:
            assert (price in book[side]) == (action != "new"), f"{action} of {price}"
            if action == "delete":
                assert amount == 0
                del book[side][price]
            else:
                book[side][price] = amount


async def test_books_chain_and_a_later_subscriber_joins_them(simulate, connect) -> None:
    channel = f"book.{BTC}.100ms"
    mix = {"Ticker": 2, "Book": 2}
    async with simulate(VENUE, mix=mix) as sim, connect(url(sim)) as first, connect(url(sim)) as second:
        await first.ask(call("subscribe", channels=[channel, f"quote.{BTC}"]))
        await first.read(100)
        await second.ask(call("subscribe", channels=[channel]))
        await second.read(100)
        again = await second.ask(call("subscribe", 2, channels=[channel]))
        assert again["result"] == [channel]
        await second.ask(call("unsubscribe", 3, channels=[channel]))
        await second.ask(call("subscribe", 4, channels=[channel]))
        await second.read(20)
        sim.stop_emitting()
        await first.drain()
        await second.drain()
        _, later = await rest(sim, "public/get_order_book", instrument_name=BTC, depth=1000)
    books = []
    for client, snapshots in ((first, 1), (second, 2)):
        updates = data_of(client, channel)
        assert updates[0]["type"] == "snapshot"
        assert sum(update["type"] == "snapshot" for update in updates) == snapshots, "none for a double subscribe"
        book: dict[str, dict[float, float]] = {"bids": {}, "asks": {}}
        for before, update in itertools.pairwise([None, *updates]):
            if update["type"] == "snapshot":
                book = {"bids": {}, "asks": {}}
                assert [level[1] for level in update["bids"]] == sorted((b[1] for b in update["bids"]), reverse=True)
            else:
                assert update["prev_change_id"] == before["change_id"]
            apply(book, update)
        books.append((updates[-1]["change_id"], book))
    assert books[0] == books[1]
    result = later["result"]
    assert result["change_id"] == books[0][0]
    for side in ("bids", "asks"):
        assert dict(result[side]) == books[0][1][side]


async def test_quotes_differ_and_keep_time(simulate, connect, ledger) -> None:
    async with simulate(VENUE, rate=2000) as sim, connect(url(sim)) as client:
        await client.ask(call("subscribe", channels=[f"quote.{BTC}", "ticker.ETH-PERPETUAL.100ms"]))
        await client.read(800)
        sim.stop_emitting()
        await sim.drained()
        await client.drain()
    quotes = data_of(client, f"quote.{BTC}")
    assert len({json.dumps(quote) for quote in quotes}) == len(quotes)
    assert all(a["timestamp"] <= b["timestamp"] for a, b in itertools.pairwise(quotes))
    assert all(quote["best_bid_price"] < quote["best_ask_price"] for quote in quotes)
    tickers = data_of(client, "ticker.ETH-PERPETUAL.100ms")
    assert {"mark_price", "index_price", "funding_8h", "open_interest", "best_bid_amount"} <= set(tickers[0])
    assert len(ledger(VENUE, "tickers")) == len(quotes) + len(tickers)


async def test_grouped_books_and_charts(simulate, connect) -> None:
    grouped, chart = f"book.{BTC}.10.10.100ms", f"chart.trades.{BTC}.1"
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        await client.ask(call("subscribe", channels=[grouped, chart, f"book.{BTC}.7.10.100ms"]))
        await client.until(lambda got: len(data_of(client, grouped)) > 3 and len(data_of(client, chart)) > 0)
    window = data_of(client, grouped)[-1]
    assert len(window["bids"]) == len(window["asks"]) == 10
    assert all(price % 10 == 0 for price, _ in window["bids"] + window["asks"])
    bar = data_of(client, chart)[-1]
    assert bar["low"] <= bar["open"] <= bar["high"]
    assert bar["volume"] == pytest.approx(bar["cost"] / bar["close"], rel=0.05), "inverse: cost in USD, volume in coin"


async def test_heartbeats_must_be_answered(simulate, connect) -> None:
    # A second for an answer: a process that was held up for a moment does not look like a client that gives none.
    limits = {"heartbeat_scale": 0.1, "idle_timeout": 0.0}
    async with simulate(VENUE, limits=limits) as sim:
        async with connect(url(sim)) as client:
            assert (await client.ask(call("set_heartbeat", interval=10)))["result"] == "ok"
            for ident in range(2, 6):
                await client.until(lambda got: got.get("params", {}).get("type") == "test_request")
                assert (await client.ask(call("test", ident)))["result"]["version"]
            kinds = {got["params"]["type"] for got in client.got if got.get("method") == "heartbeat"}
            assert kinds == {"heartbeat", "test_request"}
            assert await client.closed() == (4000, "heartbeat close")
        async with connect(url(sim)) as client:
            await client.ask(call("set_heartbeat", interval=10))
            await client.ask(call("disable_heartbeat", 2))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.next(), 2.0)
        assert sim.stats()[VENUE]["closed"] == {"heartbeat": 1}


async def test_an_idle_socket_is_cut_without_a_close_frame(simulate, connect) -> None:
    async with simulate(VENUE) as sim, connect(url(sim)) as busy, connect(url(sim)) as idle:
        await busy.ask(call("subscribe", channels=[f"quote.{BTC}"]))
        # Only now, however long it took the busy one to become so.
        sim.venues[VENUE].set_limits(default_limits(VENUE, idle_timeout=0.3))
        assert await idle.closed() == (None, "")
        await busy.read(300)


async def test_credits_run_out_and_end_the_session(simulate, connect) -> None:
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        for ident in range(40):
            await client.send(call("subscribe", ident, channels=["quote.NOPE"]))
        error = await client.until(lambda got: "error" in got)
        assert error["error"]["code"] == 10028
        assert (await client.closed())[0] == 1008


async def test_connections_at_once(simulate, connect) -> None:
    async with simulate(VENUE, limits={"connections": 1}) as sim, connect(url(sim)):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(url(sim)):
                pass
        assert refused.value.response.status_code == 429


async def test_trades_by_sequence(simulate, connect) -> None:
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        await client.ask(call("subscribe", channels=[f"trades.{BTC}.100ms"]))
        await client.read(100)
        trades = {t["trade_seq"]: t for batch in data_of(client, f"trades.{BTC}.100ms") for t in batch}
        query = {"instrument_name": BTC, "start_seq": 1010, "end_seq": 1060, "count": 20, "sorting": "asc"}
        _, answer = await rest(sim, "public/get_last_trades_by_instrument", **query)
        rows = answer["result"]["trades"]
        assert answer["result"]["has_more"] is True
        assert [row["trade_seq"] for row in rows] == list(range(1010, 1030))
        assert all(row == trades[row["trade_seq"]] for row in rows)
        _, default = await rest(sim, "public/get_last_trades_by_instrument", **(query | {"sorting": "default"}))
        seqs = [row["trade_seq"] for row in default["result"]["trades"]]
        assert sorted(seqs) == list(range(1041, 1061))
        assert seqs != sorted(seqs, reverse=True), "only roughly descending"
        over = await client.ask(call("get_last_trades_by_instrument", 5, **(query | {"count": 5000})))
        assert over["error"]["code"] == -32602


async def test_a_history_that_is_gone(simulate, connect) -> None:
    """The answer is empty, and does not say why."""
    async with simulate(VENUE) as sim, connect(url(sim)) as client:
        await client.ask(call("subscribe", channels=[f"trades.{BTC}.100ms"]))
        await client.read(50)
        query = {"instrument_name": BTC, "start_seq": 1001, "end_seq": 1010, "count": 10, "sorting": "asc"}
        _, answer = await rest(sim, "public/get_last_trades_by_instrument", **query)
        assert len(answer["result"]["trades"]) == 10
        assert sim.venues[VENUE].inject(Fault("forget", symbol=BTC)) == 1
        status, answer = await rest(sim, "public/get_last_trades_by_instrument", **query)
        assert (status, answer["result"]) == (200, {"trades": [], "has_more": False})


async def test_instruments(simulate) -> None:
    async with simulate(VENUE, symbols=("BTC-25JUN27-90000-C",)) as sim:
        _, answer = await rest(sim, "public/get_instruments", currency="BTC", kind="option")
        rows = {row["instrument_name"]: row for row in answer["result"]}
        assert rows["BTC-25JUN27-90000-C"]["strike"] == 90000.0
        assert rows["BTC-25JUN27-90000-C"]["expiration_timestamp"] == 1813910400000
        _, usdc = await rest(sim, "public/get_instruments", currency="USDC")
        kinds = {row["instrument_name"]: row["kind"] for row in usdc["result"]}
        assert kinds["SOL_USDC-PERPETUAL"] == "future"
        assert kinds["ETH_USDC"] == "spot"
        _, one = await rest(sim, "public/get_instrument", instrument_name=BTC)
        assert one["result"]["instrument_type"] == "reversed"
        async with aiohttp.ClientSession() as session:
            body = {"jsonrpc": "2.0", "id": 9, "method": "public/get_instruments", "params": {"currency": "any"}}
            async with session.post(f"{sim.endpoints[VENUE][1]}/api/v2", json=body) as answer_:
                everything = await answer_.json()
        assert everything["id"] == 9
        assert len(everything["result"]) == 21
