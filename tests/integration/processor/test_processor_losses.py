"""Commits that are gone are told: for the shard when, for each instrument and channel exactly what."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.processor.losses import MARGIN_NS
from feedmill.processor.settings import ShardSettings, VenueRules
from feedmill.processor.statements import OWN
from feedmill.shared.clock import MS, SECOND, now_ns
from feedmill.shared.events import BookSnapshot, Flag, Gap, Ticker

from .conftest import BASE, REF, SYMBOL, Bench, Distributor, trade

OTHER = "ETH-USDT"
WHAT = """
SELECT id, state, from_seq, to_seq, missing::text FROM gaps WHERE instrument_id IS NOT NULL AND cause = 'redis_lost'
ORDER BY 1
"""
SHARD = """
SELECT id, channel, cause, state, from_seq, to_seq, missing::text FROM gaps WHERE instrument_id IS NULL ORDER BY 1
"""


def ticker(seq: int, at_ns: int | None = None, *, symbol: str = SYMBOL, flags: int = 0) -> Ticker:
    at = BASE + seq * SECOND if at_ns is None else at_ns
    return Ticker(symbol, seq, "1", "1", "2", "2", at, at + MS, flags)


async def wipe(distributor: Distributor) -> None:
    await distributor.client.flushall()
    distributor.n, distributor.id = 0, ""


async def behind(bench: Bench, distributor: Distributor) -> None:
    """Trades 1 to 100 of both instruments and some tickers are stored; a processor that is behind is stopped."""
    await distributor.trades(1, 100, size=10)
    await distributor.trades(1, 100, size=50, symbol=OTHER)
    await distributor.commit(tickers=[ticker(7), ticker(9)])
    run = bench.start()
    await bench.until_stored()
    await run.end()


async def test_a_wiped_server_while_the_processor_is_behind(bench: Bench) -> None:
    distributor = bench.distributor()
    began = now_ns()
    await behind(bench, distributor)
    stored = int(distributor.entries[-1].split("-")[0])
    await distributor.trades(101, 120, size=10)
    await wipe(distributor)
    await distributor.trades(121, 130)
    await distributor.commit(tickers=[ticker(15)])
    bench.start()
    await bench.until_stored()
    assert await bench.fetch(SHARD) == [(f"{REF}/events/14", "events", "redis_lost", "closed", 14, None, "{}")]
    assert await bench.fetch("SELECT from_ns, to_ns FROM gaps WHERE instrument_id IS NULL") == [
        (stored * MS - MARGIN_NS, (int(distributor.entries[-2].split("-")[0]) + 1) * MS)
    ]
    assert began // MS <= stored
    # The other instrument's first trade is yet to come: open, and nothing is claimed of it.
    assert await bench.fetch(WHAT) == [
        (f"{REF}/{SYMBOL}/Ticker/9", "closed", 9, 15, "{}"),
        (f"{REF}/{SYMBOL}/Trades/101", "open", 101, 120, "{[101,121)}"),
        (f"{REF}/{OTHER}/Trades/101", "open", 101, None, "{}"),
    ]
    await distributor.commit(trades=[trade(101, symbol=OTHER)])
    await bench.until_stored()
    assert [row[0] for row in await bench.fetch(WHAT)] == [f"{REF}/{SYMBOL}/Ticker/9", f"{REF}/{SYMBOL}/Trades/101"]
    times = await bench.fetch("SELECT from_ns, to_ns FROM gaps WHERE channel = 'Trades'")
    assert times == [(trade(100).receive_ns, trade(121).receive_ns)]


async def test_a_crash_before_the_first_trade_of_the_new_chain(bench: Bench) -> None:
    distributor = bench.distributor()
    await behind(bench, distributor)
    await wipe(distributor)
    await distributor.commit(trades=[trade(105)])
    run = bench.start()
    await bench.until_stored()
    await run.kill()
    await distributor.commit(trades=[trade(111, symbol=OTHER)])
    bench.start()
    await bench.until_stored()
    assert await bench.fetch(WHAT) == [
        (f"{REF}/{SYMBOL}/Ticker/9", "open", 9, None, "{}"),
        (f"{REF}/{SYMBOL}/Trades/101", "open", 101, 104, "{[101,105)}"),
        (f"{REF}/{OTHER}/Trades/101", "open", 101, 110, "{[101,111)}"),
    ]


async def test_events_sent_again_miss_nothing(bench: Bench) -> None:
    distributor = bench.distributor()
    await behind(bench, distributor)
    await wipe(distributor)
    await distributor.commit(trades=[trade(n) for n in range(95, 111)], tickers=[ticker(9), ticker(12)])
    await distributor.commit(trades=[trade(101, symbol=OTHER)])
    bench.start()
    await bench.until_stored()
    assert await bench.fetch(WHAT) == []
    assert [row[3] for row in await bench.fetch(SHARD)] == ["closed"]


async def test_a_jump_in_the_chain_and_what_comes_late(bench: Bench) -> None:
    distributor = bench.distributor()
    await behind(bench, distributor)
    await distributor.trades(101, 130, size=10)
    await distributor.client.xtrim(REF.events, minid=distributor.entries[-1], approximate=False)
    # The distributor knows what it emitted: one it had left out comes late, before the first new one.
    late = int(Flag.LATE)
    await distributor.client.xdel(REF.events, distributor.entries[-1])
    await distributor.commit(trades=[trade(42, flags=late), trade(105, flags=late), trade(131)], tickers=[ticker(20)])
    bench.start()
    await bench.until_stored()
    assert await bench.fetch(SHARD) == [(f"{REF}/events/14", "events", "redis_lost", "closed", 14, 16, "{[14,17)}")]
    own = f"{REF}/{SYMBOL}/Trades/101"
    assert (own, "open", 101, 130, "{[101,105),[106,131)}") in await bench.fetch(WHAT)
    # The distributor's own row of the same name knows less.
    gap = Gap(own, SYMBOL, "Trades", "sequence", "closed", 101, 103, [], 1, 2, "late", 2, 3)
    rest = [trade(n, flags=late) for n in (*range(101, 105), *range(106, 130))]
    await distributor.commit(trades=rest, gaps=[gap], tickers=[ticker(13, flags=late)])
    await bench.until_stored()
    assert await bench.fetch(WHAT) == [
        (f"{REF}/{SYMBOL}/Ticker/9", "closed", 9, 13, "{}"),
        (own, "open", 101, 130, "{[130,131)}"),
        (f"{REF}/{OTHER}/Trades/101", "open", 101, None, "{}"),
    ]
    await distributor.commit(trades=[trade(130, flags=late)])
    await bench.until_stored()
    assert await bench.fetch("SELECT state, missing::text, repaired_by FROM gaps WHERE id = $1", own) == [
        ("closed", "{}", "late")
    ]


async def test_numbers_left_out_that_nobody_declared_any_more(bench: Bench) -> None:
    distributor = bench.distributor()
    told = Gap("g/1", SYMBOL, "Trades", "sequence", "open", 50, 51, [(50, 51)], 1, 2, "", 1, 3)
    numbers = [n for n in range(1, 101) if n not in (50, 51, 97, 98)]
    await distributor.commit(trades=[trade(n) for n in numbers], gaps=[told])
    run = bench.start()
    await bench.until_stored()
    await run.end()
    await wipe(distributor)
    await distributor.commit(tickers=[ticker(1)])
    bench.start()
    await bench.until_stored()
    assert await bench.fetch(WHAT) == [(f"{REF}/{SYMBOL}/Trades/97", "open", 97, None, "{[97,99)}")]
    await distributor.commit(trades=[trade(103)])
    await bench.until_stored()
    assert await bench.fetch(WHAT) == [(f"{REF}/{SYMBOL}/Trades/97", "open", 97, 102, "{[97,99),[101,103)}")]


async def test_tickers_without_a_number(bench: Bench) -> None:
    """Their place is the exchange's ms, as in the distributor's rows."""
    shard = ShardSettings(REF, "binance", "Spot", VenueRules(True, {}, tickers_by_time=True), linger=0.0)
    distributor = bench.distributor()
    now = now_ns()
    await distributor.commit(tickers=[ticker(99, now - 5 * SECOND), ticker(3, now - 4 * SECOND)])
    run = bench.start(shard)
    await bench.until_stored()
    await run.end()
    await wipe(distributor)
    await distributor.commit(tickers=[ticker(50, now - SECOND)])
    bench.start(shard)
    await bench.until_stored()
    low, high = (now - 4 * SECOND) // MS, (now - SECOND) // MS
    assert await bench.fetch(WHAT) == [(f"{REF}/{SYMBOL}/Ticker/{low}", "closed", low, high, "{}")]


async def test_wiped_twice_at_the_same_number(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[trade(1)])
    run = bench.start()
    await bench.until_stored()
    for number in (5, 8):
        await wipe(distributor)
        await distributor.commit(trades=[trade(number)])
        await bench.until_stored()
    rows = await bench.fetch(SHARD)
    assert [row[0] for row in rows] == [f"{REF}/events/2", f"{REF}/events/2:{distributor.id}"]
    assert [row[4] for row in await bench.fetch(WHAT)] == ["{[2,5)}", "{[6,8)}"]
    assert run.shard().n == 1


async def test_a_gap_that_was_open_when_the_server_was_wiped(bench: Bench) -> None:
    """The distributor forgot it; it ends with the first ticker of the new chain."""
    distributor = bench.distributor()
    name = f"{REF}/{SYMBOL}/Ticker/9"
    gap = Gap(name, SYMBOL, "Ticker", "disconnected", "open", 9, -1, [], 1, 0, "", 1, 3)
    await distributor.commit(tickers=[ticker(9)], gaps=[gap])
    bench.start()
    await bench.until_stored()
    await wipe(distributor)
    await distributor.commit(tickers=[ticker(14)])
    await bench.until_stored()
    row = "SELECT cause, state, from_seq, to_seq, revision > $2 FROM gaps WHERE id = $1"
    assert await bench.fetch(row, name, OWN) == [("disconnected", "closed", 9, 14, True)]


async def test_a_book_that_was_broken_when_the_server_was_wiped(bench: Bench) -> None:
    distributor = bench.distributor()
    name = f"{REF}/{SYMBOL}/Book/40"
    gap = Gap(name, SYMBOL, "Book", "sequence", "open", 40, -1, [], 1, 0, "", 1, 3)
    await distributor.commit(trades=[trade(1)], gaps=[gap])
    run = bench.start()
    await bench.until_stored()
    await wipe(distributor)
    await distributor.commit(trades=[trade(2)])
    await bench.until_stored()
    await run.kill()
    assert await bench.fetch("SELECT state, to_seq FROM gaps WHERE id = $1", name) == [("open", None)]
    book = BookSnapshot(SYMBOL, BASE + SECOND, 77, BASE, BASE + MS, [("1", "2")], [("3", "4")])
    await distributor.commit(books=[book])
    bench.start()
    await bench.until_stored()
    found = await bench.fetch("SELECT cause, state, from_seq, to_seq, to_ns FROM gaps WHERE id = $1", name)
    assert found == [("sequence", "closed", 40, 77, BASE + MS)]
    assert await bench.fetch(WHAT) == []


@pytest.mark.parametrize("bad", [131, 140])
async def test_a_poison_row_in_the_first_commit_of_the_new_chain(bench: Bench, bad: int) -> None:
    distributor = bench.distributor()
    await behind(bench, distributor)
    await wipe(distributor)
    trades: list[Any] = [trade(n, price="x" if n == bad else "5") for n in range(131, 141)]
    await distributor.commit(trades=trades)
    bench.start()
    await bench.until_stored()
    assert (f"{REF}/{SYMBOL}/Trades/101", "open", 101, 130, "{[101,131)}") in await bench.fetch(WHAT)
    assert len(await bench.fetch(SHARD)) == 1
    assert await bench.value("SELECT count(*) FROM trades WHERE trade_id > 130") == 9
    assert await bench.value("SELECT count(*) FROM dead_letters") == 1


async def test_dead_letters_of_two_chains_with_the_same_numbers(bench: Bench) -> None:
    distributor = bench.distributor()
    bench.start()
    for number in (1, 2):
        await distributor.commit(trades=[trade(number, price="x")])
        await distributor.append(b"\xc1%d" % number)
        await bench.until_stored()
        await wipe(distributor)
    found = await bench.fetch("SELECT batch, idx, reason FROM dead_letters ORDER BY 1, 2, 3")
    assert found == [(1, 0, "trade_refused")] * 2 + [(2, 0, "undecodable")] * 2
