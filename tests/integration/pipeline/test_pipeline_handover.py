"""Connections that are replaced, new before old: nothing is missing, nothing twice, and there is no gap row at all."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow
VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")


async def assert_no_gap(bed: Any) -> None:
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    rows = await bed.rows("SELECT id, cause, state, from_seq, to_seq, missing FROM gaps")
    assert rows == [], bed.explain(report)
    for venue in report.venues:
        assert venue.dead_letters == 0


async def test_planned_renewals_cost_nothing_at_any_venue(start_bed: Any, kit: Any) -> None:
    bed = await start_bed(*VENUES, rate=600, lifetime="4s")
    before = {venue: await bed.connects(venue) for venue in VENUES}

    async def renewed() -> bool:
        return all([await bed.connects(venue) >= before[venue] + 6 for venue in VENUES])

    await kit.until(renewed, timeout=90.0)
    await assert_no_gap(bed)
