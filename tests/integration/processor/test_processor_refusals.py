"""One event that cannot be stored costs exactly that event: a dead letter, and all else is stored."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from feedmill.shared import partitions
from feedmill.shared.clock import now_ns
from feedmill.shared.events import BookSnapshot, Candle, DeadLetter, EventBlock, Gap, Instrument, Ticker, Trade, encode
from feedmill.shared.partitions import DAY_NS

from .conftest import BASE, REF, SYMBOL, Bench, trade

LETTERS = "SELECT batch, idx, reason, detail FROM dead_letters ORDER BY batch, idx"


def bad_book(**changes: Any) -> BookSnapshot:
    book = BookSnapshot(SYMBOL, BASE, 9, BASE, BASE, [("1", "2")], [("3", "4")])
    return msgspec.structs.replace(book, **changes)


def bad_candle(price: str) -> Candle:
    return Candle(SYMBOL, "1m", BASE, price, "2", "1", "1", "9", "9", 1, 1, 1, True, BASE, BASE)


def version(tick: str) -> Instrument:
    return Instrument(SYMBOL, "BTCUSDT", "Spot", "BTC", "USDT", "", "trading", tick, "", "", 0, "", "", BASE)


POISON: dict[str, dict[str, list[Any]]] = {
    "a price that is no number": {"trades": [trade(50, price="abc")]},
    "a price that is not finite": {"trades": [trade(50, price="NaN")]},
    "an infinite price": {"trades": [trade(50, price="Infinity")]},
    "an empty price": {"trades": [msgspec.structs.replace(trade(50), price="")]},
    "an id too large": {"trades": [trade(2**63, BASE)]},
    "a tab within": {"trades": [trade(50, price="1\t2")]},
    "a line break within": {"trades": [trade(50, venue_id="a\nb")]},
    "a zero byte within": {"trades": [trade(50, venue_id="a\x00b")]},
    "a zero byte in the symbol": {"trades": [trade(50, symbol="A\x00")]},
    "a quote that is no number": {"tickers": [Ticker(SYMBOL, 1, "x", "1", "1", "1", BASE, BASE)]},
    "a comma in a level": {"books": [bad_book(bids=[("1,2", "2")])]},
    "a brace in a level": {"books": [bad_book(asks=[("{1}", "2")])]},
    "an empty level": {"books": [bad_book(asks=[("", "2")])]},
    "a level NULL": {"books": [bad_book(asks=[("NULL", "2")])]},
    "a candle that is no number": {"candles": [bad_candle("x")]},
    "a gap's range upside down": {
        "gaps": [Gap("g/1", SYMBOL, "Trades", "sequence", "open", 3, 6, [(6, 3)], 1, 2, "", 1, 3)]
    },
    "a dead letter's number too large": {"dead_letters": [DeadLetter("r0-1", 2**63, 2, 1, 12, "x", "x", "0.1", b"x")]},
    "an instrument's tick": {"instruments": [version("x")]},
}


@pytest.mark.parametrize("kind", POISON)
async def test_a_poison_row_is_one_dead_letter(bench: Bench, kind: str) -> None:
    good = [trade(n) for n in range(1, 41)]
    block = EventBlock(
        trades=good[:20],
        tickers=[Ticker(SYMBOL, 3, "1", "1", "2", "2", BASE, BASE)],
        gaps=[Gap("g/0", SYMBOL, "Trades", "sequence", "open", 3, 6, [(3, 6)], 1, 2, "", 1, 3)],
    )
    for name, events in POISON[kind].items():
        getattr(block, name).extend(events)
    distributor = bench.distributor()
    await distributor.commit(block)
    first = distributor.id
    await distributor.commit(trades=good[20:])
    run = bench.start()
    await bench.until_stored()
    assert await bench.value("SELECT count(*) FROM trades") == 40
    assert await bench.value("SELECT count(*) FROM tickers") == 1
    assert await bench.value("SELECT count(*) FROM gaps") == 1
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 40
    ((shard, session, batch, reason, payload),) = await bench.fetch(
        "SELECT shard, session, batch, reason, payload FROM dead_letters"
    )
    (poison,) = next(iter(POISON[kind].values()))
    assert (shard, session, batch, reason) == (
        str(REF),
        f"event:{first}",
        1,
        f"{type(poison).__name__.lower()}_refused",
    )
    assert msgspec.msgpack.decode(payload, type=type(poison)) == poison
    assert run.shard().dead_letters == 1
    # The shard goes on as if nothing had been, over the same connection.
    await distributor.commit(trades=[trade(41)])
    await bench.until_stored()
    assert await bench.value("SELECT count(*) FROM trades") == 41


async def test_several_poison_rows_in_many_commits(bench: Bench) -> None:
    distributor = bench.distributor()
    bad = {3, 77, 78, 250}
    for start in range(1, 301, 10):
        numbers = range(start, start + 10)
        await distributor.commit(trades=[trade(n, price="bad" if n in bad else "5") for n in numbers])
    bench.start()
    await bench.until_stored()
    found = await bench.fetch("SELECT trade_id FROM trades ORDER BY 1")
    assert found == [n for n in range(1, 301) if n not in bad]
    assert await bench.fetch("SELECT batch, idx FROM dead_letters ORDER BY 1, 2") == [(1, 2), (8, 6), (8, 7), (25, 9)]
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 296


@pytest.mark.parametrize(
    "payload", [b"\xc1garbage", b"", encode(EventBlock(version=99)), b"\x80"], ids=["garbage", "empty", "newer", "map"]
)
async def test_an_entry_that_cannot_be_read(bench: Bench, payload: bytes) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[trade(1)])
    await distributor.append(payload)
    await distributor.commit(trades=[trade(2)])
    bench.start()
    await bench.until_stored()
    assert await bench.value("SELECT count(*) FROM trades") == 2
    ((batch, idx, reason, _),) = await bench.fetch(LETTERS)
    assert (batch, idx, reason) == (2, 0, "undecodable")
    assert await bench.value("SELECT payload FROM dead_letters") == payload


@pytest.mark.parametrize(
    "fields",
    [
        {"hello": "world"},
        {"n": "x", "id": "1", "p": ""},
        {"n": 2**70, "id": "1", "p": ""},
        {"n": 2, "id": "\0", "p": ""},
    ],
    ids=["stranger", "no number", "too large", "zero byte"],
)
async def test_an_entry_that_is_no_commit_is_passed_over(bench: Bench, fields: dict[str, Any]) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[trade(1)])
    entry = await distributor.client.xadd(REF.events, fields)
    await distributor.commit(trades=[trade(2)])
    bench.start()
    await bench.until_stored()
    assert await bench.value("SELECT count(*) FROM trades") == 2
    ((batch, _, reason, _),) = await bench.fetch(LETTERS)
    assert (batch, reason) == (int(entry.split(b"-")[0]), "not_a_commit")
    assert await bench.value("SELECT count(*) FROM gaps") == 0


async def test_what_is_too_old_or_too_new_is_refused(bench: Bench) -> None:
    now = now_ns()
    old = trade(1, now - 31 * DAY_NS)
    new = trade(2, now + 3 * DAY_NS)
    kept = [trade(3, now - 29 * DAY_NS), trade(4, now), trade(5, now + DAY_NS)]
    tickers = [
        Ticker(SYMBOL, 1, "1", "1", "2", "2", now - 4 * DAY_NS, now),
        Ticker(SYMBOL, 2, "1", "1", "2", "2", 0, now),
        Ticker(SYMBOL, 3, "1", "1", "2", "2", -5, now),
    ]
    books = [bad_book(slot_ns=now - 8 * DAY_NS), bad_book(slot_ns=now)]
    await bench.distributor().commit(trades=[old, new, *kept], tickers=tickers, books=books)
    run = bench.start()
    await bench.until_stored()
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == [3, 4, 5]
    assert await bench.fetch("SELECT seq FROM tickers ORDER BY 1") == [2]
    assert await bench.value("SELECT count(*) FROM book_snapshots") == 1
    assert [(idx, reason) for _, idx, reason, _ in await bench.fetch(LETTERS)] == [
        (0, "trade_too_old"),
        (1, "trade_too_new"),
        (5, "ticker_too_old"),
        (7, "ticker_too_old"),
        (8, "booksnapshot_too_old"),
    ]
    assert (run.shard().refused, run.shard().dead_letters) == (5, 5)


async def test_days_are_made_on_demand_and_made_again_when_they_were_retired(bench: Bench) -> None:
    distributor = bench.distributor()
    now = now_ns()
    days = [now - days * DAY_NS for days in (9, 2, 1, 0)]
    await distributor.commit(trades=[trade(n, at) for n, at in enumerate(days, 1)])
    bench.start()
    await bench.until_stored()
    connection = await bench.connection()
    made = await partitions.existing(connection, partitions.TRADES)
    assert made == {at // DAY_NS for at in days}
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == [1, 2, 3, 4]
    # A partition is dropped under the running processor, which believes it to exist.
    dropped = await partitions.retire(connection, partitions.TRADES, now // DAY_NS - 5)
    assert dropped == [days[0] // DAY_NS]
    await distributor.commit(trades=[trade(5, days[0]), trade(6, days[3]), trade(7, price="x")])
    await bench.until_stored()
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == [2, 3, 4, 5, 6]
    assert await partitions.existing(connection, partitions.TRADES) == made
    assert await bench.value("SELECT count(*) FROM dead_letters") == 1


def test_poison_covers_every_kind_of_event() -> None:
    kinds = {name for events in POISON.values() for name in events}
    assert kinds == set(EventBlock.__struct_fields__) - {"version", "traces"}
    assert isinstance(POISON["a price that is no number"]["trades"][0], Trade)
