"""What local mode says at its end of account events that are not stored: by the streams and the positions alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import redis.asyncio as redis_asyncio

from feedmill.cli.migrate import migrate_sync
from feedmill.local.account_streams import left_of_accounts
from feedmill.local.embedded import EmbeddedRedis
from feedmill.local.manager import redis_pool
from feedmill.shared.keys import account_ref
from feedmill.shared.redis.pool import RedisPool


@pytest.fixture
async def pool(redis_server: EmbeddedRedis) -> AsyncIterator[RedisPool]:
    made = redis_pool(redis_server.url)
    yield made
    await made.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    await asyncio.to_thread(migrate_sync, database_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """INSERT INTO accounts (namespace, name, exchange, market, environment, origin)
        SELECT 'default', name, 'binance', 'Spot', 'Production', 'store' FROM unnest($1::text[]) AS name""",
        ["a", "b", "c"],
    )
    yield connection
    await connection.close()


async def put(server: EmbeddedRedis, name: str, *, raw: bool = True) -> str:
    """One entry heard, and distributed unless it stays in the raw stream; gives the one in the events."""
    ref = account_ref(f"default/{name}")
    client = redis_asyncio.Redis.from_url(server.url, decode_responses=True)
    try:
        entry = await client.xadd(ref.raw, {"b": "x"})
        if not raw:
            return ""
        await client.hset(ref.checkpoint, "pos", entry)
        return str(await client.xadd(ref.events, {"e": "x"}))
    finally:
        await client.aclose()


async def test_nothing_is_left_where_all_is_stored(
    pool: RedisPool, redis_server: EmbeddedRedis, database: asyncpg.Connection, database_url: str
) -> None:
    assert await left_of_accounts(pool, database_url) == []
    entry = await put(redis_server, "a")
    await database.execute(
        "INSERT INTO applied (shard, n, commit_id, stream_id) VALUES ('default.@a.0', 1, 'x', $1)", entry
    )
    assert await left_of_accounts(pool, database_url) == []


async def test_what_is_left_is_told_by_name(
    pool: RedisPool, redis_server: EmbeddedRedis, database: asyncpg.Connection, database_url: str
) -> None:
    # One was not distributed, one not stored.
    await put(redis_server, "a", raw=False)
    await put(redis_server, "c")
    assert await left_of_accounts(pool, database_url) == [
        "account events of default/a, default/c stay in Redis: they are stored at the next start"
    ]


async def test_many_are_counted(
    pool: RedisPool, redis_server: EmbeddedRedis, database: asyncpg.Connection, database_url: str
) -> None:
    names = [f"x{number:03}" for number in range(120)]
    await database.execute(
        """INSERT INTO accounts (namespace, name, exchange, market, environment, origin)
        SELECT 'default', name, 'binance', 'Spot', 'Production', 'store' FROM unnest($1::text[]) AS name""",
        names,
    )
    for name in names:
        await put(redis_server, name)
    (line,) = await left_of_accounts(pool, database_url)
    assert line.startswith(
        "account events of default/x000, default/x001, default/x002, default/x003, default/x004 and 115"
    )


async def test_what_cannot_be_looked_at_is_not_called_stored(
    pool: RedisPool, redis_server: EmbeddedRedis, database: asyncpg.Connection, database_url: str
) -> None:
    (line,) = await left_of_accounts(pool, "postgresql://u:pl4nted@127.0.0.1:1/none")
    assert line.startswith("whether all account events are stored is not known (")
    assert "pl4nted" not in line
    redis_server.stop()
    (line,) = await left_of_accounts(pool, database_url)
    assert line.startswith("whether all account events are stored is not known (Redis does not answer: ")
