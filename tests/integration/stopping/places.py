"""Service processes as a user starts them, the servers they work with, and ways in which these do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.local.embedded.server import EmbeddedServer
from feedmill.receiver.scripts import APPEND
from feedmill.shared import control
from feedmill.shared.clock import now_ns
from feedmill.shared.control import TopicRef
from feedmill.shared.events import EventBlock, Trade, decode_events, encode
from feedmill.shared.frames import RawBatch, Run, RunKind, decode_batch, encode_batch
from feedmill.shared.keys import ShardRef

SHARD = ShardRef("default", "spot", 0)
MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main}}
spec:
  redis: {{managed: {{}}, circuitBreaker: {{failureThreshold: 3, resetTimeout: 60s}}}}
  postgres: {{managed: {{}}, circuitBreaker: {{failureThreshold: 3, resetTimeout: 60s}}}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: spot}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: binance, market: Spot, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  instruments: {{symbols: [BTC-USDT]}}
  channels: [{{name: Trades}}, {{name: Ticker}}]
  receiver: {{reconnect: {{maxBackoff: 60s}}}}
"""
REFUSED = "127.0.0.1:9"
"""Nobody listens there."""
BAD_WORDS = ("Traceback", "was destroyed", "never retrieved", "never awaited", "Exception ignored", "Fatal")
"""What Python and its libraries say of an end that was none."""


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout: float = 180.0) -> Any:
    """Wait until ``condition`` holds; gives its value."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)


class BlackHole:
    """Takes every connection and never says a word."""

    def __init__(self) -> None:
        self.came = 0
        self._server: asyncio.Server | None = None
        self._over = asyncio.Event()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        await self._over.wait()
        writer.transport.abort()

    async def __aenter__(self) -> BlackHole:
        self._server = await asyncio.start_server(self._swallow, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._over.set()
        self._server.close()


@contextlib.contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """The server with all its processes is stopped: connections stay, connecting works, nothing is answered."""
    main = psutil.Process(server.pid)
    main.suspend()  # First: it makes a process for each connection.
    stopped = [main, *main.children(recursive=True)]
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):  # A server's process of one connection may just have ended.
            process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


class Service:
    """One service process and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, port_file: Path) -> None:
        self.process = process
        self._log = log
        self._port_file = port_file

    @property
    def text(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """What was logged. While it runs the last line may be half written."""
        done = self.text if self.process.returncode is not None else self.text.rpartition("\n")[0]
        return [json.loads(line) for line in done.splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    async def said(self, event: str, times: int = 1) -> None:
        def enough() -> bool:
            ended = self.process.returncode is not None  # It may have said it last of all.
            found = self.events().count(event) >= times
            assert found or not ended, self.text
            return found

        try:
            await until(enough)
        except TimeoutError:
            raise AssertionError(f"never said {event}: {self.text}") from None

    async def document(self) -> dict[str, Any]:
        await until(self._port_file.exists)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self._port_file.read_text()))
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], f"{answer.decode()}\n{self.text}"
        found: dict[str, Any] = json.loads(body)
        return found

    async def shows(self, holds: Callable[[dict[str, Any]], Any]) -> None:
        """Until its health document is as wanted."""
        seen: list[dict[str, Any]] = []

        async def shown() -> bool:
            assert self.process.returncode is None, self.text
            seen[:] = [await self.document()]
            return bool(holds(seen[0]))

        try:
            await until(shown)
        except TimeoutError:
            raise AssertionError(f"{seen}\n{self.text}") from None

    def again(self, number: int = signal.SIGTERM) -> None:
        """One more signal; of those before it may have ended meanwhile."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(number)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def end(self) -> int:
        """SIGTERM once it hears signals; its exit code."""
        await until(lambda: self._port_file.exists() or self.process.returncode is not None)
        self.signal()
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code. That it kept to its grace is for itself to say: an end that is overdue is logged as one."""
        async with asyncio.timeout(120):
            return await self.process.wait()

    def assert_clean(self) -> None:
        """Every line is whole, and none of them is about an end that was no end."""
        for word in BAD_WORDS:
            assert word not in self.text, self.text
        events = self.events()
        assert not {"stop.overdue", "stop.stuck"} & set(events), self.text
        assert not self._port_file.with_suffix(".tmp").exists()


class Place:
    """A folder with manifests, servers, and the processes that were started there."""

    def __init__(self, folder: Path, redis: EmbeddedRedis, postgres: EmbeddedPostgres, database_url: str) -> None:
        self.folder = folder
        self.redis = redis
        self.postgres = postgres
        self.database_url = database_url
        self.stream, self.rest = f"ws://{REFUSED}", f"http://{REFUSED}"
        self.spill: Path | None = folder / "spill"
        self.started: list[Service] = []
        # Connects again after a restart of the server.
        self.client: Any = redis_asyncio.Redis.from_url(redis.url, retry=Retry(ConstantBackoff(0.02), 50))
        self.batches = 0

    def redis_at(self, address: str) -> str:
        return self.redis.url.replace(f"127.0.0.1:{self.redis.port}", address)

    def database_at(self, address: str) -> str:
        return self.database_url.replace(f"127.0.0.1:{self.postgres.port}", address)

    async def start(
        self, role: str, *more: str, redis_url: str = "", database_url: str = "", prefix: Sequence[str] = ()
    ) -> Service:
        """``prefix``: before the command, of something that becomes it."""
        number = len(self.started)
        config = self.folder / f"feed-{number}.yaml"
        config.write_text(MANIFEST.format(stream=self.stream, rest=self.rest))
        port_file, log = self.folder / f"port-{number}", self.folder / f"log-{number}"
        arguments = ["--config", str(config), "--port-file", str(port_file), *more]
        if role in ("receiver", "distributor"):
            arguments += ["--feed", "default/spot", "--shard", "0"]
        else:
            arguments += ["--pipeline", "default/main"]
        if role == "receiver" and self.spill is not None:
            arguments += ["--spill-dir", str(self.spill)]
        urls = {"REDIS_URL": redis_url or self.redis.url, "DATABASE_URL": database_url or self.database_url}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *prefix, sys.executable, "-m", "feedmill.cli.main", "run", role, *arguments,
                env=os.environ | urls, stdout=output, stderr=output,
            )  # fmt: skip
        self.started.append(Service(process, log, port_file))
        return self.started[-1]

    async def close(self) -> None:
        for service in self.started:
            if service.process.returncode is None:
                service.process.kill()
                await service.process.wait()
        await self.client.aclose()

    # what a receiver leaves
    async def raw(self) -> dict[str, list[RawBatch]]:
        """Session -> its batches."""
        found: dict[str, list[RawBatch]] = {}
        for _, fields in await self.client.xrange(SHARD.raw):
            batch = decode_batch(fields[b"b"])
            found.setdefault(batch.session, []).append(batch)
        return found

    # what a distributor finds and leaves
    async def append(self, *runs: Run) -> None:
        self.batches += 1
        payload = encode_batch(RawBatch(1, "r0-test", self.batches, list(runs)))
        answer = await self.client.eval(APPEND.source, 2, SHARD.raw, SHARD.sessions, "r0-test", self.batches, payload)
        assert answer[0] == 1

    async def open_session(self) -> None:
        topic = TopicRef("BTC-USDT", "BTCUSDT", "Trades", "btcusdt@trade")
        records = [
            control.Session("r0-test", "r0", "1", now_ns()), control.Connected(1, "stream", [topic]),
            control.Subscribed(1, [topic]),
        ]  # fmt: skip
        payloads = [control.encode(record) for record in records]
        await self.append(Run(int(RunKind.CONTROL), 1, [now_ns()] * len(payloads), payloads))

    async def raw_trades(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            data = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": number, "p": "1", "q": "1", "T": now_ns() // 1_000_000}
            frame = json.dumps({"stream": "btcusdt@trade", "data": data | {"m": True}}, separators=(",", ":")).encode()
            await self.append(Run(0, 1, [now_ns()], [frame]))

    async def dispatched(self) -> list[int]:
        """Trades of the events stream, whose chain must be whole."""
        trades, before = [], b""
        for _, fields in await self.client.xrange(SHARD.events):
            assert fields[b"p"] == before
            before = fields[b"id"]
            trades += [trade.id for trade in decode_events(fields[b"e"]).trades]
        return trades

    # what a processor finds and leaves
    async def events(self, first: int, last: int) -> None:
        for n in range(first, last + 1):
            trade = Trade("BTC-USDT", n, "1.5", "2", 1, now_ns(), now_ns())
            before = f"{n - 1:016x}" if n > 1 else ""
            fields: Any = {"n": n, "id": f"{n:016x}", "p": before, "e": encode(EventBlock(trades=[trade]))}
            await self.client.xadd(SHARD.events, fields)

    async def fetch(self, statement: str) -> list[Any]:
        """The first column."""
        return [row[0] for row in await self.fetch_rows(statement)]

    async def fetch_rows(self, statement: str) -> list[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    async def stored(self) -> list[int]:
        return await self.fetch("SELECT trade_id FROM trades ORDER BY 1")


@contextlib.asynccontextmanager
async def locked(place: Place, tables: str = "trades, tickers, book_snapshots") -> AsyncIterator[None]:
    """Somebody holds the tables, as a long migration does."""
    connection = await asyncpg.connect(place.database_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.terminate()


async def waits_for_lock(place: Place) -> None:
    """Until a statement of a service waits for one."""
    query = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'feedmill%'"

    async def waits() -> bool:
        return bool(await place.fetch(query))

    await until(waits)
