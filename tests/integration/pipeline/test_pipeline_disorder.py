"""What an exchange may do wrong to single messages: each costs what it must, and nothing else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")


def trade_ids(detail: str) -> list[int]:
    """Numbers of the trades in a message as the ledger's faults show it."""
    message = json.loads(detail.replace("\\\\", "\\"))
    if isinstance(message, list):
        return [trade["trade_seq"] for trade in message]
    return [message["a"] if message["e"] == "aggTrade" else message["t"]]


async def book_is_whole(bed: Any, kit: Any, symbol: str, since_ns: int) -> None:
    """Until the book is sampled again: it is rebuilt by what comes, and after the flow's end nothing does."""
    statement = """SELECT 1 FROM book_snapshots JOIN instruments i ON i.id = instrument_id
                   WHERE symbol = $1 AND receive_ns > $2 LIMIT 1"""
    await kit.until(lambda: bed.rows(statement, symbol, since_ns))


@pytest.mark.parametrize("venue", VENUES)
async def test_dropped_doubled_swapped_and_unreadable_messages(start_bed: Any, kit: Any, venue: str) -> None:
    bed = await start_bed(venue, rate=600)
    first, second = kit.symbols[venue][:2]
    await bed.until_emitted(600)
    assert await bed.fault(venue, kind="drop", symbol=first, channel="Trades") == 1
    assert await bed.fault(venue, kind="bad_bytes", symbol=first, channel="Ticker") == 1
    for channel in ("Trades", "Ticker", "Book"):
        assert await bed.fault(venue, kind="double", symbol=second, channel=channel) == 1
        assert await bed.fault(venue, kind="swap", symbol=second, channel=channel) == 1
    await bed.faults_done(venue, 8)
    await bed.until_emitted(1200)
    await book_is_whole(bed, kit, second, time.time_ns())
    report = await bed.repaired()
    assert report.ok, bed.explain(report)
    (found,) = report.venues

    # The dropped message: one gap row, of exactly its numbers, which were asked for then.
    (dropped,) = [row for row in bed.fault_rows(venue) if row[1] == "drop"]
    numbers = trade_ids(dropped[4])
    rows = await bed.rows(
        """SELECT symbol, cause, from_seq, to_seq, missing, repaired_by
           FROM gaps JOIN instruments i ON i.id = instrument_id WHERE channel = 'Trades'"""
    )
    assert [row["symbol"] for row in rows] == [first], bed.explain(report)
    assert rows[0]["cause"] == "sequence"
    assert (rows[0]["from_seq"], rows[0]["to_seq"]) == (numbers[0], numbers[-1])
    assert not list(rows[0]["missing"])
    assert rows[0]["repaired_by"].startswith("backfill:")
    assert found.trades.in_gaps == 0
    assert found.trades.stored == found.trades.emitted

    # The unreadable one: one dead letter, kept as it came; the doubled and swapped ones: no trace.
    (letter,) = await bed.rows("SELECT reason, detail, payload, code_version FROM dead_letters")
    (bad,) = [row for row in bed.fault_rows(venue) if row[1] == "bad_bytes"]
    assert bad[4].encode() in bytes(letter["payload"])
    assert letter["reason"]
    assert letter["detail"]
    assert found.tickers.in_gaps == 0
    # A swapped book update breaks the chain of that one instrument, which is rebuilt: the gap row says so.
    books = await bed.rows(
        """SELECT symbol, state, repaired_by FROM gaps JOIN instruments i ON i.id = instrument_id
           WHERE channel = 'Book'"""
    )
    assert {row["symbol"] for row in books} <= {second}, bed.explain(report)
    assert all(row["state"] == "closed" and row["repaired_by"] for row in books), books


@pytest.mark.parametrize("variant", ["cut", "json", "utf8"])
async def test_every_kind_of_bad_bytes_is_one_dead_letter(start_bed: Any, kit: Any, variant: str) -> None:
    bed = await start_bed("binance/Spot", rate=400)
    # A topic begins at the tick after its subscription, and a fault hits those that have begun.
    await bed.until_emitted(100)
    for channel in ("Trades", "Ticker", "Book"):
        assert await bed.fault("binance/Spot", kind="bad_bytes", symbol="BTC-USDT", channel=channel, variant=variant)
    await bed.faults_done("binance/Spot", 3)
    await bed.until_emitted(400)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    (found,) = report.venues
    assert found.dead_letters == 3, bed.explain(report)
    assert found.causes == {}, bed.explain(report)
