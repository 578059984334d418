"""Accounts in a database, their streams, and a worker of the test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import asyncpg
import redis.asyncio as redis_asyncio

from feedmill.local.embedded import EmbeddedRedis
from feedmill.processor.accounts.store import AccountStore, Batch
from feedmill.processor.accounts.worker import AccountWorker
from feedmill.shared.account_events import AccountBlock, encode_account
from feedmill.shared.breaker import Breaker
from feedmill.shared.keys import account_ref
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl


async def add_account(db: asyncpg.Connection, name: str, exchange: str = "binance", market: str = "Spot") -> int:
    return await db.fetchval(
        "INSERT INTO accounts (namespace, name, exchange, market, environment, origin) "
        "VALUES ('default', $1, $2, $3, 'Production', 'store') RETURNING id",
        name, exchange, market,
    )  # fmt: skip


def blocks_of(events: Iterable[Any], rng: random.Random) -> list[AccountBlock]:
    """The events in commits of a few each."""
    found: list[AccountBlock] = []
    left = list(events)
    while left:
        size = rng.randint(1, 7)
        part, left = left[:size], left[size:]
        block = AccountBlock()
        for event in part:
            lists = {
                "OrderUpdate": block.orders, "Fill": block.fills, "Balance": block.balances,
                "BalanceChange": block.changes, "Position": block.positions, "AccountGap": block.gaps,
                "Reconciled": block.reconciled,
            }  # fmt: skip
            lists[type(event).__name__].append(event)
        found.append(block)
    return found


async def store_all(db: asyncpg.Connection, account: str, blocks: list[AccountBlock], rng: random.Random) -> int:
    """As the worker does, a few commits a transaction; answers how many events were refused."""
    store = AccountStore(account)
    at = await store.load(db)
    n, refused = at.n, 0
    while blocks:
        batch = Batch()
        for _ in range(rng.randint(1, 4)):
            if blocks:
                n += 1
                batch.add((n, f"c{n}"), blocks.pop(0))
                batch.stand(n, f"c{n}", f"{n}-0")
        refused += (await store.commit(db, batch)).refused
    return refused


class Stream:
    """Appends commits to one account's stream as a distributor does."""

    def __init__(self, server: EmbeddedRedis, account: str) -> None:
        # redis-py gives a server up after 5 s, and what it was asked for may have been done.
        self.client: Any = redis_asyncio.Redis.from_url(server.url, socket_timeout=60)
        self.key = account_ref(account).events
        self.account = account
        self.n, self.id = 0, ""

    async def commit(self, block: AccountBlock | None = None, **lists: Any) -> None:
        found = block or AccountBlock(**lists)
        found.account = self.account
        await self.append(encode_account(found))

    async def append(self, payload: bytes) -> None:
        before, self.n = self.id, self.n + 1
        self.id = f"{self.account}-{self.n}-{len(payload)}"
        await self.client.xadd(self.key, {"n": self.n, "id": self.id, "p": before, "e": payload})


class Running:
    def __init__(self, redis_url: str, database_url: str, accounts: Iterable[str]) -> None:
        self.worker = AccountWorker(
            RedisUrl.parse(redis_url),
            database_url,
            redis=Breaker("redis", fail_max=5, reset_timeout=0.3),
            database=Breaker("postgres", fail_max=5, reset_timeout=0.3),
            log=get_logger(),
            accounts=accounts,
            block_ms=50,
            statement_timeout=60.0,  # A machine that is busy for seconds is no server that hangs.
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.worker.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        await self.task


async def until(holds: Any, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.01)
