"""Binance Spot and USD-M: subscriptions, errors, sequences, limits, REST; by independent clients."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import websockets

from feedmill.simulator.faults import Fault

SPOT, USDM = "binance/Spot", "binance/UsdM"


def subscribe(*names: str, ident: Any = 1, method: str = "SUBSCRIBE") -> dict[str, Any]:
    return {"method": method, "params": list(names), "id": ident}


async def test_subscribe_list_unsubscribe_and_properties(simulate, connect) -> None:
    async with (
        simulate(SPOT, limits={"messages_per_second": 100}) as sim,
        connect(sim.endpoints[SPOT][0] + "/ws") as client,
    ):
        assert await client.ask(subscribe("btcusdt@trade", "nosuchpair@trade", "BTCUSDT@trade", ident="a1")) == {
            "result": None,
            "id": "a1",
        }
        assert set((await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}))["result"]) == {
            "btcusdt@trade",
            "nosuchpair@trade",
            "BTCUSDT@trade",
        }
        trade = await client.until(lambda got: got.get("e") == "trade")
        assert trade["s"] == "BTCUSDT"
        assert isinstance(trade["p"], str)
        assert (await client.ask({"method": "GET_PROPERTY", "params": ["combined"], "id": 4}))["result"] is False
        assert (await client.ask({"method": "SET_PROPERTY", "params": ["combined", True], "id": 5}))["result"] is None
        wrapped = await client.until(lambda got: "stream" in got)
        assert wrapped["stream"] == "btcusdt@trade"
        assert wrapped["data"]["e"] == "trade"
        await client.ask(subscribe("btcusdt@trade", ident=6, method="UNSUBSCRIBE"))
        assert (await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 7}))["result"] == [
            "BTCUSDT@trade",
            "nosuchpair@trade",
        ]
        assert all(got.get("data", got).get("s", "BTCUSDT") == "BTCUSDT" for got in client.got)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ({"method": "SET_PROPERTY", "params": ["colour", 1], "id": 9}, 0, "Unknown property"),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 9}, 1, "expected Boolean"),
        ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": [1]}, 2, "request ID"),
        ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": 1, "x": 1}, 2, "too many parameters"),
        ({"method": "SHOUT", "params": ["a@trade"], "id": 1}, 2, "unknown variant"),
        ({"params": ["a@trade"], "id": 1}, 2, "missing field `method`"),
        ("{nonsense", 3, "Invalid JSON"),
    ],
)
async def test_errors(simulate, connect, message: Any, code: int, words: str) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws") as client:
        await client.send(message)
        answer = await client.next()
        assert answer["code"] == code
        assert words in answer["msg"]
        assert (await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1}))["result"] == []


async def test_a_string_id_is_an_error_on_futures(simulate, connect) -> None:
    async with simulate(USDM) as sim, connect(sim.endpoints[USDM][0] + "/public/ws") as client:
        await client.send(subscribe("btcusdt@bookTicker", ident="x"))
        assert (await client.next())["code"] == 2


async def test_spot_streams_equal_the_ledger_and_keep_their_sequences(simulate, connect, ledger) -> None:
    names = [f"{pair}@{kind}" for pair in ("btcusdt", "ethusdt") for kind in ("trade", "bookTicker", "depth@100ms")]
    async with simulate(SPOT) as sim:
        url = sim.endpoints[SPOT][0] + "/stream?streams=" + "/".join(names)
        async with connect(url) as client:
            await client.read(1500)
            sim.stop_emitting()
            await sim.drained()
            await client.drain()
    data = [got["data"] for got in client.got]
    trades = [
        [d["s"], d["t"], d["p"], d["q"], "2" if d["m"] else "1", f"{d['T']}000000"]
        for d in data
        if d.get("e") == "trade"
    ]
    kept = [[row[0].replace("-", ""), int(row[1]), *row[2:6]] for row in ledger(SPOT, "trades")]
    assert sorted(trades) == sorted(kept)
    for pair in ("BTCUSDT", "ETHUSDT"):
        ids = [trade[1] for trade in trades if trade[0] == pair]
        assert ids == list(range(1001, 1001 + len(ids)))
    tickers = [[d["s"], str(d["u"]), d["b"], d["B"], d["a"], d["A"], "0"] for d in data if "e" not in d]
    assert sorted(tickers) == sorted([row[0].replace("-", ""), *row[1:]] for row in ledger(SPOT, "tickers"))
    for pair in ("BTCUSDT", "ETHUSDT"):
        ups = [int(ticker[1]) for ticker in tickers if ticker[0] == pair]
        assert all(a < b for a, b in itertools.pairwise(ups))
        depth = [d for d in data if d.get("e") == "depthUpdate" and d["s"] == pair]
        assert len(depth) > 20
        assert all(b["U"] == a["u"] + 1 for a, b in itertools.pairwise(depth))


class Book:
    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.seq = snapshot["lastUpdateId"]
        self.bids = {Decimal(p): Decimal(q) for p, q in snapshot["bids"]}
        self.asks = {Decimal(p): Decimal(q) for p, q in snapshot["asks"]}

    def apply(self, event: dict[str, Any]) -> None:
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, size in changes:
                if Decimal(size):
                    side[Decimal(price)] = Decimal(size)
                else:
                    side.pop(Decimal(price), None)
        self.seq = event["u"]


async def fetch(sim, venue: str, path: str, **headers: str) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(sim.endpoints[venue][1] + path, headers=headers) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


@pytest.mark.parametrize(("venue", "root", "rest"), [(SPOT, "", "/api/v3"), (USDM, "/public", "/fapi/v1")])
async def test_a_book_from_snapshot_and_stream_matches_ticker_and_later_snapshot(
    simulate, connect, venue: str, root: str, rest: str
) -> None:
    """The documented procedure of a local book, with the venue's own chain rule, never breaks."""
    async with (
        simulate(venue, mix={"Trades": 1, "Ticker": 3, "Book": 3}) as sim,
        connect(f"{sim.endpoints[venue][0]}{root}/ws/btcusdt@depth@100ms/btcusdt@bookTicker") as client,
    ):
        await client.until(lambda got: got.get("e") == "depthUpdate")
        _, snapshot, _ = await fetch(sim, venue, f"{rest}/depth?symbol=BTCUSDT&limit=1000")
        book = Book(snapshot)
        await client.read(400)
        sim.stop_emitting()
        await client.drain()
        _, later, _ = await fetch(sim, venue, f"{rest}/depth?symbol=BTCUSDT&limit=1000")
    started, last_u = False, None
    for event in client.got:
        if event.get("e") == "depthUpdate":
            if last_u is not None and venue == USDM:
                assert event["pu"] == last_u
            last_u = event["u"]
            if event["u"] <= snapshot["lastUpdateId"]:
                continue
            if not started and venue == SPOT:
                assert event["U"] <= snapshot["lastUpdateId"] + 1 <= event["u"]
            elif not started:
                fits = event["U"] <= snapshot["lastUpdateId"] <= event["u"]
                assert fits or event["pu"] == snapshot["lastUpdateId"] or event["pu"] < snapshot["lastUpdateId"]
            started = True
            book.apply(event)
    assert started
    assert book.seq <= later["lastUpdateId"]
    final = Book(later)
    if book.seq == final.seq:
        assert (book.bids, book.asks) == (final.bids, final.asks)


async def test_ticker_shows_the_top_of_the_book_at_its_id(simulate, connect) -> None:
    snapshots = []
    async with simulate(SPOT) as sim, connect(f"{sim.endpoints[SPOT][0]}/ws/btcusdt@bookTicker") as client:
        for _ in range(10):
            await client.read(20)
            snapshots.append((await fetch(sim, SPOT, "/api/v3/depth?symbol=BTCUSDT&limit=5000"))[1])
        # However much was sent before it: the loop may have been held up.
        await client.until(lambda got: got["u"] >= snapshots[-1]["lastUpdateId"])
    tickers = {got["u"]: got for got in client.got}
    for snapshot in snapshots:
        ticker = tickers[snapshot["lastUpdateId"]]
        assert [[ticker["b"], ticker["B"]], [ticker["a"], ticker["A"]]] == [snapshot["bids"][0], snapshot["asks"][0]]


async def test_futures_roots(simulate, connect) -> None:
    async with simulate(USDM, limits={"messages_per_second": 100}) as sim:
        base = sim.endpoints[USDM][0]
        public, market = {"bookTicker", "depthUpdate", "trade"}, {"aggTrade", "kline"}
        names = [f"btcusdt@{kind}" for kind in ("bookTicker", "depth@100ms", "trade", "aggTrade", "kline_1m")]
        for path, expected in (("/public/ws", public), ("/market/ws", market), ("/ws", public)):
            async with connect(base + path) as client:
                assert (await client.ask(subscribe(*names)))["result"] is None
                await client.read(400)
                assert {got["e"] for got in client.got if "e" in got} == expected
        async with connect(base + "/private/ws") as client:
            assert (await client.ask(subscribe(*names)))["result"] is None
            assert (await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 2}))["id"] == 2
            assert len(client.got) == 2


async def test_futures_aggregates_chain(simulate, connect, ledger) -> None:
    async with simulate(USDM) as sim, connect(sim.endpoints[USDM][0] + "/market/ws/ethusdt@aggTrade") as client:
        got = await client.read(400)
        sim.stop_emitting()
        await sim.drained()
    for a, b in itertools.pairwise(got):
        assert b["a"] == a["a"] + 1
        assert b["f"] == a["l"] + 1
    assert any(event["l"] > event["f"] for event in got)
    assert any(event["nq"] != event["q"] for event in got)
    rows = {int(row[1]): row for row in ledger(USDM, "trades")}
    for event in got:
        side = "2" if event["m"] else "1"
        assert rows[event["a"]][1:] == [
            str(event["a"]), event["p"], event["q"], side, f"{event['T']}000000", str(event["f"]), str(event["l"]),
        ]  # fmt: skip


async def closed_by(client, send: Callable[[], Awaitable[Any]]) -> tuple[int | None, str]:
    """How the connection ended by six messages within a second: once more if it took longer to read them."""
    closed = asyncio.create_task(client.closed())
    while not closed.done():
        with contextlib.suppress(websockets.ConnectionClosed):
            for _ in range(6):
                await send()
        await asyncio.wait({closed}, timeout=2.0)
    return closed.result()


async def test_too_many_messages_end_the_connection(simulate, connect) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws") as client:
        end = await closed_by(client, lambda: client.send({"method": "LIST_SUBSCRIPTIONS", "id": 1}))
        assert end[0] == 1008
        assert sim.stats()[SPOT]["closed"] == {"too_many_messages": 1}


async def test_pings_count_as_messages(simulate, connect) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws") as client:
        await (await client.socket.ping(b"hello"))
        assert (await closed_by(client, client.socket.ping))[0] == 1008


async def test_streams_per_connection(simulate, connect) -> None:
    async with simulate(SPOT, limits={"streams": 3}) as sim, connect(sim.endpoints[SPOT][0] + "/ws") as client:
        await client.ask(subscribe("a@trade", "b@trade", "c@trade"))
        await client.send(subscribe("d@trade", ident=2))
        assert (await client.closed())[0] == 1008


async def test_handshakes_are_limited(simulate, connect) -> None:
    async with simulate(SPOT, limits={"connects": 2, "connects_window": 300}) as sim:
        url = sim.endpoints[SPOT][0] + "/ws"
        for _ in range(2):
            async with connect(url):
                pass
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(url):
                pass
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["Retry-After"]) > 200
        assert sim.stats()[SPOT]["connects"] == {"accepted": 2, "refused": 1}


async def test_a_client_that_does_not_answer_pings_is_cut(simulate) -> None:
    async with simulate(SPOT, limits={"ping_interval": 0.05, "pong_timeout": 2.0}) as sim:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(sim.endpoints[SPOT][1] + "/ws", autoping=False) as mute,
        ):
            kinds = [(await mute.receive(60)).type for _ in range(2)]
            assert kinds == [aiohttp.WSMsgType.PING] * 2
            while (message := await mute.receive(60)).type is aiohttp.WSMsgType.PING:
                pass
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        assert sim.stats()[SPOT]["closed"] == {"no_pong": 1}


async def test_a_client_that_answers_pings_stays(simulate, connect) -> None:
    # Long enough that a process which was held up for a moment does not look like a client that is mute.
    limits = {"ping_interval": 0.02, "pong_timeout": 3.0, "messages_per_second": 0}
    async with simulate(SPOT, limits=limits) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        began = time.monotonic()
        while time.monotonic() < began + 4.0:
            await client.next()
        assert sim.stats()[SPOT]["closed"] == {}


async def test_the_lifetime_cut_is_announced(simulate, connect) -> None:
    # A lead that no process which was held up sleeps through: the first connection is made old enough to be cut.
    limits = {"lifetime": 1000.3, "shutdown_lead": 1000.0}
    async with simulate(SPOT, limits=limits) as sim:
        async with connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
            assert "E" in await client.until(lambda got: got.get("e") == "serverShutdown")
            assert (await client.next())["e"] == "trade", "data flow on until the cut"
            (connection,) = sim.venues[SPOT].connections.values()
            connection.opened -= 1000.0
            assert (await client.closed())[0] == 1001
        async with connect(sim.endpoints[SPOT][0] + "/stream?streams=btcusdt@trade") as client:
            event = await client.until(lambda got: got["data"]["e"] == "serverShutdown")
            assert event["stream"] == "!serverShutdown"


async def test_klines_agree_with_trades(simulate, connect) -> None:
    """Every kline covers exactly the trades of its minute so far: ids, count, prices, exact volumes."""
    async with (
        simulate(SPOT, mix={"Trades": 1}) as sim,
        connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@kline_1m/btcusdt@trade") as client,
    ):
        await client.read(200)
        sim.stop_emitting()
        await client.drain()
        status, rows, _ = await fetch(sim, SPOT, "/api/v3/klines?symbol=BTCUSDT&interval=1m")
    trades = [got for got in client.got if got["e"] == "trade"]
    assert status == 200
    for row in rows:
        inside = [t for t in trades if row[0] <= t["T"] <= row[6]]
        assert row[8] == len(inside)
        assert Decimal(row[5]) == sum(Decimal(t["q"]) for t in inside)
        assert Decimal(row[7]) == sum(Decimal(t["q"]) * Decimal(t["p"]) for t in inside)
        assert Decimal(row[9]) == sum(Decimal(t["q"]) for t in inside if not t["m"])
        if inside:
            prices = [Decimal(t["p"]) for t in inside]
            assert [Decimal(x) for x in row[1:5]] == [prices[0], max(prices), min(prices), prices[-1]]
    assert any(got["e"] == "kline" for got in client.got)


async def test_trades_can_be_fetched_by_id(simulate, connect) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        streamed = {got["t"]: got for got in await client.read(200)}
        low = min(streamed)
        status, rows, headers = await fetch(
            sim, SPOT, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={low + 10}&limit=50"
        )
    assert status == 200
    assert [row["id"] for row in rows] == list(range(low + 10, low + 60))
    assert int(headers["X-MBX-USED-WEIGHT-1M"]) == 25
    for row in rows:
        one = streamed[row["id"]]
        assert (row["price"], row["qty"], row["time"], row["isBuyerMaker"]) == (one["p"], one["q"], one["T"], one["m"])


async def test_a_history_that_is_gone(simulate, connect) -> None:
    """REST begins with the first trade it has, however far behind the one asked for that is."""
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        low = min(got["t"] for got in await client.read(100))
        venue = sim.venues[SPOT]
        assert venue.inject(Fault("forget", symbol="NO-SUCH")) == 0
        assert venue.inject(Fault("forget", symbol="BTC-USDT")) == 1
        await client.read(300)
        _, rows, _ = await fetch(sim, SPOT, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={low}&limit=10")
        ids = [row["id"] for row in rows]
        assert ids == list(range(ids[0], ids[0] + 10))
        assert ids[0] > low + 99
        _, none, _ = await fetch(sim, SPOT, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={ids[0] + 10**9}&limit=10")
        assert none == []


async def test_futures_history(simulate, connect) -> None:
    limits = {"weight_window": 10**10}  # No minute ends within: the weights of all requests add up.
    async with (
        simulate(USDM, limits=limits) as sim,
        connect(sim.endpoints[USDM][0] + "/market/ws/btcusdt@aggTrade") as client,
    ):
        streamed = {got["a"]: got for got in await client.read(200)}
        low = min(streamed)
        _, rows, _ = await fetch(sim, USDM, f"/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={low + 5}&limit=20")
        assert [row["a"] for row in rows] == list(range(low + 5, low + 25))
        assert all(row[key] == streamed[row["a"]][key] for row in rows for key in ("p", "q", "f", "l", "T", "m"))
        raw = streamed[low]["f"]
        path = f"/fapi/v1/historicalTrades?symbol=BTCUSDT&fromId={raw}&limit=10"
        assert (await fetch(sim, USDM, path))[0] == 401
        status, trades, headers = await fetch(sim, USDM, path, **{"X-MBX-APIKEY": "any"})
        assert status == 200
        assert [row["id"] for row in trades] == list(range(raw, raw + 10))
        assert int(headers["X-MBX-USED-WEIGHT-1M"]) == 20 + 1 + 200


async def test_weight_limit_refuses_then_bans(simulate) -> None:
    # The window is longer than the test is old: windows are aligned to the clock, and a minute may end in between.
    limits = {"weight": 30, "weight_window": 10**10, "ban_after": 2, "ban_seconds": 60}
    async with simulate(SPOT, limits=limits) as sim:
        path = "/api/v3/depth?symbol=BTCUSDT&limit=500"
        seen = [(await fetch(sim, SPOT, path)) for _ in range(5)]
    assert [status for status, _, _ in seen] == [200, 429, 429, 418, 418]
    assert all("Retry-After" in headers for status, _, headers in seen if status != 200)
    assert seen[-1][1]["code"] == -1003


async def test_rest_errors(simulate) -> None:
    async with simulate(SPOT) as sim:
        for path, code in (
            ("/api/v3/depth?symbol=NOPE", -1121),
            ("/api/v3/depth", -1102),
            ("/api/v3/klines?symbol=BTCUSDT&interval=7m", -1120),
            ("/api/v3/depth?symbol=BTCUSDT&limit=x", -1100),
            ("/api/v3/exchangeInfo?symbols=[", -1100),
        ):
            status, body, _ = await fetch(sim, SPOT, path)
            assert (status, body["code"]) == (400, code)


async def test_exchange_info(simulate) -> None:
    async with simulate(SPOT, symbols=("FOO-BAR",)) as sim:
        _, info, _ = await fetch(sim, SPOT, "/api/v3/exchangeInfo")
        symbols = {row["symbol"]: row for row in info["symbols"]}
        assert {"BTCUSDT", "FOOBAR"} <= set(symbols)
        filters = {f["filterType"]: f for f in symbols["BTCUSDT"]["filters"]}
        assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
        query = json.dumps(["ETHUSDT"])
        _, one, _ = await fetch(sim, SPOT, f"/api/v3/exchangeInfo?symbols={query}")
        assert [row["symbol"] for row in one["symbols"]] == ["ETHUSDT"]
    async with simulate(USDM) as sim:
        _, info, _ = await fetch(sim, USDM, "/fapi/v1/exchangeInfo")
        rows = {row["symbol"]: row for row in info["symbols"]}
        assert rows["BTCUSDT"]["deliveryDate"] == 4133404800000
        assert rows["BTCUSDT_270326"]["contractType"] == "CURRENT_QUARTER"


async def test_a_topic_never_stops_once_started(simulate, connect, ledger) -> None:
    """What is emitted while nobody listens is in the ledger, and the next subscriber finds the ids gone on."""
    async with simulate(SPOT, mix={"Trades": 1}) as sim:
        url = sim.endpoints[SPOT][0] + "/ws/btcusdt@trade"
        async with connect(url) as client:
            last = (await client.read(20))[-1]["t"]
        topic = sim.venues[SPOT].source.topics["BTCUSDT", "trade"]
        async with connect(sim.endpoints[SPOT][0] + "/ws/ethusdt@trade") as other:
            while topic.emitted < 200:
                await other.next()
        async with connect(url) as client:
            first = (await client.next())["t"]
        sim.stop_emitting()
        await sim.drained()
    ids = [int(row[1]) for row in ledger(SPOT, "trades") if row[0] == "BTC-USDT"]
    assert first > last + 1
    assert ids == list(range(1001, 1001 + len(ids)))
    assert len(ids) >= 200
