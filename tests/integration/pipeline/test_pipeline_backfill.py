"""Trades that no receiver saw are asked for by REST: the gap is told first, then closed, and nothing is missing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

pytestmark = pytest.mark.slow
VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
PATH = {
    "binance/Spot": "historicalTrades",
    "binance/UsdM": "aggTrades",
    "deribit/Derivatives": "get_last_trades_by_instrument",
}
GAPS = "SELECT id, cause, state, repaired_by, revision, missing FROM gaps WHERE channel = 'Trades' ORDER BY id"
OPEN = "SELECT id FROM gaps WHERE channel = 'Trades' AND state = 'open'"


async def lose_connections(bed: Any, venue: str, messages: int, latency: float = 0.0) -> None:
    """All connections are aborted, and none is made until the exchange has sent so many messages more.

    ``latency``: seconds that what is asked for to fill the gap takes from then on.
    """
    before = await bed.connects(venue)
    await bed.fault(venue, kind="close", every="subscribe")
    await bed.fault(venue, kind="abort")
    await bed.until_emitted(messages)
    await bed.fault(venue, kind="clear")
    if latency:
        await bed.fault(venue, kind="latency", path=PATH[venue], seconds=latency)
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


class Minute:
    """A candle, as the exchange's ledger has its trades."""

    def __init__(self) -> None:
        self.prices: list[Decimal] = []
        self.volume = Decimal(0)
        self.ids: list[int] = []

    @property
    def values(self) -> tuple[Any, ...]:
        prices = self.prices
        ends = min(self.ids), max(self.ids)
        return prices[0], max(prices), min(prices), prices[-1], self.volume, len(prices), *ends


def minutes_of(bed: Any, venue: str) -> dict[tuple[str, datetime], Minute]:
    """By symbol and beginning. Trades stand in the ledger in the order of their numbers."""
    found: dict[tuple[str, datetime], Minute] = defaultdict(Minute)
    path = bed.folder / "ledger" / f"{venue.replace('/', '-')}.trades.tsv"
    for line in path.read_text("utf-8").splitlines():
        symbol, number, price, size, _, at = line.split("\t")[:6]
        begin = datetime.fromtimestamp(int(at) // 60_000_000_000 * 60, UTC)
        minute = found[symbol, begin]
        minute.prices.append(Decimal(price))
        minute.volume += Decimal(size)
        minute.ids.append(int(number))
    return found


async def next_minute() -> None:
    """By the clock: a busy machine emits less in a minute than it should."""
    end = time.time() // 60 * 60 + 60
    while (left := end - time.time()) > 0:
        await asyncio.sleep(left)


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
    # The first minute is never complete: the gap lies in the second one, whenever it began.
    await bed.until_emitted(300)
    await next_minute()
    await bed.until_emitted(300)
    await lose_connections(bed, "binance/Spot", 600)
    await next_minute()
    await bed.until_emitted(600)
    report = await bed.repaired()
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)

    async def complete() -> bool:
        return not await incomplete(bed)

    async with asyncio.timeout(90):
        while not await complete():
            await asyncio.sleep(0.2)
    report = await bed.compare()
    assert report.ok, bed.explain(report)
    # The candles over each gap, one by one: complete, and what the exchange's own trades make.
    ledger = minutes_of(bed, "binance/Spot")
    stored = await bed.rows(
        """SELECT i.symbol, c.* FROM candles c JOIN instruments i ON i.id = c.instrument_id
           WHERE c.interval = '1m' AND EXISTS (SELECT 1 FROM gaps g WHERE g.channel = 'Trades'
             AND g.instrument_id = i.id AND g.from_seq <= c.last_id AND g.to_seq >= c.first_id)"""
    )
    assert {row["symbol"] for row in stored} == {symbol for symbol, _ in ledger}
    for row in stored:
        names = ("open", "high", "low", "close", "volume", "trades", "first_id", "last_id")
        assert row["complete"], row
        assert tuple(row[name] for name in names) == ledger[row["symbol"], row["open_time"]].values, row


@pytest.mark.parametrize(("venue", "kind"), [("binance/Spot", "rest_429"), ("deribit/Derivatives", "rest_500")])
async def test_a_venue_that_refuses_for_a_while_is_asked_again(start_bed: Any, kit: Any, venue: str, kind: str) -> None:
    bed = await start_bed(venue, rate=600)
    await bed.until_emitted(1200)
    await bed.fault(venue, kind=kind, path=PATH[venue], seconds=1)
    before = await bed.connects(venue)
    # The first pause may be shorter than that between two trades, and then none would be lost.
    await bed.fault(venue, kind="close", every="subscribe", count=2)
    await bed.fault(venue, kind="abort")
    await bed.until_connected(venue, before)

    async def refused() -> bool:
        return len([row for row in bed.fault_rows(venue) if row[1] == kind]) >= 3

    await kit.until(refused, 60)
    await kit.until(lambda: bed.rows(OPEN))  # It is told before it is asked for, and stored a moment later.
    await bed.fault(venue, kind="clear")
    report = await bed.repaired(120)
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)


@pytest.mark.parametrize("venue", ["binance/Spot", "binance/UsdM"])
async def test_what_the_venue_no_longer_offers_stays_an_open_gap(start_bed: Any, kit: Any, venue: str) -> None:
    # Of each instrument for five seconds at least: who is slower than that to ask finds nothing offered.
    bed = await start_bed(venue, rate=600, channels=("Trades",), arguments=["--history", "1500"])
    await bed.until_emitted(600)
    before = await bed.connects(venue)
    receiver = bed.service("receiver")
    os.kill(receiver.pid, signal.SIGSTOP)
    try:
        await bed.fault(venue, kind="abort")
        await bed.until_emitted(3 * 2000)
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
    # How many were lost depends on how soon it was connected again; what is offered of them was fetched.
    (lost,) = await bed.rows("SELECT sum(to_seq - from_seq + 1) AS trades FROM gaps WHERE channel = 'Trades'")
    assert 0 < flow.in_gaps < lost["trades"], bed.explain(report)
    assert len(said()) == instruments
    rows = await bed.rows(GAPS)
    assert [row["state"] for row in rows] == ["open"] * instruments
    assert sum(entry["trades"] for entry in said()) == flow.in_gaps


async def test_a_gap_of_many_pages_is_filled_within_the_weight_of_the_venue(start_bed: Any, kit: Any) -> None:
    """Books resync at the same time; nothing is answered 429, and neither keeps the other waiting for long."""
    venue = "binance/Spot"
    bed = await start_bed(venue, rate=4000, arguments=["--mix", "trades=8,ticker=1,book=1"])
    await bed.until_emitted(4000)
    await lose_connections(bed, venue, 32_000)
    report = await bed.repaired(150)
    nothing_is_missing(bed, report)
    await all_by_backfill(bed)
    (missed,) = await bed.rows("SELECT sum(to_seq - from_seq + 1) AS trades FROM gaps WHERE channel = 'Trades'")
    assert missed["trades"] > 10_000
    stats = (await bed.stats())[venue]
    assert stats["rest_limited"] == {}, stats


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
    await lose_connections(bed, venue, 600, latency=2.0)
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
