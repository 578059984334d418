"""An exchange that ends connections: connects stay within the budget, and what was missed is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow
VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
STORM_SECONDS = 12.0
MOST_CONNECTS = 30
"""A connection that is closed at once is tried with full jitter under a bound that doubles: a handful in that time."""


async def test_a_close_after_every_subscribe_makes_no_storm(start_bed: Any) -> None:
    bed = await start_bed(*VENUES, rate=300, backoff="10s")
    before = await bed.stats()
    for venue in VENUES:
        await bed.fault(venue, kind="close", every="subscribe")
        assert await bed.fault(venue, kind="close") >= 1
    began = time.monotonic()
    await bed.until_emitted(int(3 * 300 * STORM_SECONDS))
    after = await bed.stats()
    for venue in VENUES:
        connects = after[venue]["connects"]
        assert connects.get("refused", 0) == 0
        made = connects["accepted"] - before[venue]["connects"]["accepted"]
        assert 1 <= made <= MOST_CONNECTS * (time.monotonic() - began) / STORM_SECONDS, (venue, connects)
        await bed.fault(venue, kind="clear")
    await bed.until_flowing(timeout=90)
    await bed.until_emitted(1000)
    report = await bed.repaired()
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        assert venue.trades.gap_rows > 0
        assert venue.trades.in_gaps == 0
        assert venue.tickers.in_gaps > 0
        assert venue.dead_letters == 0


@pytest.mark.parametrize("kind", ["abort", "cut"])
async def test_an_ended_connection_is_one_gap_a_channel(start_bed: Any, kit: Any, kind: str) -> None:
    bed = await start_bed("binance/Spot", rate=600)
    await bed.until_emitted(600)
    before = await bed.connects("binance/Spot")
    await bed.fault("binance/Spot", kind=kind)
    await bed.until_emitted(100)
    await bed.until_connected("binance/Spot", before)
    await bed.until_emitted(1200)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    (venue,) = report.venues
    assert venue.causes.get("Ticker disconnected", 0) == len(kit.symbols["binance/Spot"]), bed.explain(report)
