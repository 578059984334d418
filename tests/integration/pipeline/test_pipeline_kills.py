"""kill -9 of every part under load: nothing is doubled; nothing is lost but what no receiver was there to see."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

pytestmark = pytest.mark.slow
VENUES = ("binance/Spot", "deribit/Derivatives")
RATE = 1500.0
TAIL = 50_000
"""Bytes that Redis has not fsynced when its power is cut, at least: some of them were acknowledged."""


@pytest.fixture
def dice() -> random.Random:
    """When to kill. The seed is printed with a failure, as it is part of the test."""
    return random.Random(20)


async def test_a_killed_receiver_costs_exactly_what_the_gap_rows_say(start_bed: Any, dice: random.Random) -> None:
    bed = await start_bed(*VENUES, rate=RATE)
    for _ in range(3):
        await bed.until_emitted(dice.randrange(2000, 4000))
        await asyncio.gather(*(bed.kill("receiver", venue) for venue in VENUES))
        await bed.until_flowing()
    await bed.until_emitted(3000)
    report = await bed.repaired()
    # ok = stored and named missing make up what was emitted, and no gap row names what is stored.
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        assert venue.trades.gap_rows > 0
        assert venue.trades.in_gaps == 0
        assert venue.tickers.in_gaps > 0
        assert venue.dead_letters == 0
    await no_stored_ticker_in_a_gap(bed)


async def no_stored_ticker_in_a_gap(bed: Any) -> None:
    """Ticker gaps say 'between these two': what lies inside must not be stored."""
    found = await bed.rows(
        """SELECT g.id, t.seq FROM gaps g JOIN instruments i ON i.id = g.instrument_id
           JOIN tickers t ON t.instrument_id = g.instrument_id
           WHERE g.channel = 'Ticker' AND i.exchange = 'binance' AND t.seq > g.from_seq AND t.seq < g.to_seq LIMIT 5"""
    )
    assert found == []


@pytest.mark.parametrize("role", ["distributor", "processor"])
async def test_a_killed_worker_costs_nothing(start_bed: Any, dice: random.Random, role: str) -> None:
    bed = await start_bed(*VENUES, rate=RATE)
    for _ in range(4):
        await bed.until_emitted(dice.randrange(1500, 4000))
        if role == "processor":
            await bed.kill(role)
        else:
            await asyncio.gather(*(bed.kill(role, venue) for venue in VENUES))
    await bed.until_emitted(3000)
    await equal(bed)


async def equal(bed: Any) -> None:
    """Every message was seen: the database equals the ledger, and there is no gap row."""
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        for flow in (venue.trades, venue.tickers):
            assert flow.emitted == flow.stored, bed.explain(report)
            assert flow.gap_rows == 0, bed.explain(report)
        assert venue.dead_letters == 0
        assert venue.books.checked > 0


async def test_killed_redis_costs_nothing(start_bed: Any, dice: random.Random) -> None:
    bed = await start_bed(*VENUES, rate=RATE)
    for _ in range(3):
        await bed.until_emitted(dice.randrange(2000, 4000))
        await asyncio.to_thread(bed.redis.kill)
        await bed.until_emitted(2000)
        await asyncio.to_thread(bed.redis.start)
    await bed.until_emitted(4000)
    await equal(bed)


async def test_redis_that_forgets_its_unconfirmed_tail_costs_nothing(start_bed: Any, dice: random.Random) -> None:
    """As a power cut does: what was not fsynced is gone, of input, output, checkpoint and positions alike."""
    bed = await start_bed(*VENUES, rate=RATE)
    for _ in range(3):
        await bed.until_emitted(dice.randrange(2000, 4000))
        await cut(bed, dice)
    await bed.until_emitted(4000)
    await equal(bed)
    logs = "".join(path.read_text() for path in (bed.folder / "logs").glob("*receiver*.log"))
    assert "append.rewind" in logs, "the cuts took nothing that was acknowledged"
    assert "session.lost" not in logs


async def cut(bed: Any, dice: random.Random) -> None:
    client = redis_asyncio.Redis.from_url(bed.redis.url)
    try:
        # From here on nothing is fsynced any more, and so nothing confirmed to anybody but what is in the file now.
        await client.config_set("appendfsync", "no")
        safe = aof_size(bed)
        await bed.until_emitted(700)
        while aof_size(bed) < safe + TAIL:  # What was emitted is there a moment later.
            await bed.until_emitted(50)
        await asyncio.to_thread(bed.redis.kill)
    finally:
        await client.aclose()
    part = aof_part(bed)
    data = await asyncio.to_thread(part.read_bytes)
    assert len(data) > safe
    await asyncio.to_thread(part.write_bytes, data[: dice.randrange(safe, len(data))])
    await asyncio.to_thread(bed.redis.start)


def aof_part(bed: Any) -> Any:
    return max(bed.redis.aof_dir.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)


def aof_size(bed: Any) -> int:
    size = aof_part(bed).stat().st_size
    assert isinstance(size, int)
    return size


async def test_killed_postgres_costs_nothing(start_bed: Any, dice: random.Random) -> None:
    bed = await start_bed(*VENUES, rate=RATE)
    for _ in range(3):
        await bed.until_emitted(dice.randrange(2000, 4000))
        await asyncio.to_thread(bed.postgres.kill)
        await bed.until_emitted(2000)
        await asyncio.to_thread(bed.postgres.start)
    await bed.until_emitted(4000)
    await equal(bed)


async def test_everything_is_killed_in_turn(start_bed: Any, dice: random.Random) -> None:
    bed = await start_bed("binance/UsdM", rate=RATE)
    for role in ("processor", "distributor", "redis", "postgres", "distributor", "processor", "redis"):
        await bed.until_emitted(dice.randrange(700, 2500))
        if role in ("redis", "postgres"):
            server = bed.redis if role == "redis" else bed.postgres
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        else:
            await bed.kill(role)
    await bed.until_emitted(2000)
    await equal(bed)


@pytest.mark.parametrize("venue", ["binance/Spot", "binance/UsdM", "deribit/Derivatives"])
async def test_redis_that_loses_everything_leaves_gap_rows(start_bed: Any, venue: str) -> None:
    """Wiped while the processor is behind: what was only in Redis is gone, and must be told."""
    bed = await start_bed(venue, rate=RATE)
    await bed.until_emitted(3000)
    stopped = bed.service("processor").pid
    os.kill(stopped, signal.SIGSTOP)
    try:
        # Longer than receivers hold what the server has confirmed: the last of it they can send again.
        await bed.until_emitted(9000)
        client = redis_asyncio.Redis.from_url(bed.redis.url)
        await client.flushall()
        await client.aclose()
    finally:
        os.kill(stopped, signal.SIGCONT)
    await bed.until_emitted(3000)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert report.venues[0].trades.gap_rows > 0
    # Not only by the row of the whole shard: those of the instruments say exactly what.
    assert len(await bed.rows("DELETE FROM gaps WHERE instrument_id IS NULL RETURNING id")) == 1
    report = await bed.compare()
    assert report.ok, bed.explain(report)
    # The processor asks for the first of them, which shows the distributor the rest.
    report = await bed.repaired(120)
    assert report.ok, bed.explain(report)
    assert report.venues[0].trades.stored == report.venues[0].trades.emitted, bed.explain(report)
