"""Redis or PostgreSQL away while the pool works, and a Redis that has forgotten everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio as redis_asyncio
from pool_stage import SPOT, USDM, Bed, until

from feedmill.local.embedded import EmbeddedPostgres
from feedmill.shared.keys import account_ref

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


async def test_postgres_away_listening_goes_on_and_all_is_stored_afterwards(
    start_bed: Start, postgres_server: EmbeddedPostgres
) -> None:
    bed = await start_bed(USDM)
    names = bed.names(USDM)
    await bed.add(USDM, *names)
    member = bed.member()
    await bed.listened(*names)
    await bed.step(40)
    await bed.equal()
    gaps = await bed.rows("SELECT id FROM gaps WHERE channel = 'Account' ORDER BY id")
    await asyncio.to_thread(postgres_server.kill)
    await bed.step(60)
    await until(lambda: member.health.document()["postgres"]["reachable"] is False)
    assert member.listening(*names)
    assert member.health.ready()[0]
    await asyncio.to_thread(postgres_server.start)
    await bed.equal()
    assert await bed.rows("SELECT id FROM gaps WHERE channel = 'Account' ORDER BY id") == gaps, "nothing was missed"
    await until(lambda: member.health.document()["postgres"]["reachable"])


async def test_redis_away_holders_go_on(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    names = bed.names(SPOT)
    await bed.add(SPOT, *names)
    member = bed.member()
    await bed.listened(*names)
    await bed.step(40)
    await asyncio.to_thread(bed.redis.kill)
    await bed.step(40)
    await until(lambda: member.health.document()["redis"]["reachable"] is False)
    assert {name for market in member.pool.holdings.markets.values() for name in market.lines.ready} == set(names)
    await asyncio.to_thread(bed.redis.start)
    await bed.listened(*names)
    await bed.equal()
    await until(lambda: member.health.document()["redis"]["reachable"])


async def test_a_redis_that_forgot_everything_costs_a_reconciliation(start_bed: Start) -> None:
    bed = await start_bed(USDM)
    names = bed.names(USDM)
    await bed.add(USDM, *names)
    bed.member()
    await bed.listened(*names)
    await bed.step(60)
    client = redis_asyncio.from_url(bed.redis.url)
    await client.flushall()
    await client.aclose()
    await bed.step(40)
    await bed.listened(*names)
    await bed.equal()


async def test_what_is_stored_is_trimmed(start_bed: Start) -> None:
    bed = await start_bed(USDM, accounts=1)
    [name] = bed.names(USDM)
    await bed.add(USDM, name)
    bed.member()
    await bed.listened(name)
    client = redis_asyncio.from_url(bed.redis.url)
    try:
        ref = account_ref(name)
        longest = 0
        for _ in range(60):
            await bed.step(10)
            await bed.members["r0"].pool.streams.settled()
            longest = max(longest, await client.xlen(ref.events))
        await bed.equal()
        [row] = await bed.rows("SELECT n FROM applied WHERE shard = $1", str(ref))

        async def trimmed() -> bool:
            await bed.step(1)
            return int(await client.xlen(ref.events)) < 150

        await until(trimmed)
        assert row["n"] > 0

        async def told() -> bool:
            """Redis is told of what is stored a moment later: hints are written a few times a second."""
            return int(await client.hget(ref.applied, "n") or 0) >= row["n"]

        await until(told)
    finally:
        await client.aclose()


async def test_it_ends_in_time_while_both_servers_are_away(start_bed: Start, postgres_server: EmbeddedPostgres) -> None:
    bed = await start_bed(SPOT)
    await bed.add(SPOT, *bed.names(SPOT))
    member = bed.member(append_timeout=0.3, distribute_timeout=0.3, store_timeout=0.3)
    await bed.listened(*bed.names(SPOT))
    await asyncio.to_thread(bed.redis.kill)
    await asyncio.to_thread(postgres_server.kill)
    try:
        await bed.step(20)
        async with asyncio.timeout(15):
            await bed.stop()
    finally:
        await asyncio.to_thread(postgres_server.start)
        await asyncio.to_thread(bed.redis.start)
    assert member.task.exception() is None
    bed.member("r1")
    await bed.listened(*bed.names(SPOT))
    await bed.equal()
