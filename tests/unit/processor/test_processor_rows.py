"""Events -> lines of text: every column in its place, exactly the venue's digits, nothing that could be misread."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.processor.rows import (
    BOOK_COLUMNS,
    TICKER_COLUMNS,
    TRADE_COLUMNS,
    BadText,
    Deferred,
    Rows,
    Windows,
    event_time,
    join,
    numbered,
)
from feedmill.shared.events import (
    BookSnapshot,
    Candle,
    DeadLetter,
    EventBlock,
    Gap,
    Instrument,
    Ticker,
    Trade,
    decode_events,
    encode,
)

WIDE = Windows((0, 10**19), (0, 10**19), (0, 10**19))
TRADE = Trade("A", 7, "0.10", "2.500", 1, 1_000, 1_001, 3, 70, 72, "v7")
TICKER = Ticker("A", 8, "1.0", "2", "", "", 1_000, 1_001, 1)
BOOK = BookSnapshot("A", 2_000, 9, 1_000, 1_001, [("1.0", "2"), ("0.9", "3")], [("1.1", "4")])
CANDLE = Candle("A", "1m", 0, "1", "2", "0", "1", "9", "", -1, -1, -1, False, 5, 6)
GAP = Gap("g", "A", "Trades", "sequence", "open", 1, 2, [(1, 2)], 1, 2, "", 1, 3)
LETTER = DeadLetter("s", 1, 2, 3, 4, "r", "d", "0", b"x")
INSTRUMENT = Instrument("A", "a", "Spot", "B", "C", "", "on", "1", "1", "", 0, "", "", 9)
EVENTS = (TRADE, TICKER, BOOK, CANDLE, GAP, LETTER, INSTRUMENT)
BLOCK = EventBlock(1, [TRADE], [TICKER], [BOOK], [CANDLE], [GAP], [LETTER], [INSTRUMENT])


def test_each_column_in_its_place() -> None:
    rows, deferred = Rows(), list[Deferred]()
    assert rows.add_block((1, "c1"), BLOCK, {"A": 5}, WIDE, deferred) == len(rows) == len(BLOCK) == 7
    assert deferred == []
    assert rows.trades == ["5\t7\t0.10\t2.500\t1\t1000\t1001\t3\t70\t72\tv7"]
    assert rows.tickers == ["5\t8\t1.0\t2\t\t\t1000\t1001\t1"]
    assert rows.books == ["5\t2000\t9\t1000\t1001\t{1.0,0.9}\t{2,3}\t{1.1}\t{4}"]
    assert rows.candles == {(5, "1m", 0): CANDLE}
    assert rows.gaps == {"g": (5, GAP)}
    assert rows.instruments == [(5, INSTRUMENT)]
    assert [letter.payload for letter in rows.letters] == [b"x"]
    assert rows.seldom
    assert not Rows(trades=["x"], tickers=["y"], books=["z"]).seldom


def test_one_by_one_is_the_same_as_in_a_block() -> None:
    at_once, single = Rows(), Rows()
    at_once.add_block((1, "c1"), BLOCK, {"A": 5}, WIDE, [])
    for event in EVENTS:
        if isinstance(event, DeadLetter):
            single.add_letter(event)
        else:
            single.add(5, event)
    assert single == at_once


def test_a_ticker_without_exchange_time() -> None:
    rows = Rows()
    rows.add_block((1, "c1"), EventBlock(tickers=[msgspec.structs.replace(TICKER, exchange_ns=0)]), {"A": 5}, WIDE, [])
    assert rows.tickers == ["5\t8\t1.0\t2\t\t\t\t1001\t1"]


def test_what_needs_something_made_first_is_deferred_with_its_place() -> None:
    for ids, windows in (({}, WIDE), ({"A": 5}, Windows())):
        rows, deferred = Rows(), list[Deferred]()
        assert rows.add_block((9, "c9"), BLOCK, ids, windows, deferred) == 7
        places = {type(item.event).__name__: item.index for item in deferred}
        wanted = {"Trade": 0, "Ticker": 1, "BookSnapshot": 2}
        assert places == (wanted if ids else wanted | {"Candle": 3, "Gap": 4, "Instrument": 6})
        assert {item.commit for item in deferred} == {(9, "c9")}
        assert len(rows) + len(deferred) == 7
    shard_wide = msgspec.structs.replace(GAP, symbol="")
    rows, deferred = Rows(), []
    rows.add_block((9, "c9"), EventBlock(gaps=[shard_wide]), {}, Windows(), deferred)
    assert rows.gaps == {"g": (None, shard_wide)}
    assert deferred == []


def test_bounds_of_the_windows() -> None:
    windows = Windows((1_000, 1_001), (1_000, 1_001), (2_000, 2_001))
    for change in (0, -1, 1):
        rows, deferred = Rows(), list[Deferred]()
        block = EventBlock(
            trades=[msgspec.structs.replace(TRADE, exchange_ns=1_000 + change)],
            tickers=[msgspec.structs.replace(TICKER, exchange_ns=1_000 + change)],
            books=[msgspec.structs.replace(BOOK, slot_ns=2_000 + change)],
        )
        rows.add_block((1, "c1"), block, {"A": 5}, windows, deferred)
        assert (len(rows), len(deferred)) == ((3, 0) if not change else (0, 3))


COUNTS = st.lists(st.integers(0, 3), min_size=7, max_size=7)


@given(COUNTS, st.integers(0, 25))
def test_places_are_those_of_the_block_after_a_round_trip(counts: list[int], start: int) -> None:
    lists: list[list[Any]] = [[event] * count for event, count in zip(EVENTS, counts, strict=True)]
    block = decode_events(encode(EventBlock(1, *lists)))
    everything = list(numbered(block))
    assert [place for place, _ in everything] == list(range(len(block)))
    assert [type(event) for _, event in everything] == [type(event) for events in lists for event in events]
    assert list(numbered(block, start)) == everything[start:]
    deferred: list[Deferred] = []
    Rows().add_block((4, "c4"), block, {}, Windows(), deferred)
    assert [(item.index, item.event) for item in deferred] == [
        (place, event) for place, event in everything if not isinstance(event, DeadLetter)
    ]


@pytest.mark.parametrize("field", ["price", "size", "venue_id"])
@pytest.mark.parametrize("text", ["a\tb", "a\nb", "\t", "\n", "a\t\n"])
def test_a_text_that_would_shift_columns_is_refused(field: str, text: str) -> None:
    rows = Rows()
    rows.add(5, TRADE)
    rows.add(5, msgspec.structs.replace(TRADE, **{field: text}))
    with pytest.raises(BadText):
        join(rows.trades, TRADE_COLUMNS)


def test_joining() -> None:
    assert join([], TRADE_COLUMNS) == ""
    rows = Rows()
    for event in (TRADE, TICKER, BOOK, TRADE, TICKER, BOOK):
        rows.add(5, event)
    for lines, columns in ((rows.trades, TRADE_COLUMNS), (rows.tickers, TICKER_COLUMNS), (rows.books, BOOK_COLUMNS)):
        assert join(lines, columns).split("\n") == lines


LEVEL_TEXT = st.text(st.sampled_from('01.,{}\\" eENaNull'), max_size=6)


@given(st.lists(st.tuples(LEVEL_TEXT, LEVEL_TEXT), max_size=4))
def test_levels_keep_their_number_or_are_marked_for_refusal(levels: list[tuple[str, str]]) -> None:
    rows = Rows()
    rows.add(5, msgspec.structs.replace(BOOK, bids=levels, asks=[]))
    prices, sizes = rows.books[0].split("\t")[5:7]
    for text, what in ((prices, 0), (sizes, 1)):
        given_texts = [level[what] for level in levels]
        if any(set(item) & set(",{}") for item in given_texts):
            assert text.startswith("{}")  # No array: PostgreSQL refuses what follows the first closing brace.
        else:
            assert text == "{" + ",".join(given_texts) + "}"


def test_the_best_candle_and_gap_of_a_batch_are_kept() -> None:
    def candle(closed: bool, exchange: int, receive: int) -> Candle:
        return msgspec.structs.replace(CANDLE, closed=closed, exchange_ns=exchange, receive_ns=receive)

    best = candle(True, 3, 3)
    others = [candle(False, 9, 9), candle(True, 3, 2), candle(True, 2, 9)]
    for order in ([best, *others], [*others, best], [others[0], best, *others[1:]]):
        rows = Rows()
        for each in order:
            rows.add(5, each)
        assert rows.candles == {(5, "1m", 0): best}
    rows = Rows()
    for revision in (2, 3, 1, 3):
        rows.add(5, msgspec.structs.replace(GAP, revision=revision, state=f"{revision}"))
    assert rows.gaps["g"][1].revision == 3


def test_the_time_that_decides_on_the_day() -> None:
    assert event_time(TRADE) == 1_000
    assert event_time(TICKER) == 1_000
    assert event_time(msgspec.structs.replace(TICKER, exchange_ns=0)) == 1_001
    assert event_time(BOOK) == 2_000
    assert event_time(CANDLE) == event_time(GAP) == event_time(INSTRUMENT) == 0
