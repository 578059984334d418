"""A small venue of our own (adapter, WebSocket server, REST server) and readers of the raw stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pytest
import redis.asyncio as redis_asyncio
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from feedmill.exchanges.base import (
    ChannelName,
    Feed,
    FrameKind,
    Outbound,
    Rest,
    RestLimits,
    RestRequest,
    Subscription,
    Topic,
    VenueLimits,
    Verdict,
)
from feedmill.local.embedded import EmbeddedRedis
from feedmill.receiver.service import Receiver
from feedmill.receiver.settings import ReceiverSettings
from feedmill.resources.types import BatchingMode
from feedmill.shared import control
from feedmill.shared.frames import RunKind, decode_batch
from feedmill.shared.health import Health
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

SHARD = ShardRef("test", "toy", 0)


def toy_limits(**changes: Any) -> VenueLimits:
    values: dict[str, Any] = {
        "connects": 300,
        "connects_window": 300.0,
        "messages_per_second": 200.0,
        "topics_per_connection": 50,
        "topics_per_request": 3,
        "request_weight": 6000,
        "request_window": 60.0,
        "connection_lifetime": None,
        "silence": 30.0,
    }
    return VenueLimits(**(values | changes))


class ToyFeed(Feed):
    limits: ClassVar[VenueLimits] = toy_limits()
    data_prefixes: ClassVar[tuple[bytes, ...]] = (b'{"stream":',)

    def __init__(self, stream: str, limits: VenueLimits | None = None) -> None:
        super().__init__(stream)
        if limits is not None:
            self.limits = limits  # type: ignore[misc]

    def topics(self, subscriptions: Sequence[Subscription]) -> list[Topic]:
        return [Topic(f"{s.native.lower()}@{s.channel.value.lower()}", "stream", s) for s in subscriptions]

    def url(self, socket: str) -> str:
        return f"{self.stream}/{socket}"

    def subscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return self._ask("sub", topics, next_id)

    def unsubscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return self._ask("unsub", topics, next_id)

    def _ask(self, what: str, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        step = self.limits.topics_per_request
        messages = []
        for start in range(0, len(topics), step):
            part = tuple(topics[start : start + step])
            number = next_id()
            payload = json.dumps({"id": number, what: [topic.name for topic in part]}).encode()
            messages.append(Outbound(payload, number, part))
        return messages

    def classify(self, payload: bytes) -> Verdict:
        try:
            message = json.loads(payload)
        except ValueError:
            return Verdict(FrameKind.DATA)
        if "error" in message:
            return Verdict(FrameKind.ERROR, message.get("id"), error=message["error"], fatal=bool(message.get("fatal")))
        if "ok" in message:
            return Verdict(FrameKind.ACK, message["id"], frozenset(message["ok"]))
        if "beat" in message:
            return Verdict(FrameKind.HEARTBEAT, reply=b'{"alive":1}')
        if message.get("event") == "shutdown":
            return Verdict(FrameKind.SHUTDOWN)
        return Verdict(FrameKind.DATA)


class ToyRest(Rest):
    def instruments(self, natives: Sequence[str]) -> list[RestRequest]:
        return [RestRequest("instruments", f"{self.base}/instruments", {"symbols": ",".join(natives)}, 20)]

    def halves(self, request: RestRequest) -> list[RestRequest]:
        natives = request.params.get("symbols", "").split(",")
        middle = len(natives) // 2
        return [*self.instruments(natives[:middle]), *self.instruments(natives[middle:])] if middle else []

    def book_snapshot(self, symbol: str, native: str) -> RestRequest:
        return RestRequest("book_snapshot", f"{self.base}/depth", {"symbol": native}, 50, symbol, native)

    def read_limits(self, status: int, headers: Mapping[str, str], body: bytes) -> RestLimits:
        used = headers.get("x-used-weight")
        wait = headers.get("Retry-After")
        return RestLimits(int(used) if used else None, float(wait) if wait else None)


class ToyVenue:
    """The server side. Flags change its behaviour from the next message on."""

    def __init__(self) -> None:
        self.clients: set[ServerConnection] = set()
        self.subscribed: dict[ServerConnection, set[str]] = defaultdict(set)
        self.connects = 0
        self.requests: list[dict[str, Any]] = []
        self.received: list[str] = []
        self.sent: list[bytes] = []
        self.acknowledge = True
        self.refuse: set[str] = set()
        self.leave_out: set[str] = set()
        self.unknown = ""
        """A symbol that REST does not know: a request that names it is refused as a whole."""
        self.close_after_subscribe = False
        self.refuse_http: int | None = None
        self.http_headers: dict[str, str] = {}
        self.rest_status: list[int] = []
        self.rest_calls: list[str] = []
        self.url = ""
        self.rest_url = ""
        self._sequence = 0

    async def handle(self, client: ServerConnection) -> None:
        self.connects += 1
        self.clients.add(client)
        try:
            async for text in client:
                self.received.append(str(text))
                message = json.loads(text)
                if "sub" in message or "unsub" in message:
                    self.requests.append(message)
                    await self._answer(client, message)
        finally:
            self.clients.discard(client)
            self.subscribed.pop(client, None)

    async def _answer(self, client: ServerConnection, message: dict[str, Any]) -> None:
        asked = message.get("sub") or message.get("unsub") or []
        refused = [name for name in asked if name in self.refuse]
        if not self.acknowledge:
            return
        if "sub" in message and refused:
            await client.send(json.dumps({"id": message["id"], "error": f"unknown {refused[0]}"}))
            return
        if "sub" in message:
            self.subscribed[client] |= set(asked) - self.leave_out
        else:
            self.subscribed[client] -= set(asked)
        await client.send(
            json.dumps({"id": message["id"], "ok": [name for name in asked if name not in self.leave_out]})
        )
        if self.close_after_subscribe:
            await client.close(1000, "bye")

    def http(self, connection: ServerConnection, request: Any) -> Any:
        if self.refuse_http is not None:
            self.connects += 1
            response = connection.respond(self.refuse_http, "no")
            for name, value in self.http_headers.items():
                response.headers[name] = value
            return response
        return None

    async def publish(self, count: int, topic: str = "btcusdt@trades", size: int = 200) -> None:
        """Send ``count`` numbered data frames to every client; they are kept in ``sent``."""
        for _ in range(count):
            self._sequence += 1
            frame = json.dumps({"stream": topic, "data": {"seq": self._sequence, "pad": "x" * (size - 60)}})
            self.sent.append(frame.replace('": ', '":').encode())
            for client in tuple(self.clients):
                with contextlib.suppress(Exception):
                    await client.send(self.sent[-1].decode())

    async def rest(self, request: web.Request) -> web.Response:
        self.rest_calls.append(request.path_qs)
        status = self.rest_status.pop(0) if self.rest_status else 200
        if self.unknown and self.unknown in request.query.get("symbols", "").split(","):
            status = 400
        headers = {"Retry-After": "0.2"} if status in (418, 429) else {"x-used-weight": "10"}
        return web.json_response({"path": request.path, "status": status}, status=status, headers=headers)


@pytest.fixture
async def venue() -> AsyncIterator[ToyVenue]:
    toy = ToyVenue()
    app = web.Application()
    app.router.add_get("/{tail:.*}", toy.rest)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    toy.rest_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with serve(
        toy.handle, "127.0.0.1", 0, process_request=toy.http, ping_interval=None, max_queue=None
    ) as server:
        toy.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield toy
        for client in tuple(toy.clients):
            client.transport.abort()
    await runner.cleanup()


@dataclass
class Record:
    session: str
    n: int
    kind: RunKind
    conn: int
    at: int
    payload: bytes

    @property
    def value(self) -> Any:
        if self.kind is RunKind.CONTROL:
            return control.decode_control(self.payload)
        if self.kind is RunKind.REST:
            return control.decode_answer(self.payload)
        return self.payload


@dataclass
class Raw:
    """What stands in the raw stream."""

    records: list[Record] = field(default_factory=list)
    batches: dict[str, list[int]] = field(default_factory=dict)

    def frames(self) -> list[bytes]:
        return [r.payload for r in self.records if r.kind is RunKind.FRAMES]

    def data(self) -> list[bytes]:
        return [payload for payload in self.frames() if payload.startswith(b'{"stream":')]

    def controls(self, *types: type) -> list[Any]:
        values = [r.value for r in self.records if r.kind is RunKind.CONTROL]
        return [value for value in values if not types or isinstance(value, types)]

    def answers(self) -> list[Any]:
        return [r.value for r in self.records if r.kind is RunKind.REST]

    def assert_dense(self) -> None:
        """Every session's batches count from 1 without holes or doubles, in order."""
        for session, numbers in self.batches.items():
            assert numbers == list(range(1, len(numbers) + 1)), session


async def read_raw(url: str, shard: ShardRef = SHARD) -> Raw:
    raw = Raw()
    client = redis_asyncio.Redis.from_url(url)
    try:
        for _, fields in await client.xrange(shard.raw):
            batch = decode_batch(fields[b"b"])
            raw.batches.setdefault(batch.session, []).append(batch.n)
            for run in batch.runs:
                for at, payload in zip(run.times, run.frames, strict=True):
                    raw.records.append(Record(batch.session, batch.n, RunKind(run.kind), run.conn, at, payload))
    finally:
        await client.aclose()
    return raw


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout: float = 180.0) -> Any:
    """Wait until ``condition`` holds; gives its value."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)


SYMBOLS = ("BTC-USDT", "ETH-USDT")


def toy_settings(venue: ToyVenue, **changes: Any) -> ReceiverSettings:
    wanted = tuple(
        Subscription(symbol, symbol.replace("-", ""), channel)
        for symbol in SYMBOLS
        for channel in (ChannelName.TRADES, ChannelName.TICKER)
    )
    values: dict[str, Any] = {
        "shard": SHARD,
        "replica": "r0",
        "exchange": "toy",
        "market": "Spot",
        "stream_url": venue.url,
        "rest_url": venue.rest_url,
        "subscriptions": wanted,
        "mode": BatchingMode.LATENCY,
        "min_backoff": 0.05,
        "max_backoff": 0.5,
        "stable_after": 0.3,
        "breaker_reset": 0.5,
        "append_deadline": 5.0,
        "alive_interval": 0.4,
        "confirm_hold": 0.0,
        "drain_timeout": 60.0,
    }
    return ReceiverSettings(**(values | changes))


class Running:
    """A receiver as a task."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.stop_event = asyncio.Event()
        self.task = asyncio.create_task(receiver.run(self.stop_event))

    async def ready(self) -> None:
        await until(lambda: self.task.done() or self.receiver.health.ready()[0])
        if self.task.done():
            self.task.result()

    async def received(self, frames: int) -> None:
        """Until the first connection has read exactly so many frames, acknowledgements included; an orderly end reads
        no further."""
        await until(lambda: self.receiver.supervisor.links[0].connection.received == frames)

    async def stop(self) -> None:
        self.stop_event.set()
        async with asyncio.timeout(150):  # More than it may take to drain and to confirm.
            await self.task

    async def cancel(self, within: float = 60.0) -> None:
        self.task.cancel()
        done, _ = await asyncio.wait({self.task}, timeout=within)
        assert done, "cancellation did not finish"


Launch = Callable[..., Running]


@pytest.fixture
async def launch(venue: ToyVenue, redis_server: EmbeddedRedis) -> AsyncIterator[Launch]:
    running: list[Running] = []

    def start(limits: VenueLimits | None = None, **changes: Any) -> Running:
        settings = toy_settings(venue, **changes)
        feed = ToyFeed(settings.stream_url, limits)
        rest = ToyRest(settings.rest_url)
        url = RedisUrl.parse(redis_server.url)
        receiver = Receiver(settings, feed, rest, url, Health("receiver"), get_logger())
        running.append(Running(receiver))
        return running[-1]

    yield start
    for each in running:
        if not each.task.done():
            await each.cancel()


@dataclass
class Kit:
    """Helpers for tests, as importlib mode has no shared modules."""

    until: Any = until
    limits: Any = toy_limits
    read_raw: Any = read_raw
    shard: ShardRef = SHARD
    json: Any = msgspec.json


@pytest.fixture
def kit() -> Kit:
    return Kit()
