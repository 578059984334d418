"""A processor whose pipeline gets a feed and loses one, and its maintenance."""

from __future__ import annotations

from typing import Any

import pytest

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
    bed.feeds[:] = [one]
    await bed.take_up("processor", "receiver-one", "distributor-one")

    async def left() -> bool:
        document = await bed.health("processor")
        return set(document["shards"]) == {"default.one.0"} and document["leases"]["held"] == 1

    await kit.until(left)
    found = await bed.positions.read()
    assert found[1].raw_drained
    assert found[1].events_drained
    await bed.until_emitted(500)
    # And with it again.
    bed.feeds[:] = both
    await bed.take_up("processor", "receiver-one", "distributor-one", "distributor-two")
    await bed.services["receiver-two"].start()
    await bed.until_flowing()
    await bed.until_emitted(1500)
    document = await bed.health("processor")
    assert document["leases"]["held"] == 2
    assert set(document["shards"]) == {"default.one.0", "default.two.0"}
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
