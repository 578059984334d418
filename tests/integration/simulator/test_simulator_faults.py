"""Faults: each does what it says, to whom it says, as often as it says, and stands in the ledger."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter

import aiohttp
import pytest
import websockets

from feedmill.simulator import ConfigError

SPOT, DERIBIT = "binance/Spot", "deribit/Derivatives"


def kinds(rows: list[list[str]]) -> Counter[str]:
    return Counter(row[1] for row in rows)


async def stop(sim, *clients) -> None:
    sim.stop_emitting()
    await sim.drained()
    for client in clients:
        await client.drain()


async def struck(sim, client, kind: str, count: int) -> None:
    """Read on until the fault has struck so often: a loop that was held up may have sent much before it."""
    (venue,) = sim.venues.values()
    while venue.counts["faults"][kind] < count:
        await client.next()


async def receive_all(socket, timeout: float = 10) -> None:
    while True:
        await asyncio.wait_for(socket.recv(), timeout)


async def read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def test_drop_keeps_them_in_the_ledger(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade/ethusdt@trade") as client:
        await client.read(50)
        assert sim.fault("drop", symbol="BTC-USDT", channel="Trades", count=3) == 1
        await client.read(100)
        await struck(sim, client, "drop", 3)
        await stop(sim, client)
    emitted = {int(row[1]) for row in ledger(SPOT, "trades") if row[0] == "BTC-USDT"}
    got = {message["t"] for message in client.got if message["s"] == "BTCUSDT"}
    missing = sorted(emitted - got)
    assert len(missing) == 3
    assert missing == list(range(missing[0], missing[0] + 3))
    other = {message["t"] for message in client.got if message["s"] == "ETHUSDT"}
    assert other == {int(row[1]) for row in ledger(SPOT, "trades") if row[0] == "ETH-USDT"}
    faults = ledger(SPOT, "faults")
    assert kinds(faults) == {"drop": 3}
    assert [json.loads(row[4])["t"] for row in faults] == missing


async def test_drop_for_one_connection_only(simulate, connect) -> None:
    async with simulate(SPOT) as sim:
        url = sim.endpoints[SPOT][0] + "/ws/btcusdt@trade"
        async with connect(url) as first, connect(url) as second:
            await second.read(20)
            sim.fault("drop", channel="Trades", count=4, connections="one")
            await second.read(50)
            await struck(sim, second, "drop", 4)
            await stop(sim, first, second)
    assert len(second.got) - len([m for m in first.got if m["t"] >= second.got[0]["t"]]) == 4


async def test_double_and_swap(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        await client.read(20)
        sim.fault("double", channel="Trades", count=2)
        sim.fault("swap", channel="Trades", count=2)
        await client.read(100)
        await struck(sim, client, "swap", 2)
        await stop(sim, client)
    ids = [message["t"] for message in client.got]
    assert sorted(set(ids)) == list(range(1001, 1001 + len(set(ids))))
    assert len(ids) - len(set(ids)) == 2
    unique = list(dict.fromkeys(ids))
    swapped = [a for a, b in itertools.pairwise(unique) if b == a - 1]
    assert len(swapped) == 2
    assert kinds(ledger(SPOT, "faults")) == {"double": 2, "swap": 2}


async def test_fields_that_nobody_knows(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        await client.read(20)
        sim.fault("unknown_fields", channel="Trades", count=3)
        while sum("added" in message for message in client.got) < 3:
            await client.read(1)
        await client.read(20)
        await stop(sim, client)
    more = [message for message in client.got if "added" in message]
    assert len(more) == 3
    assert all(message["added"] == {"deep": [1, None, "x"]} and message["t"] > 0 for message in more)
    assert kinds(ledger(SPOT, "faults")) == {"unknown_fields": 3}


@pytest.mark.parametrize("variant", ["cut", "json"])
async def test_bad_bytes_are_extra(simulate, connect, ledger, variant: str) -> None:
    async with simulate(SPOT) as sim, websockets.connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as socket:
        for _ in range(20):
            await socket.recv()
        sim.fault("bad_bytes", channel="Trades", count=2, variant=variant)
        good, bad = [], 0
        while bad < 2 or len(good) < 58:
            text = await socket.recv()
            try:
                good.append(json.loads(text)["t"])
            except ValueError:
                bad += 1
    assert bad == 2
    assert good == list(range(good[0], good[0] + len(good)))


async def test_bad_bytes_that_are_not_utf8(simulate) -> None:
    async with simulate(SPOT) as sim, websockets.connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as socket:
        await socket.recv()
        sim.fault("bad_bytes", channel="Trades", variant="utf8")
        with pytest.raises((websockets.ConnectionClosedError, UnicodeDecodeError)):
            await receive_all(socket)


@pytest.mark.parametrize("venue", [SPOT, "binance/UsdM", DERIBIT])
async def test_bad_price_keeps_the_ids_whole_but_is_no_trade(simulate, connect, ledger, venue: str) -> None:
    async with simulate(venue) as sim:
        stream = sim.endpoints[venue][0]
        path = {SPOT: "/ws/btcusdt@trade", "binance/UsdM": "/market/ws/btcusdt@aggTrade", DERIBIT: "/ws/api/v2"}
        async with connect(stream + path[venue]) as client:
            if venue == DERIBIT:
                params = {"channels": ["trades.BTC-PERPETUAL.100ms"]}
                await client.ask({"jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": params})
            await client.read(10)
            sim.fault("bad_price", channel="Trades", count=2)
            await client.read(40)
            await struck(sim, client, "bad_price", 2)
            await stop(sim, client)
    trades = []
    for got in client.got:
        if venue == DERIBIT:
            batch = got.get("params", {}).get("data", [])
            trades += [(trade["trade_seq"], trade["price"]) for trade in batch]
        else:
            trades.append((got.get("t", got.get("a")), got["p"]))
    assert [number for number, _ in trades] == list(range(1001, 1001 + len(trades)))
    bad = [str(number) for number, price in trades if price == "not-a-number"]
    assert len(bad) == 2
    assert [row[4] for row in ledger(venue, "faults")] == bad
    assert not set(bad) & {row[1] for row in ledger(venue, "trades")}


async def test_close_after_every_subscribe(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim:
        sim.fault("close", every="subscribe", count=3, code=1000)
        url = sim.endpoints[SPOT][0] + "/ws"
        request = {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}
        for _ in range(3):
            async with connect(url) as client:
                assert (await client.ask(request))["result"] is None
                assert (await client.closed())[0] == 1000
        async with connect(url) as client:
            await client.ask(request)
            first = (await client.until(lambda got: "t" in got))["t"]
            assert first == 1001, "a topic starts when somebody is there to receive it"
        await stop(sim)
        assert kinds(ledger(SPOT, "faults")) == {"close": 3}


async def test_close_only_those_with_the_symbol(simulate, connect) -> None:
    async with simulate(SPOT) as sim:
        base = sim.endpoints[SPOT][0]
        async with connect(base + "/ws/btcusdt@trade") as one, connect(base + "/ws/ethusdt@trade") as two:
            await one.read(1)
            await two.read(1)
            assert sim.fault("close", symbol="BTC-USDT", code=1001, reason="bye") == 1
            assert await one.closed() == (1001, "bye")
            await two.read(50)


async def test_abort_is_a_reset(simulate) -> None:
    async with simulate(SPOT) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.venues[SPOT].port)
        writer.write(
            b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(100)
        assert sim.fault("abort") == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(read_all(reader), 60)
        writer.close()


async def test_silence_sends_nothing_and_ends(simulate, connect, ledger) -> None:
    limits = {"ping_interval": 0.05, "pong_timeout": 60, "messages_per_second": 0}
    async with simulate(SPOT, limits=limits) as sim:
        topic_url = sim.endpoints[SPOT][0] + "/ws/btcusdt@trade"
        async with connect(topic_url) as client, connect(topic_url) as other:
            await client.read(20)
            sim.fault("silence", count=1)
            (silent,) = [c for c in sim.venues[SPOT].connections.values() if c.mode.value == "silent"]
            silent.last_in = 0.0
            await client.send({"method": "LIST_SUBSCRIPTIONS", "id": 5})
            while silent.undelivered <= 50 or not silent.last_in:
                await other.read(1)
            # Its end is set only now: a loop that was held up would read the request after it.
            sim.fault("silence", count=1, seconds=0.3)
            last = client.got[-1]["t"]
            await client.until(lambda got: got.get("t", 0) > last + 50)
            await stop(sim, client)
        assert not any(got.get("id") == 5 for got in client.got), "a request during the silence is never answered"
        assert kinds(ledger(SPOT, "faults")) == {"silence": 2}


async def test_half_open_ignores_the_client(simulate) -> None:
    async with simulate(SPOT) as sim:
        socket = await websockets.connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade", close_timeout=0.3)
        await socket.recv()
        assert sim.fault("half_open") == 1
        with pytest.raises(TimeoutError):
            await receive_all(socket, 0.4)
        pong = await socket.ping()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pong, 0.3)
        await socket.close()
        assert socket.close_code == 1006, "the closing handshake is never answered"


async def test_slow_delays_but_loses_nothing(simulate, connect) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        await client.read(10)
        sim.fault("slow", delay=1.0)
        gaps, last = [], time.monotonic()
        for _ in range(300):
            await client.next()
            now = time.monotonic()
            gaps.append(now - last)
            last = now
        assert max(gaps) > 0.5  # Of a second a slow machine reads what was sent before in the rest.
        ids = [got["t"] for got in client.got]
        assert ids == list(range(1001, 1001 + len(ids)))


async def test_a_client_that_does_not_read_is_cut(simulate) -> None:
    async with simulate(SPOT, rate=20_000, limits={"buffer_bytes": 50_000}) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.venues[SPOT].port, limit=1024)
        writer.write(
            b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        while not sim.stats()[SPOT]["closed"]:
            await asyncio.sleep(0.05)
        assert sim.stats()[SPOT]["closed"] == {"too_slow": 1}
        writer.close()


async def test_cut_is_the_announced_end(simulate, connect) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        await client.read(5)
        assert sim.fault("cut") == 1
        await client.until(lambda got: got.get("e") == "serverShutdown")
        assert (await client.closed())[0] == 1001


async def test_a_cut_leaves_the_time_it_announces(simulate, connect) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        await client.read(5)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert sim.fault("cut", seconds=0.5) == 1
        await client.until(lambda got: got.get("e") == "serverShutdown")
        assert (await client.next())["e"] == "trade", "data flow on until the cut"
        assert (await client.closed())[0] == 1001
        assert loop.time() >= began + 0.5, "by the clock it counts by, which stands still while a callback runs"


async def test_rest_faults(simulate) -> None:
    async with simulate(SPOT) as sim, aiohttp.ClientSession() as session:
        url = sim.endpoints[SPOT][1] + "/api/v3/depth?symbol=BTCUSDT"
        sim.fault("rest_429", count=2, path="/depth", seconds=7)
        sim.fault("rest_418", count=1)
        sim.fault("rest_500", count=1)
        seen = []
        for _ in range(5):
            async with session.get(url) as answer:
                seen.append((answer.status, answer.headers.get("Retry-After")))
        assert seen == [(429, "7"), (429, "7"), (418, "2"), (500, None), (200, None)]
        sim.fault("latency", seconds=0.3, count=1)
        started = time.monotonic()
        async with session.get(url) as answer:
            assert answer.status == 200
        assert time.monotonic() - started > 0.29  # Timers count whole milliseconds.
    async with simulate(DERIBIT) as sim, aiohttp.ClientSession() as session:
        sim.fault("rest_429", count=1)
        async with session.get(sim.endpoints[DERIBIT][1] + "/api/v2/public/get_time") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (429, 10028)


async def test_skew_moves_the_exchange_clock(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
        before = (await client.next())["T"]
        sim.fault("skew", seconds=100)
        after = await client.until(lambda got: got["T"] > before + 90_000)
        await stop(sim, client)
    row = next(row for row in ledger(SPOT, "trades") if int(row[1]) == after["t"])
    assert int(row[5]) == after["T"] * 1_000_000


async def test_the_admin_interface(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim, aiohttp.ClientSession() as session:
        base = sim.endpoints[SPOT][1]
        async with connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
            await client.read(5)
            async with session.post(base + "/_sim/fault", json={"kind": "drop", "count": 1}) as answer:
                assert await answer.json() == {"hit": 1}
            for wrong, word in (
                ({"kind": "explode"}, "explode"),
                ({"count": 1}, "kind"),
                ({"kind": "drop", "colour": 1}, "colour"),
                ({"kind": "drop", "channel": "trade"}, "Trades"),
                ([1], "JSON object"),
            ):
                async with session.post(base + "/_sim/fault", json=wrong) as answer:
                    assert answer.status == 400
                    assert word in (await answer.json())["error"]
            await client.read(50)
            await struck(sim, client, "drop", 1)
            async with session.post(base + "/_sim/stop") as answer:
                stats = await answer.json()
            assert stats["channels"]["Trades"]["emitted"] == len(ledger(SPOT, "trades"))
            assert stats["channels"]["Trades"]["delivered"] == len(ledger(SPOT, "trades")) - 1
            assert stats["emitting"] is False
            async with session.get(base + "/_sim/stats") as answer:
                assert (await answer.json())["faults"] == {"drop": 1}


async def test_a_fault_can_wait_for_its_topic(simulate, connect, ledger) -> None:
    async with simulate(SPOT) as sim:
        assert sim.fault("drop", symbol="BTC-USDT", channel="Trades", count=1) == 0
        async with connect(sim.endpoints[SPOT][0] + "/ws/btcusdt@trade") as client:
            assert (await client.next())["t"] == 1002
        with pytest.raises(ConfigError, match="kraken"):
            sim.fault("drop", "kraken/Spot")


async def test_finish_shows_every_hole(simulate, connect, ledger) -> None:
    """After finish the last message of each topic was delivered, so nothing is lost behind the last one seen."""
    path = "/ws/btcusdt@trade/btcusdt@bookTicker"
    async with simulate(SPOT) as sim, connect(sim.endpoints[SPOT][0] + path) as client:
        await client.read(50)
        sim.fault("drop", count=1000)
        topic = sim.venues[SPOT].source.topics["BTCUSDT", "trade"]
        target = topic.emitted + 10
        while topic.emitted < target:
            await asyncio.sleep(0.01)
        sim.fault("clear")
        sim.stop_emitting(finish=True)
        await sim.drained()
        await client.drain()
    assert client.got[-1].get("u", 0) == int(ledger(SPOT, "tickers")[-1][1])
    assert max(got.get("t", 0) for got in client.got) == int(ledger(SPOT, "trades")[-1][1])


async def test_a_client_that_says_goodbye_or_pings_and_is_gone(simulate, caplog) -> None:
    """Both come in one read: there is nobody left to answer, and that is no error."""
    async with simulate(SPOT, rate=2000) as sim:
        host, port = sim.endpoints[SPOT][0].removeprefix("ws://").split(":")
        for frame in (b"\x88\x82\x00\x00\x00\x00\x03\xe8", b"\x89\x81\x00\x00\x00\x00x") * 10:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            writer.transport.abort()
        sim.stop_emitting()
        await sim.drained()
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]
