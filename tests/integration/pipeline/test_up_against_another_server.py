"""``feedmill up`` against a server of Binance Spot that shares nothing with ours but the venue's documentation.

Written with other libraries and other habits than the simulator: JSON with spaces, keys in another order, two ports, no
combined URL needed, metadata with the least a listing must have.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis

pytestmark = pytest.mark.slow
SYMBOLS = ("BTCUSDT", "ETHUSDT")


class OtherBinance:
    """Emits from its start on; what was emitted since the first subscription of a stream is kept."""

    def __init__(self) -> None:
        self.clients: dict[ServerConnection, tuple[set[str], bool]] = {}
        self.known: set[str] = set()
        self.trades: dict[tuple[str, int], tuple[str, str, int]] = {}
        self.tickers: dict[tuple[str, int], tuple[str, str]] = {}
        self.handshakes = 0
        self.messages: list[dict[str, Any]] = []
        self.emitting = True
        self.silent = asyncio.Event()
        """It has seen that it is to emit no more."""
        self._random = random.Random(3)
        self._trade_ids = {symbol: itertools.count(7_000_001 * place) for place, symbol in enumerate(SYMBOLS, 1)}
        self._update_id = 90_000_000
        self._book_ids = dict.fromkeys(SYMBOLS, 1000)
        self._books = {symbol: {"b": self._levels(99), "a": self._levels(101)} for symbol in SYMBOLS}
        self.stream = self.rest = ""

    def _levels(self, around: int) -> dict[str, str]:
        sign = -1 if around < 100 else 1
        return {f"{around + sign * step / 100:.2f}": f"{1 + step / 10:.5f}" for step in range(30)}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/api/v3/exchangeInfo", self._info)
        app.router.add_get("/api/v3/depth", self._depth)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.rest = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with serve(self._client, "127.0.0.1", 0, ping_interval=1.0, ping_timeout=120.0) as server:
            self.stream = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            market = asyncio.create_task(self._market())
            try:
                yield
            finally:
                market.cancel()
                await asyncio.gather(market, return_exceptions=True)
        await runner.cleanup()

    # streams
    async def _client(self, client: ServerConnection) -> None:
        assert client.request is not None
        path, _, query = client.request.path.partition("?")
        self.handshakes += 1
        names = set(query.removeprefix("streams=").split("/")) if query else set(path.split("/")[2:])
        self.clients[client] = (names - {""}, path.startswith("/stream"))
        self.known |= names - {""}
        try:
            async for text in client:
                await self._request(client, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            del self.clients[client]

    async def _request(self, client: ServerConnection, request: dict[str, Any]) -> None:
        self.messages.append(request)
        names = self.clients[client][0]
        result: Any = None
        if request["method"] == "SUBSCRIBE":
            names.update(request["params"])
        elif request["method"] == "UNSUBSCRIBE":
            names.difference_update(request["params"])
        else:
            result = sorted(names)
        self.known |= names  # Before anything is awaited: from here on it is sent.
        await client.send(json.dumps({"result": result, "id": request["id"]}))

    async def _emit(self, name: str, data: dict[str, Any]) -> None:
        for client, (names, combined) in list(self.clients.items()):
            if name in names:
                try:
                    await client.send(json.dumps({"stream": name, "data": data} if combined else data))
                except ConnectionClosed:
                    pass

    async def cut(self) -> None:
        """Abort all connections; each symbol has a trade before anybody can be back."""
        for client in list(self.clients):
            client.transport.abort()
        for symbol in SYMBOLS:
            await self._trade(symbol)

    async def _market(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            if not self.emitting:
                self.silent.set()
                continue
            for symbol in SYMBOLS:
                await self._trade(symbol)
                await self._ticker(symbol)
                await self._update_book(symbol)

    async def _trade(self, symbol: str) -> None:
        now = int(time.time() * 1000)
        number = next(self._trade_ids[symbol])
        price, size = f"{self._random.uniform(99, 101):.2f}", f"{self._random.uniform(0.001, 2):.5f}"
        name = f"{symbol.lower()}@trade"
        if name in self.known:
            self.trades[symbol, number] = (price, size, now)
        await self._emit(
            name,
            {
                "e": "trade", "E": now + 1, "s": symbol, "t": number, "p": price, "q": size, "T": now,
                "m": self._random.random() < 0.5, "M": True,
            },
        )  # fmt: skip

    async def _ticker(self, symbol: str) -> None:
        self._update_id += 1
        book = self._books[symbol]
        bid, ask = max(book["b"], key=Decimal), min(book["a"], key=Decimal)
        name = f"{symbol.lower()}@bookTicker"
        if name in self.known:
            self.tickers[symbol, self._update_id] = (bid, ask)
        await self._emit(
            name,
            {"u": self._update_id, "s": symbol, "b": bid, "B": book["b"][bid], "a": ask, "A": book["a"][ask]},
        )  # fmt: skip

    async def _update_book(self, symbol: str) -> None:
        book, side = self._books[symbol], self._random.choice("ba")
        price = self._random.choice(sorted(book[side])[5:-5])
        book[side][price] = f"{self._random.uniform(0.1, 9):.5f}"
        first = self._book_ids[symbol] + 1
        last = self._book_ids[symbol] = first + self._random.randrange(3)
        change = {"b": [], "a": []} | {side: [[price, book[side][price]]]}
        data = {"e": "depthUpdate", "E": int(time.time() * 1000), "s": symbol, "U": first, "u": last, **change}
        await self._emit(f"{symbol.lower()}@depth@100ms", data)

    # REST
    async def _info(self, request: web.Request) -> web.Response:
        symbols = [
            {
                "symbol": symbol, "status": "TRADING", "baseAsset": symbol[:3], "quoteAsset": symbol[3:],
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
                    {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
                ],
            }
            for symbol in SYMBOLS
        ]  # fmt: skip
        return web.json_response({"timezone": "UTC", "symbols": symbols})

    async def _depth(self, request: web.Request) -> web.Response:
        symbol = request.query["symbol"]
        book = self._books[symbol]
        return web.json_response(
            {
                "lastUpdateId": self._book_ids[symbol],
                "bids": sorted(map(list, book["b"].items()), key=lambda level: -Decimal(level[0])),
                "asks": sorted(map(list, book["a"].items()), key=lambda level: Decimal(level[0])),
            }
        )


MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: other}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: binance, market: Spot, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  instruments: {{symbols: [BTC-USDT, ETH-USDT]}}
  channels: [{{name: Trades}}, {{name: Book}}, {{name: Ticker}}, {{name: Candles, interval: 1m}}]
"""


async def up(kit: Any, folder: Path, manifest: str, *arguments: str, **environment: str) -> Any:
    path = folder / "other.yaml"
    path.write_text(manifest)
    folders = ("--data-dir", str(folder / "data"))
    return await kit.feedmill("up", "-f", str(path), *folders, "--api-port", "0", *arguments, **environment)


async def compare(url: str, venue: OtherBinance, *, gaps: bool) -> None:
    connection = await asyncpg.connect(url)
    try:
        names = "SELECT id AS instrument_id, native FROM instruments WHERE exchange = 'binance' AND market = 'Spot'"
        trades = await connection.fetch(
            f"SELECT native, trade_id, price, size, exchange_ns FROM trades JOIN ({names}) i USING (instrument_id)"
        )
        stored = {(row["native"], row["trade_id"]): (row["price"], row["size"], row["exchange_ns"]) for row in trades}
        assert len(stored) == len(trades) > 500
        wanted = {key: (Decimal(p), Decimal(q), ms * 1_000_000) for key, (p, q, ms) in venue.trades.items()}
        assert stored.items() <= wanted.items()
        ranges = await connection.fetch(
            f"""SELECT native, lower(part) AS low, upper(part) AS high
                FROM gaps JOIN ({names}) i USING (instrument_id), unnest(missing) AS part WHERE channel = 'Trades'"""
        )
        named = {(row["native"], number) for row in ranges for number in range(row["low"], row["high"])}
        assert wanted.keys() - stored.keys() == named
        assert bool(named) == gaps
        tickers = await connection.fetch(
            f"SELECT native, seq, bid, ask FROM tickers JOIN ({names}) i USING (instrument_id)"
        )
        quotes = {(row["native"], row["seq"]): (row["bid"], row["ask"]) for row in tickers}
        emitted = {key: (Decimal(bid), Decimal(ask)) for key, (bid, ask) in venue.tickers.items()}
        assert quotes.items() <= emitted.items()
        if not gaps:
            assert quotes == emitted
            # The end of the run opened those of tickers and books: nothing is seen from there on.
            assert not await connection.fetch("SELECT FROM gaps WHERE state <> 'open' OR channel = 'Trades'")
        assert await connection.fetchval("SELECT count(*) FROM book_snapshots") > 4
        assert not await connection.fetch("SELECT FROM dead_letters")
        assert await connection.fetchval("SELECT count(*) FROM instrument_versions WHERE tick = 0.01") == 2
    finally:
        await connection.close()


async def play(venue: OtherBinance, kit: Any, process: Any, *, cut: bool) -> None:
    """Let it emit 600 trades a symbol after the first subscription, with one cut on the way, then end the process."""
    await kit.until(lambda: len(venue.trades) > 400, timeout=180)  # Its servers are made before that.
    if cut:
        before = venue.handshakes
        await venue.cut()
        await kit.until(lambda: venue.handshakes > before and venue.clients, timeout=60)
        await kit.until(lambda: all(names for names, _ in venue.clients.values()))
    goal = len(venue.trades) + 800
    await kit.until(lambda: len(venue.trades) > goal, timeout=180)
    venue.emitting = False
    await venue.silent.wait()  # It may be in the middle of a round.
    for client in list(venue.clients):
        await (await client.ping())  # Answered once all that was sent before it is read.
    process.send_signal(signal.SIGINT)


async def test_with_embedded_servers(tmp_path: Path, kit: Any) -> None:
    venue = OtherBinance()
    async with venue.running():
        manifest = MANIFEST.format(stream=venue.stream, rest=venue.rest)
        process = await up(kit, tmp_path, manifest)
        player = asyncio.create_task(play(venue, kit, process, cut=False))
        output = await kit.ended(process)
        assert process.returncode == 0, output
        await player
        assert venue.handshakes == 1
        assert all(message["method"] == "SUBSCRIBE" for message in venue.messages)
        with EmbeddedPostgres(tmp_path / "data" / "postgres") as server:
            await compare(server.url, venue, gaps=False)
        # By itself it ends in order, too.
        process = await up(kit, tmp_path, manifest, "--for", "1s")
        output = await kit.ended(process)
    assert process.returncode == 0, output
    assert "ran for 1 s" in output


async def test_with_servers_by_url_and_a_cut(
    tmp_path: Path, redis_server: EmbeddedRedis, database_url: str, kit: Any
) -> None:
    venue = OtherBinance()
    async with venue.running():
        # The base may end in the venue's own path.
        manifest = MANIFEST.format(stream=f"{venue.stream}/stream", rest=venue.rest)
        process = await up(kit, tmp_path, manifest, REDIS_URL=redis_server.url, DATABASE_URL=database_url)
        player = asyncio.create_task(play(venue, kit, process, cut=True))
        output = await kit.ended(process)
        assert process.returncode == 0, output
        await player
    assert not (tmp_path / "data" / "redis").exists()
    assert not (tmp_path / "data" / "postgres").exists()
    await compare(database_url, venue, gaps=True)
