"""Each link of the chain of limits (docs/limits.md) at its bound, with small bounds and real parts: events stream, raw
stream, spill, memory; Redis that refuses; PostgreSQL that is read-only, or locked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio
from redis.exceptions import OutOfMemoryError

VENUE = "binance/Spot"
CHANNELS = ("Trades", "Ticker")
pytestmark = pytest.mark.slow


@pytest.fixture
def small(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers with little memory and spill."""
    names = kit.manifest.__globals__
    assert "receiver: {{" in names["_FEED"]
    feed = names["_FEED"].replace("receiver: {{", "receiver: {{memory: 2Mi, spill: {{size: 4Mi}}, ")
    monkeypatch.setitem(names, "_FEED", feed)


@asynccontextmanager
async def redis_of(bed: Any) -> AsyncIterator[Any]:
    client: Any = redis_asyncio.Redis.from_url(bed.redis.url)
    try:
        yield client
    finally:
        await client.aclose()


async def seen(kit: Any, bed: Any, role: str, holds: Callable[[dict[str, Any]], Any], timeout: float = 120.0) -> Any:
    """Until the health of the one service of a role is so."""

    async def now() -> Any:
        (document,) = await bed.health(role)
        return document is not None and holds(document)

    try:
        return await kit.until(now, timeout)
    except TimeoutError:
        pytest.fail(f"{role}: {await bed.health(role)}\n{bed.trouble()}")


@pytest.mark.usefixtures("small")
async def test_the_whole_chain_fills_and_drains(start_bed: Any, kit: Any) -> None:
    bed = await start_bed(VENUE, rate=3000.0, channels=CHANNELS)
    await bed.until_emitted(3000)
    async with redis_of(bed) as client:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + (8 << 20))
        connects = await bed.connects(VENUE)
        bed.postgres.kill()
        await seen(kit, bed, "distributor", lambda told: "processors are behind" in told["dispatch"]["heldBack"])
        await seen(kit, bed, "receiver", lambda told: told["redis"]["held"] and told["spill"]["unsentBytes"])
        await seen(kit, bed, "receiver", lambda told: told["spill"]["state"] == "full")
        await seen(kit, bed, "receiver", lambda told: told["spill"]["shedFrames"] > 1000)
        told = await seen(kit, bed, "receiver", lambda told: told["ready"] and told)
        assert told["session"]["peakBytes"] <= told["session"]["budgetBytes"]
        # What clients are sending stands in Redis's memory too, until it is refused.
        assert (await client.info("memory"))["used_memory"] < used + (9 << 20)
        bed.postgres.start()
        await bed.until_emitted(3000)
        # A slow machine may need its spill again and again as long as so much comes. But the flow must not end within
        # what is shed: a gap of quotes ends with the next one.
        await seen(kit, bed, "receiver", lambda told: told["ready"] and told["spill"]["bytes"] < 2 << 20, 240.0)
        report = await bed.repaired()
        await seen(kit, bed, "receiver", lambda told: told["spill"]["state"] == "idle" and not told["spill"]["bytes"])
    assert report.ok, bed.explain(report)
    assert await bed.connects(VENUE) == connects, "no connection was closed for it"
    causes = await bed.rows("SELECT DISTINCT cause FROM gaps")
    assert [gap["cause"] for gap in causes] == ["shed"]
    assert await bed.rows("SELECT 1 FROM gaps WHERE channel = 'Ticker' LIMIT 1")


async def test_redis_that_refuses_is_drained_all_the_same(start_bed: Any, kit: Any) -> None:
    """maxmemory below what it uses: every write that is not allowed beyond it fails, and commits go on."""
    bed = await start_bed(VENUE, rate=2000.0, channels=CHANNELS)
    await bed.until_emitted(3000)
    async with redis_of(bed) as client:

        async def used() -> int:
            return int((await client.info("memory"))["used_memory"])

        async def grown() -> bool:
            return await used() > before + (4 << 20)

        # What is in Redis and not stored yet must be drained beyond maxmemory.
        before = await used()
        bed.postgres.kill()
        await kit.until(grown, 120)
        await client.config_set("maxmemory", before + (2 << 20))
        with pytest.raises(OutOfMemoryError):
            await client.set("ballast", "x")
        await seen(kit, bed, "receiver", lambda told: told["spill"]["unsentBytes"] > 0)
        bed.postgres.start()
        await bed.until_emitted(2000)
        # Only taking out can help now. As long as so much comes a slow machine may need its spill again and again.
        await bed.simulation.end_of_flow()
        await seen(kit, bed, "receiver", lambda told: told["spill"]["state"] == "idle" and not told["spill"]["bytes"])

        async def fits() -> bool:
            return await used() < before + (2 << 20)

        await kit.until(fits)  # The last of it was let in at the limit, and may still be on its way through.
        await client.config_set("maxmemory", 0)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert not await bed.rows("SELECT id, cause FROM gaps")


@asynccontextmanager
async def read_only(bed: Any) -> AsyncIterator[None]:
    """As after a failover that left the URL on a standby."""
    admin = await asyncpg.connect(bed.postgres.url_for("postgres"))
    name = bed.database_url.rpartition("/")[2].partition("?")[0]
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
    try:
        await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await admin.execute(others, name)
        yield
        await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await admin.execute(others, name)
    finally:
        await admin.close()


@asynccontextmanager
async def locked(bed: Any) -> AsyncIterator[None]:
    connection = await asyncpg.connect(bed.database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("trouble", "told_of", "remedy"),
    [
        (read_only, "read-only", "the primary"),
        (locked, "", ""),
    ],
    ids=["read-only", "locked"],
)
async def test_postgres_that_does_not_serve(
    start_bed: Any, kit: Any, trouble: Callable[[Any], AbstractAsyncContextManager[None]], told_of: str, remedy: str
) -> None:
    bed = await start_bed(VENUE, rate=1000.0, channels=CHANNELS)
    await bed.until_emitted(2000)
    async with trouble(bed):
        await bed.until_emitted(3000)
        if told_of:
            await seen(
                kit, bed, "processor",
                lambda told: told["postgres"]["reachable"] is False and told_of in told["postgres"]["lastError"]
                and remedy in told["postgres"]["remedy"],
            )  # fmt: skip
        else:
            await seen(kit, bed, "processor", lambda told: (told["lag"].get("seconds") or 0) > 1)
    await bed.until_emitted(2000)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert not await bed.rows("SELECT id, cause FROM gaps")
    assert not await bed.rows("SELECT 1 FROM dead_letters")
