"""A receiver's stand-in, distributors in this event loop, and readers of what they wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from feedmill.distributor.books import BookSettings
from feedmill.distributor.service import Distributor
from feedmill.distributor.settings import DistributorSettings
from feedmill.exchanges.registry import get_venue
from feedmill.local.embedded import EmbeddedRedis
from feedmill.receiver.scripts import APPEND
from feedmill.shared import control
from feedmill.shared.clock import now_ns
from feedmill.shared.control import TopicRef
from feedmill.shared.events import DeltaBlock, EventBlock, decode_deltas, decode_events
from feedmill.shared.frames import RawBatch, Run, RunKind, encode_batch
from feedmill.shared.health import Health
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

SHARD = ShardRef("default", "spot", 0)
SYMBOL, NATIVE = "BTC-USDT", "BTCUSDT"
SECOND = 1_000_000_000
TOPICS = [
    TopicRef(SYMBOL, NATIVE, channel, f"btcusdt@{name}")
    for channel, name in (("Trades", "trade"), ("Book", "depth@100ms"), ("Ticker", "bookTicker"))
]
LEVEL = [["100.0", "1"]]


def trade_frame(number: int, native: str = NATIVE) -> bytes:
    data = {"e": "trade", "E": 1, "s": native, "t": number, "p": "100.5", "q": "1", "T": 1_750_000_000_000 + number}
    return json.dumps(
        {"stream": "btcusdt@trade", "data": data | {"m": True, "M": True}}, separators=(",", ":")
    ).encode()


def ticker_frame(seq: int) -> bytes:
    data = {"u": seq, "s": NATIVE, "b": "1", "B": "1", "a": "2", "A": "1"}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data}, separators=(",", ":")).encode()


def depth_frame(seq: int, at_ms: int = 0) -> bytes:
    at = at_ms or 1_750_000_000_000 + seq * 100
    data = {"e": "depthUpdate", "E": at, "s": NATIVE, "U": seq, "u": seq, "b": [[f"{seq}.0", "1"]], "a": []}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": data}, separators=(",", ":")).encode()


def _client(server: EmbeddedRedis) -> Any:
    """Connects again after a restart of the server. One that is slow is waited for: what was asked is done once."""
    return redis_asyncio.Redis.from_url(server.url, retry=Retry(ConstantBackoff(0.02), 50), socket_timeout=60)


class Producer:
    """One receiver session: its batches are kept, so they can be appended again after the server forgot them."""

    def __init__(self, server: EmbeddedRedis, name: str = "r0", number: int = 1) -> None:
        self.session = f"{name}-{number:012x}aaaaaa"
        self.replica, self.number = name, number
        self._server = server
        self.client: Any = _client(server)
        self.batches: list[bytes] = []

    async def append(self, *runs: Run) -> None:
        """As the receiver: appends, or when the server forgot some, those first."""
        self.batches.append(encode_batch(RawBatch(1, self.session, len(self.batches) + 1, list(runs))))
        await self.send()

    async def send(self) -> None:
        at = len(self.batches)
        while at <= len(self.batches):
            payload = self.batches[at - 1]
            answer, last = await self.client.eval(
                APPEND.source, 2, SHARD.raw, SHARD.sessions, self.session, at, payload
            )
            if answer == 0 and last < len(self.batches):
                raise AssertionError("cannot be")
            at = last + 1

    async def control(self, *records: control.Control, conn: int = 1) -> None:
        payloads = [control.encode(record) for record in records]
        await self.append(Run(int(RunKind.CONTROL), conn, [now_ns()] * len(payloads), payloads))

    async def begin(self, *channels: str, conn: int = 1) -> None:
        records: list[control.Control] = [control.Session(self.session, self.replica, "1", self.number)]
        await self.control(*(records if conn == 1 else []), *self.opening(channels, conn), conn=conn)

    @staticmethod
    def opening(channels: Iterable[str], conn: int) -> list[control.Control]:
        topics = [topic for topic in TOPICS if topic.channel in (channels or ("Trades",))]
        return [control.Connected(conn, "stream"), control.Subscribed(conn, topics)]

    async def frames(self, *payloads: bytes, conn: int = 1) -> None:
        await self.append(Run(0, conn, [now_ns()] * len(payloads), list(payloads)))

    async def trades(self, first: int, last: int, size: int = 20) -> None:
        for start in range(first, last + 1, size):
            await self.frames(*(trade_frame(n) for n in range(start, min(start + size, last + 1))))

    async def snapshot(self, seq: int, command: str = "") -> None:
        body = json.dumps({"lastUpdateId": seq, "bids": LEVEL, "asks": [["200", "1"]]}).encode()
        answer = control.RestAnswer(command, "book_snapshot", SYMBOL, NATIVE, 200, now_ns(), body)
        await self.append(Run(int(RunKind.REST), 0, [now_ns()], [control.encode(answer)]))


class Events:
    """What stands in the events stream. ``entries`` are those not trimmed."""

    def __init__(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        self.ids = [entry_id.decode() for entry_id, _ in entries]
        self.numbers = [int(fields[b"n"]) for _, fields in entries]
        self.links = [(fields[b"p"].decode(), fields[b"id"].decode()) for _, fields in entries]
        self.block, self.deltas = EventBlock(), DeltaBlock()
        for _, fields in entries:
            block = decode_events(fields[b"e"])
            for name in block.__struct_fields__[1:]:
                getattr(self.block, name).extend(getattr(block, name))
            if b"d" in fields:
                self.deltas.deltas.extend(decode_deltas(fields[b"d"]).deltas)

    @property
    def trades(self) -> list[int]:
        return [trade.id for trade in self.block.trades]

    @property
    def seqs(self) -> list[int]:
        return [delta.seq for delta in self.deltas.deltas]

    def assert_chain(self, first: int = 1) -> None:
        """Numbers without holes, each commit names the one before, and no event is there twice."""
        assert self.numbers == list(range(first, first + len(self.numbers)))
        assert [p for p, _ in self.links[1:]] == [own for _, own in self.links[:-1]]
        if first == 1 and self.links:
            assert self.links[0][0] == ""
        assert len(self.trades) == len(set(self.trades))
        assert len({own for _, own in self.links}) == len(self.links)


def settings(**more: Any) -> DistributorSettings:
    venue = get_venue("binance", "Spot")
    values: dict[str, Any] = {
        "books": BookSettings(str(SHARD), venue.book_rules),
        "natives": {SYMBOL: NATIVE},
        "arbitration": venue.arbitration,
        "grace_ns": SECOND // 5,
        "image_interval": 0.05,
        "linger": 0.0,
        "breaker_reset": 1.0,
        "lease_ttl": 0.6,
    }
    return DistributorSettings(SHARD, "binance", "Spot", **(values | more))


class Running:
    """One distributor in this event loop; ``lease=False`` works without asking for the lease."""

    def __init__(self, url: str, *, lease: bool = True, **more: Any) -> None:
        self.health = Health("distributor")
        self.distributor = Distributor(settings(**more), RedisUrl.parse(url), self.health, get_logger())
        self.stop = asyncio.Event()
        run = self.distributor.run if lease else self.distributor._work
        self.task = asyncio.create_task(run(self.stop))

    @property
    def figures(self) -> Any:
        return self.distributor.figures

    async def end(self) -> None:
        self.stop.set()
        await self.task

    async def kill(self) -> None:
        """Stop at once, wherever it is: nothing is committed or released."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Stage:
    """One server, its producers and distributors."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.server = server
        self.client: Any = _client(server)
        self.producers: list[Producer] = []
        self.running: list[Running] = []

    def producer(self, name: str = "r0", number: int = 1) -> Producer:
        self.producers.append(Producer(self.server, name, number))
        return self.producers[-1]

    def start(self, url: str = "", **more: Any) -> Running:
        self.running.append(Running(url or self.server.url, **more))
        return self.running[-1]

    async def events(self) -> Events:
        return Events(await self.client.xrange(SHARD.events))

    async def until(self, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until a condition holds; a distributor that failed meanwhile fails the test."""
        async with asyncio.timeout(seconds):
            while True:
                value = holds()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                for each in self.running:
                    if each.task.done() and not each.task.cancelled():
                        each.task.result()
                await asyncio.sleep(0.005)

    async def until_events(self, holds: Callable[[Events], Any], seconds: float = 60.0) -> Events:
        """Wait until what stands in the events stream is as wanted; gives it."""
        found: list[Events] = []

        async def look() -> bool:
            found[:] = [await self.events()]
            return bool(holds(found[0]))

        try:
            await self.until(look, seconds)
        except TimeoutError:
            last = found[0]
            raise AssertionError(
                f"trades {last.trades[-5:]}, gaps {last.block.gaps[-3:]}, n {last.numbers[-3:]}"
            ) from None
        return found[0]

    async def until_trades(self, last: int, seconds: float = 60.0) -> Events:
        return await self.until_events(lambda events: last in events.trades, seconds)

    async def commands(self) -> list[control.Command]:
        return [control.decode_command(fields[b"c"]) for _, fields in await self.client.xrange(SHARD.commands)]

    async def apply(self) -> None:
        """As a processor that has stored everything."""
        entries = await self.client.xrevrange(SHARD.events, count=1)
        if entries:
            await self.say_stored(entries[0][0])

    async def say_stored(self, entry_id: bytes) -> None:
        script = "#!lua flags=allow-oom\nredis.call('HSET', KEYS[1], 'stream', ARGV[1])"
        await self.client.eval(script, 1, SHARD.applied, entry_id)

    async def close(self) -> None:
        for each in self.running:
            each.stop.set()
        results = await asyncio.gather(*(each.task for each in self.running), return_exceptions=True)
        for client in (self.client, *(producer.client for producer in self.producers)):
            with contextlib.suppress(Exception):
                await client.aclose()
        for result in results:
            if isinstance(result, Exception):
                raise result


class Proxy:
    """A TCP proxy before Redis. ``swallow``: the next message that holds it is passed on, and its answer is lost."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self._server = server
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.swallow = b""
        self.swallowed = 0

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._listener is not None
        port = self._listener.sockets[0].getsockname()[1]
        return self._server.url.replace(f":{self._server.port}/", f":{port}/")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._writers |= {writer, here}
        lost = asyncio.Event()
        for source, target, asks in ((reader, here, True), (there, writer, False)):
            task = asyncio.create_task(self._pass_on(source, target, lost, asks=asks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, lost: asyncio.Event, *, asks: bool
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if asks and self.swallow and self.swallow in data:
                    self.swallow = b""
                    lost.set()
                if not asks and lost.is_set():
                    # The server has answered: the commit is made, and nobody will know.
                    self.swallowed += 1
                    for writer in tuple(self._writers):
                        writer.transport.abort()
                    self._writers.clear()
                    return
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
