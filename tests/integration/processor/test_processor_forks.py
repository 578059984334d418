"""A server that forgot commits which are stored: gap rows of the new chain are cut to what is really missing."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.processor.settings import VenueRules
from feedmill.shared.clock import MS, SECOND
from feedmill.shared.events import BookSnapshot, Flag, Gap, Ticker

from .conftest import BASE, REF, SYMBOL, Bench, Distributor, Run, shard_settings, trade

ROWS = "SELECT id, cause, state, from_seq, to_seq, missing::text FROM gaps WHERE channel = $1 ORDER BY from_seq, 1"


def at(number: int) -> int:
    return BASE + number * SECOND


def ticker(seq: int, *, flags: int = 0) -> Ticker:
    return Ticker(SYMBOL, seq, "1", "1", "2", "2", at(seq), at(seq) + MS, flags)


def hashed(ms: int) -> Ticker:
    """One without a number: its time is all that orders it."""
    return Ticker(SYMBOL, hash((ms, "ticker")), "1", "1", "2", "2", ms * MS, ms * MS + 1)


def name(channel: str, begin: int) -> str:
    return f"{REF}/{SYMBOL}/{channel}/{begin}"


def extent(channel: str, begin: int, end: int, *, revision: int = 1, cause: str = "session_lost") -> Gap:
    """Of a channel without dense numbers; end -1 = open."""
    state, to_ns = ("open", 0) if end < 0 else ("closed", at(end) + MS)
    key = name(channel, begin)
    return Gap(key, SYMBOL, channel, cause, state, begin, end, [], at(begin) + MS, to_ns, "", revision, at(begin))


def hole(low: int, high: int, missing: list[tuple[int, int]], *, revision: int = 1, cause: str = "sequence") -> Gap:
    state = "open" if missing else "closed"
    times = (at(low - 1), at(high + 1))
    return Gap(name("Trades", low), SYMBOL, "Trades", cause, state, low, high, missing, *times, "", revision, times[1])


async def forget(distributor: Distributor, commits: int) -> None:
    """The server fails over to a replica that has not the last commits; the distributor goes on from there."""
    for _ in range(commits):
        await distributor.client.xdel(REF.events, distributor.entries.pop())
    ((_, fields),) = await distributor.client.xrevrange(REF.events, count=1)
    distributor.n, distributor.id = int(fields[b"n"]), fields[b"id"].decode()


async def stored(bench: Bench) -> Run:
    run = bench.start()
    await bench.until_stored()
    return run


@pytest.mark.parametrize("at_once", [True, False])
async def test_quotes_of_forgotten_commits_are_not_called_missing(bench: Bench, at_once: bool) -> None:
    distributor = bench.distributor()
    await distributor.commit(tickers=[ticker(5), ticker(10)])
    await distributor.commit(tickers=[ticker(12)])
    await distributor.commit(tickers=[ticker(17)])
    await stored(bench)
    await forget(distributor, 2)
    if at_once:
        closed = extent("Ticker", 10, 30, revision=2)
        await distributor.commit(tickers=[ticker(30)], gaps=[extent("Ticker", 10, -1), closed])
    else:
        await distributor.commit(gaps=[extent("Ticker", 10, -1)])
        await bench.until_stored()
        begun = (name("Ticker", 10), "session_lost", "open", 17, None, "{}")
        assert await bench.fetch(ROWS, "Ticker") == [begun]
        await distributor.commit(tickers=[ticker(30)], gaps=[extent("Ticker", 10, 30, revision=2)])
    await bench.until_stored()
    assert await bench.fetch(ROWS, "Ticker") == [(name("Ticker", 10), "session_lost", "closed", 17, 30, "{}")]
    assert await bench.value("SELECT from_ns FROM gaps") == ticker(17).receive_ns
    # Another connection had one of them: the distributor tells the row anew, and knows no better where it begins.
    late = ticker(25, flags=int(Flag.LATE))
    above = extent("Ticker", 25, 30)
    await distributor.commit(tickers=[late], gaps=[extent("Ticker", 10, 25, revision=3), above])
    await bench.until_stored()
    assert [row[3:5] for row in await bench.fetch(ROWS, "Ticker")] == [(17, 25), (25, 30)]


async def test_what_is_read_again_changes_nothing(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(tickers=[ticker(10)])
    await distributor.commit(gaps=[extent("Ticker", 10, -1)])
    await distributor.commit(tickers=[ticker(20)], gaps=[extent("Ticker", 10, 20, revision=2)])
    await distributor.commit(trades=[trade(1), trade(5)])
    await distributor.commit(gaps=[hole(2, 4, [(2, 4)])])
    await distributor.commit(trades=[trade(3, flags=int(Flag.LATE))], gaps=[hole(2, 4, [(2, 2), (4, 4)], revision=2)])
    await distributor.commit(tickers=[ticker(25)])
    await stored(bench)
    rows = [await bench.fetch(ROWS, channel) for channel in ("Ticker", "Trades")]
    assert [row[3:] for row in rows[0] + rows[1]] == [(10, 20, "{}"), (2, 4, "{[2,3),[4,5)}")]
    await forget(distributor, 1)
    await distributor.commit(tickers=[ticker(25), ticker(30)])
    await bench.until_stored()
    assert [await bench.fetch(ROWS, channel) for channel in ("Ticker", "Trades")] == rows


async def test_gaps_that_the_forgotten_commits_told(bench: Bench) -> None:
    """Both are true: what was missing then, and what is missing since; one left open ends."""
    distributor = bench.distributor()
    await distributor.commit(tickers=[ticker(10)], gaps=[extent("Ticker", 10, -1, cause="disconnected")])
    told = extent("Ticker", 10, 15, revision=2, cause="disconnected")
    await distributor.commit(tickers=[ticker(15), ticker(18)], gaps=[told])
    await distributor.commit(gaps=[extent("Ticker", 18, -1, cause="disconnected")])
    await stored(bench)
    await forget(distributor, 2)
    again = extent("Ticker", 10, 40, revision=2, cause="disconnected")
    await distributor.commit(tickers=[ticker(40)], gaps=[again])
    await bench.until_stored()
    assert await bench.fetch(ROWS, "Ticker") == [
        (name("Ticker", 10), "disconnected", "closed", 10, 15, "{}"),
        (name("Ticker", 18), "disconnected", "closed", 18, 40, "{}"),
    ]


async def test_quotes_without_numbers(bench: Bench) -> None:
    """Their time in ms stands for the number, and several may have the same."""
    distributor = bench.distributor()
    rules = VenueRules(dense=True, tickers_by_time=True)
    base = BASE // MS
    await distributor.commit(tickers=[hashed(base + 10)])
    await distributor.commit(tickers=[hashed(base + 20), hashed(base + 21)])
    bench.start(shard_settings(rules=rules))
    await bench.until_stored()
    await forget(distributor, 1)
    times = (hashed(base + 10).receive_ns, hashed(base + 50).receive_ns)
    key = name("Ticker", base + 10)
    gap = Gap(key, SYMBOL, "Ticker", "session_lost", "closed", base + 10, base + 50, [], *times, "", 2, times[1])
    await distributor.commit(tickers=[hashed(base + 50)], gaps=[gap])
    await bench.until_stored()
    found = await bench.fetch(ROWS, "Ticker")
    assert found == [(name("Ticker", base + 10), "session_lost", "closed", base + 21, base + 50, "{}")]


async def test_books(bench: Bench) -> None:
    distributor = bench.distributor()

    def shot(seq: int) -> BookSnapshot:
        levels: list[Any] = [("1", "1")]
        return BookSnapshot(SYMBOL, at(seq), seq, at(seq), at(seq) + MS, levels, levels)

    await distributor.commit(books=[shot(10)])
    await distributor.commit(books=[shot(20)])
    await distributor.commit(gaps=[extent("Book", 22, -1, cause="book")])
    await stored(bench)
    await forget(distributor, 2)
    await distributor.commit(gaps=[extent("Book", 11, -1)])
    await distributor.commit(books=[shot(60)], gaps=[extent("Book", 11, 50, revision=2)])
    await bench.until_stored()
    assert await bench.fetch(ROWS, "Book") == [(name("Book", 11), "session_lost", "closed", 20, 50, "{}")]


async def test_trades_that_are_stored_are_not_called_missing(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 10)
    await distributor.trades(11, 14)
    await distributor.commit(trades=[trade(17)], gaps=[hole(15, 16, [(15, 16)])])
    await stored(bench)
    await forget(distributor, 2)
    lost = hole(11, 29, [(11, 29)], cause="session_lost")
    await distributor.commit(trades=[trade(30)], gaps=[lost])
    await bench.until_stored()
    first, second = await bench.fetch(ROWS, "Trades")
    assert first == (name("Trades", 11), "session_lost", "open", 11, 29, "{[15,17),[18,30)}")
    assert second == (name("Trades", 15), "sequence", "open", 15, 16, "{[15,17)}")
    # What comes by REST is taken out of both: nobody else knows the forgotten one.
    flags = int(Flag.BACKFILL)
    came = [trade(number, flags=flags) for number in range(11, 30) if number != 20]
    await distributor.commit(trades=came, gaps=[hole(11, 29, [(20, 20)], revision=2, cause="session_lost")])
    await bench.until_stored()
    assert [(row[2], row[5]) for row in await bench.fetch(ROWS, "Trades")] == [("open", "{[20,21)}"), ("closed", "{}")]


async def test_a_hole_of_the_same_name_that_goes_further(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 10)
    await distributor.commit(trades=[trade(13)], gaps=[hole(11, 12, [(11, 12)])])
    await distributor.commit(gaps=[hole(11, 12, [(12, 12)], revision=2)], trades=[trade(11, flags=int(Flag.LATE))])
    await stored(bench)
    await forget(distributor, 2)
    await distributor.commit(trades=[trade(20)], gaps=[hole(11, 19, [(11, 19)])])
    await bench.until_stored()
    assert await bench.fetch(ROWS, "Trades") == [
        (name("Trades", 11), "sequence", "open", 11, 19, "{[12,13),[14,20)}"),
    ]
