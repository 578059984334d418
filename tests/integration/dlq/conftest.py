"""One shard on real servers: a receiver's stand-in, a distributor with a mapper of choice, the processor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio

from feedmill.cli.migrate import migrate_sync
from feedmill.distributor.service import Distributor
from feedmill.distributor.settings import DistributorSettings
from feedmill.exchanges.base import MapError, Mapper
from feedmill.exchanges.registry import get_venue
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.processor.service import Processor
from feedmill.processor.settings import processor_settings
from feedmill.resources.load import load_texts
from feedmill.shared import control
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.control import TopicRef
from feedmill.shared.events import decode_events
from feedmill.shared.frames import RawBatch, Run, RunKind, encode_batch
from feedmill.shared.health import Health
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

REF = ShardRef("default", "spot", 0)
SYMBOL, NATIVE = "BTC-USDT", "BTCUSDT"
MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}, candles: {intervals: [1m, 5m]}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT]}
  channels: [{name: Trades}, {name: Ticker}, {name: Candles, interval: 1m}, {name: Book}]
  distributor: {gapGrace: 100ms}
"""
BASE = now_ns() // (300 * SECOND) * 300 * SECOND - 900 * SECOND
"""A full five minutes, not long ago: one for all databases of a run, so that their rows can be compared."""


def frame(stream: str, **data: Any) -> bytes:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": {"s": NATIVE} | data}, separators=(",", ":")).encode()


def trade_frame(number: int) -> bytes:
    """Trade ``number``: one every ten seconds."""
    at = BASE // 1_000_000 + number * 10_000
    price = f"{100 + number % 7}.50"
    return frame("trade", e="trade", E=at, t=number, p=price, q="0.25", T=at, m=number % 2 == 0, M=True)


def ticker_frame(number: int) -> bytes:
    return frame("bookTicker", u=10 * number, b=f"{100 + number}.1", B="1", a=f"{101 + number}.2", A="2")


def kline_frame(minute: int) -> bytes:
    """The closed candle of a minute, equal to what its trades (six of them) make."""
    begin = BASE // 1_000_000 + minute * 60_000
    numbers = range(6 * minute, 6 * minute + 6)
    prices = [100 + number % 7 for number in numbers]
    k = {
        "t": begin, "T": begin + 59_999, "s": NATIVE, "i": "1m", "f": numbers[0], "L": numbers[-1],
        "o": f"{prices[0]}.50", "c": f"{prices[-1]}.50", "h": f"{max(prices)}.50", "l": f"{min(prices)}.50",
        "v": "1.50", "n": 6, "x": True, "q": f"{sum(prices) / 4 + 0.75:.3f}", "V": "0", "Q": "0", "B": "0",
    }  # fmt: skip
    return frame("kline_1m", e="kline", E=begin + 60_000, k=k)


def depth_frame(number: int) -> bytes:
    return frame("depth@100ms", e="depthUpdate", E=1, U=number, u=number, b=[["1.0", "1"]], a=[])


class Poisoned(Mapper):
    """As the venue's, but one version's fault: some frames it cannot read."""

    def __init__(self, real: Mapper, bad: Callable[[bytes], bool]) -> None:
        self._real = real
        self._bad = bad

    def learn(self, native: str, symbol: str) -> None:
        self._real.learn(native, symbol)

    def map(self, payload: bytes, receive_ns: int) -> Any:
        if self._bad(payload):
            raise MapError("unknown_field", "version A does not know it")
        return self._real.map(payload, receive_ns)

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Any:
        return self._real.map_rest(kind, symbol, status, body, receive_ns)


class World:
    """Servers, services in this event loop, and a session that appends to the raw stream."""

    def __init__(self, redis: EmbeddedRedis, database_url: str, folder: Path) -> None:
        self.redis, self.database_url = redis, database_url
        self.manifest = folder / "feed.yaml"
        self.manifest.write_text(MANIFEST)
        # redis-py gives a server up after 5 s, and what it was asked for may have been done.
        self.client: Any = redis_asyncio.Redis.from_url(redis.url, socket_timeout=60)
        self._stop = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self._n = 0

    def start(self, bad: Callable[[bytes], bool] = lambda _: False) -> None:
        """``bad``: frames that this version's mapper does not read."""
        resources = load_texts({"feed.yaml": MANIFEST}, local=True)
        feed, pipeline = resources.feeds["default", "spot"], resources.pipelines["default", "main"]
        url, log = RedisUrl.parse(self.redis.url), get_logger()
        distributor = Distributor(
            DistributorSettings.from_resources(feed, pipeline, 0), url, Health("distributor"), log
        )
        venue = get_venue("binance", "Spot")

        def mapper(symbols: Mapping[str, str]) -> Mapper:
            return Poisoned(venue.mapper(symbols), bad)

        distributor.venue = replace(venue, mapper=mapper)
        settings = replace(processor_settings(pipeline, [feed], "r0"), finish_every=0.05, block_ms=200)
        processor = Processor(settings, url, self.database_url, Health("processor"), log)
        self._stop = asyncio.Event()
        self.tasks = [asyncio.create_task(each.run(self._stop)) for each in (distributor, processor)]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self.tasks)
        self.tasks = []

    async def begin(self) -> None:
        topics = [
            TopicRef(SYMBOL, NATIVE, channel, f"btcusdt@{stream}", interval)
            for channel, stream, interval in (
                ("Trades", "trade", ""), ("Ticker", "bookTicker", ""), ("Candles", "kline_1m", "1m")
            )
        ]  # fmt: skip
        records = [
            control.Session("r0-000000000001aaaaaa", "r0", "1", 1), control.Connected(1, "stream", topics),
            control.Subscribed(1, topics),
        ]  # fmt: skip
        await self._append(Run(int(RunKind.CONTROL), 1, [BASE] * 3, [control.encode(record) for record in records]))

    async def send(self, *frames: bytes) -> None:
        """One batch. Receive times are counted, so that they are the same in every run."""
        self._n += 1
        times = [BASE + self._n * SECOND + at for at in range(len(frames))]
        await self._append(Run(0, 1, times, list(frames)))

    async def _append(self, run: Run) -> None:
        n = int(await self.client.hincrby(REF.sessions, "r0-000000000001aaaaaa", 1))
        batch = RawBatch(1, "r0-000000000001aaaaaa", n, [run])
        await self.client.xadd(REF.raw, {"b": encode_batch(batch)})

    async def emitted(self) -> list[tuple[int, int]]:
        """(trade id, flags) of every trade in the events stream."""
        blocks = [decode_events(fields[b"e"]) for _, fields in await self.client.xrange(REF.events)]
        return [(trade.id, trade.flags) for block in blocks for trade in block.trades]

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return [tuple(row) for row in await connection.fetch(statement, *values)]
        finally:
            await connection.close()

    async def value(self, statement: str, *values: Any) -> Any:
        return (await self.rows(statement, *values))[0][0]

    async def until(self, statement: str, wanted: Any) -> None:
        """Wait until a query gives that value; a service that failed fails the test."""
        found: Any = None
        try:
            async with asyncio.timeout(60.0):
                while (found := await self.value(statement)) != wanted:
                    for task in self.tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{statement}: {found!r}, not {wanted!r}") from None

    async def close(self) -> None:
        self._stop.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.client.aclose()


@pytest.fixture
async def world(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path
) -> AsyncIterator[World]:
    migrate_sync_in_thread = asyncio.to_thread(migrate_sync, database_url)
    await migrate_sync_in_thread
    made = World(redis_server, database_url, tmp_path)
    yield made
    await made.close()


class Frames:
    """The frames of this folder's tests, as importlib mode has no shared modules."""

    trade = staticmethod(trade_frame)
    ticker = staticmethod(ticker_frame)
    kline = staticmethod(kline_frame)
    depth = staticmethod(depth_frame)


@pytest.fixture
def frames() -> Frames:
    return Frames()
