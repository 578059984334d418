"""Trades that no receiver saw are asked for by REST: the gap is told first, then closed, and nothing is missing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
PATH = {
    "binance/Spot": "historicalTrades",
    "binance/UsdM": "aggTrades",
    "deribit/Derivatives": "get_last_trades_by_instrument",
}
GAPS = "SELECT id, cause, state, repaired_by, revision, missing FROM gaps WHERE channel = 'Trades' ORDER BY id"
OPEN = "SELECT id FROM gaps WHERE channel = 'Trades' AND state = 'open'"


async def lose_connections(bed: Any, venue: str, messages: int) -> None:
    """All connections are aborted, and none is made until the exchange has sent so many messages more."""
    before = await bed.connects(venue)
    await bed.fault(venue, kind="close", every="subscribe")
    await bed.fault(venue, kind="abort")
    await bed.until_emitted(messages)
    await bed.fault(venue, kind="clear")
    await bed.until_connected(venue, before)


def nothing_is_missing(bed: Any, report: Any) -> None:
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        assert venue.trades.emitted > 0
        assert venue.trades.stored == venue.trades.emitted, bed.explain(report)
        assert venue.trades.in_gaps == 0
        assert venue.dead_letters == 0


async def all_by_backfill(bed: Any) -> None:
    rows = await bed.rows(GAPS)
    assert rows
    for row in rows:
        assert row["state"] == "closed", row
        assert row["repaired_by"].startswith("backfill:"), row
        assert row["revision"] >= 2, row  # It was told open first.


async def incomplete(bed: Any) -> list[str]:
    """1m candles between the first and the last two of each instrument that are not complete."""
    rows = await bed.rows(
        """SELECT i.symbol, c.open_time FROM candles c JOIN instruments i ON i.id = c.instrument_id
           WHERE c.interval = '1m' AND NOT c.complete AND c.open_time > (
             SELECT min(open_time) FROM candles f WHERE f.instrument_id = c.instrument_id AND f.interval = '1m')
           AND EXISTS (SELECT 1 FROM trades t WHERE t.instrument_id = c.instrument_id
             AND t.time >= c.open_time + interval '1 minute')"""
    )
    return [f"{row['symbol']} {row['open_time']}" for row in rows]


@pytest.mark.parametrize("venue", VENUES)
async def test_an_aborted_connection_is_backfilled(start_bed: Any, venue: str) -> None:
    bed = await start_bed(venue, rate=600)
    await bed.until_emitted(1200)
    await lose_connections(bed, venue, 1500)
    await bed.until_emitted(1200)
    report = await bed.repaired()
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)


async def test_candles_of_a_repaired_minute_are_complete(start_bed: Any) -> None:
    bed = await start_bed("binance/Spot", rate=300, channels=("Trades", "Candles"))
    await bed.until_emitted(300)
    await lose_connections(bed, "binance/Spot", 600)
    await bed.until_emitted(300 * 130, timeout=200)  # Over two minutes' ends, whenever it began.
    report = await bed.repaired()
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)

    async def complete() -> bool:
        return not await incomplete(bed)

    async with asyncio.timeout(30):
        while not await complete():
            await asyncio.sleep(0.2)
    report = await bed.compare()
    assert report.ok, bed.explain(report)
    assert report.venues[0].candles.complete >= 3


@pytest.mark.parametrize(("venue", "kind"), [("binance/Spot", "rest_429"), ("deribit/Derivatives", "rest_500")])
async def test_a_venue_that_refuses_for_a_while_is_asked_again(start_bed: Any, kit: Any, venue: str, kind: str) -> None:
    bed = await start_bed(venue, rate=600)
    await bed.until_emitted(1200)
    await bed.fault(venue, kind=kind, path=PATH[venue], seconds=1)
    before = await bed.connects(venue)
    await bed.fault(venue, kind="abort")
    await bed.until_connected(venue, before)

    async def refused() -> bool:
        return len([row for row in bed.fault_rows(venue) if row[1] == kind]) >= 3

    await kit.until(refused, 60)
    assert await bed.rows(OPEN)
    await bed.fault(venue, kind="clear")
    report = await bed.repaired(120)
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)


@pytest.mark.parametrize("venue", ["binance/Spot", "binance/UsdM"])
async def test_what_the_venue_no_longer_offers_stays_an_open_gap(start_bed: Any, kit: Any, venue: str) -> None:
    bed = await start_bed(venue, rate=600, channels=("Trades",), arguments=["--history", "400"])
    await bed.until_emitted(600)
    before = await bed.connects(venue)
    receiver = bed.service("receiver")
    os.kill(receiver.pid, signal.SIGSTOP)
    try:
        await bed.fault(venue, kind="abort")
        await bed.until_emitted(3 * 1000)
    finally:
        os.kill(receiver.pid, signal.SIGCONT)
    await bed.until_connected(venue, before)
    report = await bed.settled()
    log = bed.folder / "logs"

    def said() -> list[dict[str, Any]]:
        lines = [line for path in log.glob("*distributor*.log") for line in path.read_text().splitlines()]
        return [document for line in lines if (document := json.loads(line)).get("event") == "gap.not_offered"]

    instruments = len(kit.symbols[venue])
    await kit.until(lambda: len(said()) >= instruments, 60)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    flow = report.venues[0].trades
    assert 0 < flow.in_gaps < 3 * 1000, bed.explain(report)
    assert len(said()) == instruments
    rows = await bed.rows(GAPS)
    assert [row["state"] for row in rows] == ["open"] * instruments
    assert sum(entry["trades"] for entry in said()) == flow.in_gaps


async def test_a_shard_without_any_receiver_for_a_while_is_backfilled(start_bed: Any, kit: Any) -> None:
    """What lies between is known only by the first trade after it."""
    bed = await start_bed("binance/Spot", "deribit/Derivatives", rate=600, channels=("Trades",))
    await bed.until_emitted(1200)
    for venue in ("binance/Spot", "deribit/Derivatives"):
        await bed.kill("receiver", venue)
    await bed.until_flowing()
    await bed.until_emitted(1200)
    report = await bed.repaired()
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)


@pytest.mark.parametrize("what", ["services", "redis"])
async def test_kills_while_it_is_repaired_cost_nothing(start_bed: Any, what: str) -> None:
    """Whoever dies with what was asked for: it is asked for again."""
    venue = "binance/Spot"
    bed = await start_bed(venue, rate=600, channels=("Trades",))
    await bed.until_emitted(600)
    await bed.fault(venue, kind="latency", path=PATH[venue], seconds=2)
    await lose_connections(bed, venue, 600)
    if what == "redis":
        await asyncio.to_thread(bed.redis.kill)
        await asyncio.to_thread(bed.redis.start)
    else:
        for role in ("distributor", "receiver", "processor"):
            await bed.kill(role)
    await bed.until_flowing()
    await bed.until_emitted(600)
    await bed.fault(venue, kind="clear")
    report = await bed.repaired(120)
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)
