"""Redis away longer than memory lasts, and the receiver killed meanwhile: judged by the exchange's ledger."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

VENUES = ("binance/Spot", "deribit/Derivatives")
WRITTEN = 1 << 20
"""Bytes; more than 1000 trades with all that comes between them."""


def segments(folder: Path) -> int:
    """Bytes."""
    found = 0
    for path in (folder / "spill").rglob("*.spill"):
        with contextlib.suppress(FileNotFoundError):  # Deleted since it was listed.
            found += path.stat().st_size
    return found


async def test_redis_away_costs_nothing(start_bed: Any, kit: Any) -> None:
    bed = await start_bed(*VENUES, rate=2000.0)
    await bed.until_emitted(3000)
    connects = {venue: await bed.connects(venue) for venue in VENUES}
    bed.redis.kill()
    await bed.until_emitted(30_000)
    await kit.until(lambda: segments(bed.folder) > 0)
    bed.redis.start()
    await bed.until_emitted(3000)
    report = await bed.settled()
    await kit.until(lambda: segments(bed.folder) == 0)  # While so much comes a slow machine may always need some.
    assert report.ok, bed.explain(report)
    assert {venue: await bed.connects(venue) for venue in VENUES} == connects
    gaps = await bed.rows("SELECT id, cause, missing, from_seq, to_seq FROM gaps")
    assert not gaps, gaps


async def test_receiver_killed_while_redis_is_away(start_bed: Any, kit: Any) -> None:
    """What was on disk is stored; what passed while nobody was connected is a gap of that length, and nothing else."""
    bed = await start_bed(*VENUES, rate=2000.0)
    await bed.until_emitted(3000)
    bed.redis.kill()
    await kit.until(lambda: segments(bed.folder) > 0)
    began, before_it = time.time_ns(), segments(bed.folder)
    await bed.until_emitted(15_000)
    # What is in memory only dies with them: most of it is on the disk, however late that was.
    await kit.until(lambda: segments(bed.folder) > before_it + WRITTEN)
    killed = time.time_ns()
    for venue in VENUES:
        before = await bed.connects(venue)
        await bed.kill("receiver", venue)
        await bed.until_connected(venue, before)
    await bed.until_emitted(10_000)
    bed.redis.start()
    await bed.until_emitted(3000)
    report = await bed.settled()
    await kit.until(lambda: segments(bed.folder) == 0)
    assert report.ok, bed.explain(report)
    gaps = await bed.rows("SELECT DISTINCT cause FROM gaps")
    assert [gap["cause"] for gap in gaps] == ["killed"]
    # Nobody but the killed ones had these.
    statement = "SELECT count(*) AS n FROM trades WHERE receive_ns BETWEEN $1 AND $2"
    assert (await bed.rows(statement, began, killed))[0]["n"] > 1000
