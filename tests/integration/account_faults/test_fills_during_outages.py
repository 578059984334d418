"""A fill that happens while something is away is stored once: by replay of what was heard, or by reconciliation.

Each case says by which way its fills must have come, so a case that tests nothing does not pass.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import redis.asyncio as redis_asyncio
from fault_stage import SPOT, USDM, VENUES, Stage, staged

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.shared.account_events import decode_account

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STREAM, REST = {"stream"}, {"REST"}


@pytest.mark.parametrize("name", VENUES)
async def test_the_receiver_is_down(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """Killed: nobody hears it. Who comes after asks."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        await stage.member.kill()
        fills = await stage.happen()
        assert fills.isdisjoint(await stage.stored())
        stage.member.start()
        await stage.settled()
        assert await stage.stored_once(fills) == REST
        assert "session_lost" in await stage.gaps()


@pytest.mark.parametrize("name", VENUES)
async def test_the_receiver_is_stopped_in_order_and_started(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """What it heard last is stored before it ends; what comes after is asked for."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        last = await stage.happen()
        await stage.member.stop()
        assert await stage.stored_once(last) == STREAM
        fills = await stage.happen()
        stage.member.start()
        await stage.settled()
        assert await stage.stored_once(fills) == REST


@pytest.mark.parametrize("name", VENUES)
async def test_the_receiver_is_killed_and_another_goes_on(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """It waits for the lease of the dead one to run out, and then asks."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        stage.second.start()
        heard = await stage.happen()
        await stage.member.kill()
        fills = await stage.happen()
        await stage.listened()
        after = await stage.happen()
        await stage.settled()
        await stage.stored_once(heard | after)
        assert "REST" in await stage.stored_once(fills)


@pytest.mark.parametrize("name", VENUES)
async def test_redis_is_down(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """The receiver hears it, and keeps it until Redis is back."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        await asyncio.to_thread(redis_server.stop)
        fills = await stage.happen()
        assert fills.isdisjoint(await stage.stored())
        await asyncio.to_thread(redis_server.start)
        await stage.settled()
        assert await stage.stored_once(fills) == STREAM


@pytest.mark.parametrize("name", VENUES)
async def test_redis_is_down_and_the_receiver_is_killed(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """What it had heard died with it; who comes after starts without Redis, and asks once it is back."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        await asyncio.to_thread(redis_server.stop)
        fills = await stage.happen()
        await stage.member.kill()
        fills |= await stage.happen()
        stage.member.start()
        fills |= await stage.happen()
        await asyncio.to_thread(redis_server.start)
        await stage.settled()
        await stage.stored_once(fills)


@pytest.mark.parametrize("name", VENUES)
async def test_redis_lost_the_end_of_its_log(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """Batches, checkpoint and events of the last moment are gone, as after a power cut."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        client = redis_asyncio.from_url(redis_server.url)
        await client.config_set("appendfsync", "no")
        await client.aclose()
        (part,) = redis_server.aof_dir.glob("*.incr.aof")
        safe = part.stat().st_size
        fills = await stage.happen()
        await _stored(stage, fills)
        await asyncio.to_thread(redis_server.kill)
        assert part.stat().st_size > safe
        os.truncate(part, safe)
        fills |= await stage.happen()
        await asyncio.to_thread(redis_server.start)
        fills |= await stage.happen()
        await stage.settled()
        await stage.stored_once(fills)


@pytest.mark.parametrize("name", VENUES)
async def test_redis_forgot_everything(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """Who distributes begins with nothing and asks for all there is; what it finds is stored already, or it is now."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        client = redis_asyncio.from_url(redis_server.url)
        fills = await stage.happen()
        await client.flushall()
        await client.aclose()
        fills |= await stage.happen()
        await stage.settled()
        await stage.stored_once(fills)
        assert "redis_lost" in await stage.gaps()


@pytest.mark.parametrize("name", VENUES)
async def test_postgres_is_down(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """The streams keep it."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        await asyncio.to_thread(postgres_server.stop)
        fills = await stage.happen()
        await asyncio.to_thread(postgres_server.start)
        await stage.settled()
        assert await stage.stored_once(fills) == STREAM


@pytest.mark.parametrize("name", VENUES)
async def test_postgres_is_down_and_the_receiver_is_killed(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """What was heard is in the streams. Who comes after has no list of accounts and no secrets until PostgreSQL is
    back; what happens meanwhile is asked for."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        await asyncio.to_thread(postgres_server.stop)
        heard = await stage.happen()
        await _dispatched(stage, heard)
        await stage.member.kill()
        unheard = await stage.happen()
        stage.member.start()
        unheard |= await stage.happen()
        await asyncio.to_thread(postgres_server.start)
        await stage.settled()
        assert await stage.stored_once(heard) == STREAM
        assert await stage.stored_once(unheard) == REST


@pytest.mark.parametrize("name", VENUES)
async def test_the_exchange_cuts_the_connections(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        assert stage.sim.fault("abort", channel="Account") >= 1
        fills = await stage.happen()
        await stage.listened()
        await stage.settled()
        assert "REST" in await stage.stored_once(fills)
        assert "disconnected" in await stage.gaps()


@pytest.mark.parametrize("name", VENUES)
async def test_the_exchange_ends_the_sessions(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    """Listen keys, tokens, subscriptions that end before their time."""
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        assert stage.sim.fault("expire_session") >= 1
        fills = await stage.happen()
        await stage.listened()
        await stage.settled()
        await stage.stored_once(fills)


@pytest.mark.parametrize("name", [SPOT, USDM])
async def test_rest_refuses_while_it_reconciles(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
        stage.sim.fault("rest_429", count=3, seconds=1)
        stage.sim.fault("rest_500", count=3)
        assert stage.sim.fault("abort", channel="Account") >= 1
        fills = await stage.happen()
        await stage.settled()
        assert "REST" in await stage.stored_once(fills)
        assert stage.sim.stats()[name]["rest_status"]["429"] == 3


async def _stored(stage: Stage, fills: set[tuple[str, str, str]]) -> None:
    async with asyncio.timeout(60):
        while not fills <= set(await stage.stored()):
            await asyncio.sleep(0.05)


async def _dispatched(stage: Stage, fills: set[tuple[str, str, str]]) -> None:
    """They are in the streams of events. (That all of the raw streams is dispatched would not do: the receiver may not
    have appended the last of them yet.)"""
    client = redis_asyncio.from_url(stage.redis.url)
    try:
        async with asyncio.timeout(60):
            while True:
                found: set[tuple[str, str, str]] = set()
                for account in stage.side.accounts:
                    for _, fields in await client.xrange(f"fm:{{default.@{account}.0}}:events"):
                        block = decode_account(fields[b"e"])
                        found |= {(fill.symbol, fill.trade_id, fill.order_id) for fill in block.fills}
                if fills <= found:
                    return
                await asyncio.sleep(0.05)
    finally:
        await client.aclose()
