"""A distributor's stand-in that appends commits, and a processor over real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio

from feedmill.cli.migrate import migrate_sync
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.processor.service import Processor
from feedmill.processor.settings import ProcessorSettings, ShardSettings, VenueRules
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.events import EventBlock, Trade, encode
from feedmill.shared.health import Health
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

MINUTE = 60 * SECOND
REF = ShardRef("test", "spot", 0)
SYMBOL = "BTC-USDT"
BASE = now_ns() // (24 * 60 * MINUTE) * 24 * 60 * MINUTE - 12 * 60 * MINUTE
"""Noon of yesterday, UTC, ns: begins of all candle intervals up to 12h fall on it."""


def trade(number: int, at_ns: int | None = None, *, symbol: str = SYMBOL, price: str = "", **more: Any) -> Trade:
    """Trade ``number``; by default one a second from BASE on."""
    at = BASE + number * SECOND if at_ns is None else at_ns
    return Trade(symbol, number, price or f"{100 + number % 7}.50", "0.25", 1 + number % 2, at, at + 1_000_000, **more)


class Distributor:
    """Appends commits to one shard's events stream as the real one does: n, id, p and the block."""

    def __init__(self, server: EmbeddedRedis, ref: ShardRef = REF) -> None:
        self.ref = ref
        # redis-py gives a server up after 5 s, and what it was asked for may have been done.
        self.client: Any = redis_asyncio.Redis.from_url(server.url, socket_timeout=60)
        self.n = 0
        self.id = ""
        self.entries: list[str] = []

    async def commit(self, block: EventBlock | None = None, **lists: Any) -> str:
        """Append one commit; answers its entry id."""
        return await self.append(encode(block or EventBlock(**lists)))

    async def append(self, payload: bytes) -> str:
        before, n = self.id, self.n + 1
        commit_id = f"{n:04x}{abs(hash((str(self.ref), n, payload))) & 0xFFFFFFFFFFFF:012x}"
        entry = await self.client.xadd(self.ref.events, {"n": n, "id": commit_id, "p": before, "e": payload})
        self.n, self.id = n, commit_id
        self.entries.append(entry.decode())
        return self.entries[-1]

    async def trades(self, first: int, last: int, *, size: int = 50, symbol: str = SYMBOL) -> None:
        """Trades ``first`` to ``last`` (included), ``size`` a commit."""
        for start in range(first, last + 1, size):
            numbers = range(start, min(start + size, last + 1))
            await self.commit(trades=[trade(number, symbol=symbol) for number in numbers])


def shard_settings(ref: ShardRef = REF, *, dense: bool = True, market: str = "Spot", **more: Any) -> ShardSettings:
    comparable = more.pop("comparable", {})
    rules = more.pop("rules", VenueRules(dense, comparable))
    return ShardSettings(ref, "binance", market, rules, linger=0.0, **more)


class Run:
    """One processor process of the test, in this event loop."""

    def __init__(self, settings: ProcessorSettings, redis_url: str, database_url: str) -> None:
        self.health = Health("processor")
        self.processor = Processor(
            settings, RedisUrl.parse(redis_url), database_url, self.health, get_logger().bind(replica=settings.replica)
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.processor.run(self.stop))

    def shard(self, ref: ShardRef = REF) -> Any:
        return self.processor.figures.of(str(ref))

    def document(self) -> dict[str, Any]:
        return self.health.document()

    async def end(self) -> None:
        self.stop.set()
        await self.task

    async def kill(self) -> None:
        """As kill -9 does: connections are cut, nothing is released or drained."""
        for seat in self.processor.seats:
            seat.worker.abort()
        self.processor.link.close()
        self.processor.link._again = float("inf")
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Bench:
    """Servers, distributors and processors of one test."""

    def __init__(self, redis: EmbeddedRedis, postgres: EmbeddedPostgres, database_url: str) -> None:
        self.redis = redis
        self.postgres = postgres
        self.database_url = database_url
        self.runs: list[Run] = []
        self.distributors: dict[ShardRef, Distributor] = {}
        self._connection: asyncpg.Connection | None = None

    def distributor(self, ref: ShardRef = REF) -> Distributor:
        return self.distributors.setdefault(ref, Distributor(self.redis, ref))

    def start(self, *shards: ShardSettings, **more: Any) -> Run:
        values: dict[str, Any] = {
            "shards": shards or (shard_settings(),),
            "lease_ttl": 0.6,
            "finish_every": 0.05,
            "block_ms": 200,
            "postgres_reset": 2.0,
            "redis_reset": 2.0,
            "statement_timeout": 60.0,  # A machine that is busy for seconds is no server that hangs.
        }
        run = Run(ProcessorSettings(**(values | more)), self.redis.url, self.database_url)
        self.runs.append(run)
        return run

    async def connection(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self.database_url)
        return self._connection

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows as tuples; a single column as values."""
        rows = await (await self.connection()).fetch(statement, *arguments)
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]

    async def value(self, statement: str, *arguments: Any) -> Any:
        return await (await self.connection()).fetchval(statement, *arguments)

    async def until(self, holds: Callable[[], Any], seconds: float = 60.0) -> None:
        """Wait until a condition holds; a run that failed meanwhile fails the test."""
        async with asyncio.timeout(seconds):
            while True:
                answer = holds()
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer:
                    return
                for run in self.runs:
                    if run.task.done() and not run.task.cancelled():
                        run.task.result()
                await asyncio.sleep(0.005)

    async def until_value(self, statement: str, wanted: Any, seconds: float = 60.0) -> None:
        async def equal() -> bool:
            return bool(await self.value(statement) == wanted)

        try:
            await self.until(equal, seconds)
        except TimeoutError:
            found = await self.value(statement)
            raise AssertionError(f"{statement}: {found!r}, not {wanted!r}") from None

    async def until_stored(self, distributor: Distributor | None = None, seconds: float = 60.0) -> None:
        """Wait until the position is the distributor's last commit, and a run of this loop (if any) knows that."""
        which = distributor or self.distributor()

        async def stored() -> bool:
            found = await self.value("SELECT commit_id FROM applied WHERE shard = $1", str(which.ref))
            # The database shows a commit a moment before the processor has its answer and counts it.
            known = not self.runs or any(run.shard(which.ref).n == which.n for run in self.runs)
            return bool(found == which.id) and known

        await self.until(stored, seconds)

    async def close(self) -> None:
        for run in self.runs:
            run.stop.set()
        results = await asyncio.gather(*(run.task for run in self.runs), return_exceptions=True)
        for distributor in self.distributors.values():
            await distributor.client.aclose()
        if self._connection is not None:
            self._connection.terminate()
        for result in results:
            if isinstance(result, Exception):
                raise result


@pytest.fixture
def migrated(database_url: str) -> str:
    """A fresh database with the schema."""
    migrate_sync(database_url)
    return database_url


@pytest.fixture
async def bench(redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, migrated: str) -> AsyncIterator[Bench]:
    made = Bench(redis_server, postgres_server, migrated)
    yield made
    await made.close()
