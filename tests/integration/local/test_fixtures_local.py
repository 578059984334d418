"""The fixtures of tests/conftest.py themselves."""

from __future__ import annotations

import asyncpg
import redis.asyncio

from feedmill.local.embedded import EmbeddedRedis


async def test_redis_fixture_is_durable_and_never_evicts(redis_server: EmbeddedRedis) -> None:
    client = redis.asyncio.Redis.from_url(redis_server.url)
    try:
        names = ("appendonly", "appendfsync", "maxmemory-policy", "save", "aof-load-truncated")
        settings = await client.config_get(*names)
        assert settings == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "aof-load-truncated": "yes",
        }
        assert await client.dbsize() == 0
    finally:
        await client.aclose()


async def test_database_fixture_is_fresh(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert await connection.fetchval("SHOW timezone") == "UTC"
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    finally:
        await connection.close()
