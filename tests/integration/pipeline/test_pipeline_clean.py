"""From a socket to a committed row, nothing broken: the database equals the ledger."""

from __future__ import annotations

from typing import Any

VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")


async def test_three_venues_all_channels(start_bed: Any) -> None:
    bed = await start_bed(*VENUES, rate=500)
    await bed.until_emitted(6000)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert [venue.venue for venue in report.venues] == sorted(VENUES)
    for venue in report.venues:
        for flow in (venue.trades, venue.tickers):
            assert flow.emitted == flow.stored > 0, bed.explain(report)
        assert venue.causes == {}, bed.explain(report)
        assert venue.dead_letters == 0
        assert venue.books.checked > 0
        assert venue.candles.stored > 0
    # What stands beside the events: metadata of every instrument, and times that make sense.
    listed = await bed.rows("SELECT symbol, tick FROM instruments JOIN instrument_versions ON instrument_id = id")
    assert len(listed) == 7
    assert all(row["tick"] > 0 for row in listed)
    assert not await bed.rows("SELECT FROM trades WHERE receive_ns < exchange_ns OR time <> date_trunc('ms', time)")


async def test_a_second_start_goes_on_where_the_first_ended(start_bed: Any) -> None:
    """Stopped in order and started again on the same data: nothing is stored twice, and what came meanwhile is told."""
    bed = await start_bed("binance/Spot", rate=500)
    await bed.until_emitted(1000)
    drained = await bed.manager.stop()
    assert drained.clean, drained.notes
    await bed.until_emitted(200)
    await bed.restart()
    await bed.until_emitted(1000)
    report = await bed.repaired()
    assert report.ok, bed.explain(report)
    (venue,) = report.venues
    assert venue.trades.gap_rows > 0
    assert venue.trades.in_gaps == 0
    assert venue.tickers.in_gaps > 0
    # The venue's candle has a gap too when a minute ended while nothing ran.
    channels = ("Trades", "Ticker", "Book", "Candles")
    assert set(venue.causes) <= {f"{channel} disconnected" for channel in channels}
