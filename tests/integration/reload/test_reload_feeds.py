"""A processor whose pipeline gets a feed and loses one, and its maintenance."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio

from feedmill.general.maintenance.report import Report
from feedmill.general.maintenance.settings import Settings
from feedmill.general.maintenance.streams import Cleaner
from feedmill.shared.clock import now_ns
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_feeds_come_and_go(start_bed: Any, kit: Any) -> None:
    one = kit.Wanted("binance/Spot", ["BTC-USDT"])
    two = kit.Wanted("binance/UsdM", ["BTC-USDT"], name="two")
    bed = await start_bed(one, two)
    processor = bed.services["processor"].process
    # Without the second: what is read of it is stored, its lease let go.
    both = list(bed.feeds)
    await bed.until_emitted(1000)
    await bed.services["receiver-two"].stop()

    async def dispatched() -> bool:
        """What the distributor, which goes on, makes events of later is nothing the processor was to wait for."""
        return bool((await bed.where())[1].raw_drained)

    await kit.until(dispatched)
    bed.feeds[:] = [one]
    await bed.take_up("processor", "receiver-one", "distributor-one")

    async def left() -> bool:
        document = await bed.health("processor")
        return set(document["shards"]) == {"default.one.0"} and document["leases"]["held"] == 1

    await kit.until(left)
    found = await bed.where()
    assert found[1].raw_drained
    assert found[1].events_drained
    await bed.until_emitted(500)
    # And with it again.
    bed.feeds[:] = both
    await bed.take_up("processor", "receiver-one", "distributor-one", "distributor-two")
    await bed.services["receiver-two"].start()
    await bed.until_flowing()
    await bed.until_emitted(1500)

    async def both_held() -> bool:
        document = await bed.health("processor")
        return set(document["shards"]) == {"default.one.0", "default.two.0"} and document["leases"]["held"] == 2

    await kit.until(both_held)
    assert bed.services["processor"].process is processor
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    spot = next(item for item in report.venues if item.venue == "binance/Spot")
    assert spot.trades.emitted == spot.trades.stored
    assert spot.tickers.emitted == spot.tickers.stored
    for venue in report.venues:
        assert venue.trades.lost == venue.trades.doubled == venue.tickers.lost == venue.tickers.doubled == 0


async def test_candle_intervals_and_retention_follow(start_bed: Any, kit: Any) -> None:
    feed = kit.Wanted("binance/Spot", ["BTC-USDT"], ["Trades"])
    bed = await start_bed(feed)
    bed.pipeline += "  candles: {intervals: [1m]}\n"
    await bed.take_up()
    await bed.until_emitted(300)
    bed.pipeline = bed.pipeline.replace("[1m]", "[1m, 3m]") + "  retention: {trades: 90d}\n"
    await bed.take_up()
    await bed.until_emitted(300)

    async def made() -> bool:
        return {row[0] for row in await bed.rows("SELECT DISTINCT interval FROM candles")} >= {"1m", "3m"}

    await kit.until(made)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert report.venues[0].trades.emitted == report.venues[0].trades.stored


async def test_streams_of_a_feed_that_is_gone_are_removed_and_it_may_begin_anew(start_bed: Any, kit: Any) -> None:
    one, two = kit.Wanted("binance/Spot", ["BTC-USDT"]), kit.Wanted("binance/UsdM", ["BTC-USDT"], name="two")
    bed = await start_bed(one, two)
    redis_url = RedisUrl.parse(bed.redis.url)

    async def maintained(*feeds: str) -> Report:
        """By what the services of a feed leave, as if it were long ago."""
        settings = Settings(("default", "main"), {}, 0, 0, {("default", name): 1 for name in feeds}, gone_for_ns=0)
        report = Report()
        wire = await connect(redis_url, name="test")
        connection = await asyncpg.connect(bed.database_url)
        try:
            await Cleaner(wire, connection, settings, now_ns(), report).run()
        finally:
            await connection.close()
            wire.abort()
        return report

    async def stored() -> int:
        rows = await bed.rows(
            "SELECT count(*) FROM trades t JOIN instruments i ON i.id = t.instrument_id AND i.market = 'UsdM'"
        )
        return int(rows[0][0])

    await bed.until_emitted(1000)
    await kit.until(stored)  # Its processes may be slower to begin than the receiver.
    assert (await maintained("one", "two")).removed == {}
    # While its processes work it is left alone, whatever the list says.
    report = await maintained("one")
    assert (report.removed, report.kept) == ({}, {})
    both = list(bed.feeds)
    await bed.services["receiver-two"].stop()

    async def drained() -> bool:
        found = (await bed.where())[1]
        return bool(found.captured and found.raw_drained and found.events_drained)

    await kit.until(drained)
    bed.feeds[:] = [one]
    await bed.services["distributor-two"].stop()
    await bed.take_up("processor", "receiver-one", "distributor-one")

    async def gone() -> bool:
        return "default/two" in (await maintained("one")).removed

    await kit.until(gone)  # The processor lets go of it soon.
    client: Any = redis_asyncio.Redis.from_url(bed.redis.url)
    try:
        assert await client.keys("fm:{default.two*") == []
        assert await client.exists("fm:{default.one.0}:checkpoint")
    finally:
        await client.aclose()
    assert [row[0] for row in await bed.rows("SELECT shard FROM applied ORDER BY 1")] == ["default.one.0"]
    before = await stored()
    assert before > 0
    # It comes back as a feed that is new: nothing of it is called lost, and what was stored is not doubled.
    bed.feeds[:] = both
    await bed.take_up("processor", "receiver-one", "distributor-one")
    for name in ("distributor-two", "receiver-two"):
        await bed.services[name].start()
    await bed.until_flowing()

    async def grows() -> bool:
        return await stored() > before

    await kit.until(grows)
    assert await bed.rows("SELECT id FROM gaps WHERE cause = 'redis_lost'") == []
    for service in bed.services.values():
        assert service.logged("stream.reread") == []


async def test_maintenance_runs_once(start_bed: Any, kit: Any) -> None:
    bed = await start_bed(kit.Wanted("binance/Spot", ["BTC-USDT"], ["Trades"]))
    done = await bed.start("maintenance", "maintenance", "--pipeline", "default/main", "--once")
    assert await done.process.wait() == 0
    (line,) = done.logged("maintenance.done")
    assert line["made"] or await bed.rows("SELECT 1 FROM pg_inherits LIMIT 1")
    bed.secrets.write(postgres="postgresql://nobody:wrong-password@127.0.0.1:1/none")
    failed = await bed.start("maintenance-2", "maintenance", "--pipeline", "default/main", "--once")
    assert await failed.process.wait() == 1
    (line,) = failed.logged("service.failed")
    assert "ConnectionRefusedError" in line["exception"]
    assert "wrong-password" not in failed.log_file.read_text()
