"""Recorded frames of three venues: everything maps, counts are those counted elsewhere, chains and books hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from feedmill.exchanges.base import BookUpdate, Chain, FrameKind, Mapper, Venue, VenueEvent
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT
from feedmill.shared.events import Candle, Instrument, Level, Ticker, Trade

Load = Callable[[str], list[Any]]
FILES = {SPOT.name: "binance", USDM.name: "binance_futures", DERIBIT.name: "deribit"}
SYMBOLS = {
    SPOT.name: ["NKN-USDT", "BLZ-ETH", "LRC-BTC", "RUNE-EUR"],
    USDM.name: ["SUSHI-USDT", "AKRO-USDT", "KEEP-USDT", "CTK-USDT"],
    DERIBIT.name: [
        "BTC-24SEP21-8000-P", "BTC-30JUL21-24000-P", "ETH-30JUL21-2800-C", "BTC-31DEC21-34000-P",
        "BTC-24SEP21-34000-P", "BTC-24JUN22-15000-C", "BTC-31DEC21-300000-C", "ETH-27AUG21-4000-P",
        "BTC-25MAR22-30000-C", "ETH-23JUL21-2300-C",
    ],
}  # fmt: skip


class Replayed:
    """A recording put through a venue's mapper: events of the stream, and books fetched by REST, in order."""

    def __init__(self, venue: Venue, records: Iterable[Any]) -> None:
        self.mapper: Mapper = venue.mapper({venue.to_native(symbol): symbol for symbol in SYMBOLS[venue.name]})
        self.records = list(records)
        self.frames = [record for record in self.records if record.kind == "recv"]
        self.events: list[VenueEvent] = []
        self.snapshots: dict[str, BookUpdate] = {}
        for record in self.records:
            if record.kind == "recv":
                self.events += self.mapper.map(record.data, record.t_ns)
            elif record.kind == "http" and "/depth" in record.url:
                symbol = self.mapper.symbols[parse_qs(urlsplit(record.url).query)["symbol"][0]]
                (snapshot,) = self.mapper.map_rest("book_snapshot", symbol, 200, record.data, record.t_ns)
                assert isinstance(snapshot, BookUpdate)
                self.snapshots[symbol] = snapshot

    def updates(self) -> dict[str, list[BookUpdate]]:
        found = defaultdict(list)
        for event in self.events:
            if isinstance(event, BookUpdate):
                found[event.symbol].append(event)
        return found


@pytest.fixture
def replayed(recording: Load) -> Callable[[Venue], Replayed]:
    return lambda venue: Replayed(venue, recording(FILES[venue.name]))


class Book:
    """Two sides by price, for checking only."""

    def __init__(self, snapshot: BookUpdate) -> None:
        self.sides: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
        self.seq = snapshot.seq
        self.apply(snapshot)

    def apply(self, update: BookUpdate) -> None:
        self.seq = update.seq
        for side, levels in zip(self.sides, (update.bids, update.asks), strict=True):
            self._apply(side, levels)

    @staticmethod
    def _apply(side: dict[Decimal, Decimal], levels: list[Level]) -> None:
        for price, size in levels:
            if Decimal(size):
                side[Decimal(price)] = Decimal(size)
            else:
                side.pop(Decimal(price), None)

    def check(self) -> None:
        bids, asks = self.sides
        assert all(size > 0 for side in self.sides for size in side.values())
        if bids and asks:
            assert max(bids) < min(asks)


def chain(venue: Venue, updates: dict[str, list[BookUpdate]]) -> tuple[int, int]:
    """(changes that follow the one before by the venue's rule, all of them)."""
    pairs = [pair for each in updates.values() for pair in pairwise(each)]
    changes = [(before, after) for before, after in pairs if not after.snapshot]
    good = sum(venue.book_rules.next(before.seq, after) is Chain.APPLY for before, after in changes)
    return good, len(changes)


@pytest.mark.parametrize(
    ("venue", "frames", "counts"),
    [
        (SPOT, 265, {BookUpdate: 177, Ticker: 84, Trade: 2, Candle: 2}),
        (USDM, 1535, {BookUpdate: 764, Ticker: 613, Trade: 91, Candle: 67}),
        (DERIBIT, 136, {BookUpdate: 46, Ticker: 89}),
    ],
)
def test_every_frame_maps(
    replayed: Callable[[Venue], Replayed], venue: Venue, frames: int, counts: dict[type[Any], int]
) -> None:
    replay = replayed(venue)
    assert len(replay.frames) == frames
    assert Counter(map(type, replay.events)) == counts
    assert {event.symbol for event in replay.events} <= set(SYMBOLS[venue.name])
    by_receive_time = {record.t_ns for record in replay.frames}
    assert all(event.receive_ns in by_receive_time for event in replay.events)


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
def test_both_paths_agree_on_every_frame(replayed: Callable[[Venue], Replayed], venue: Venue) -> None:
    replay = replayed(venue)
    general: Any = replay.mapper
    events = [event for frame in replay.frames for event in general.general(frame.data, frame.t_ns)]
    assert events == replay.events


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
def test_data_is_judged_data(replayed: Callable[[Venue], Replayed], venue: Venue) -> None:
    feed = venue.feed("wss://h")
    kinds = Counter(feed.classify(frame.data).kind for frame in replayed(venue).frames)
    acknowledged = {FrameKind.ACK: 1} if venue is DERIBIT else {}
    assert kinds == {FrameKind.DATA: sum(kinds.values()) - sum(acknowledged.values()), **acknowledged}


@pytest.mark.parametrize(("venue", "followed"), [(SPOT, 173), (USDM, 760), (DERIBIT, 36)])
def test_book_changes_chain_by_the_venues_rule(
    replayed: Callable[[Venue], Replayed], venue: Venue, followed: int
) -> None:
    assert chain(venue, replayed(venue).updates()) == (followed, followed)


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
def test_a_lost_change_breaks_the_chain(replayed: Callable[[Venue], Replayed], venue: Venue) -> None:
    updates = replayed(venue).updates()
    longest = max(updates, key=lambda symbol: len(updates[symbol]))
    before, _, after = updates[longest][1:4]
    assert venue.book_rules.next(before.seq, after) is Chain.BREAK
    assert venue.book_rules.next(after.seq, before) is Chain.STALE


@pytest.mark.parametrize(("venue", "symbols"), [(SPOT, 4), (USDM, 4)])
def test_books_start_from_rest_snapshots_and_stay_uncrossed(
    replayed: Callable[[Venue], Replayed], venue: Venue, symbols: int
) -> None:
    replay = replayed(venue)
    assert len(replay.snapshots) == symbols
    rules = venue.book_rules
    applied = 0
    for symbol, updates in replay.updates().items():
        book = Book(replay.snapshots[symbol])
        book.check()
        started = False
        for update in updates:
            verdict = rules.next(book.seq, update) if started else rules.first(book.seq, update)
            assert verdict is not Chain.BREAK, (symbol, book.seq, update)
            if verdict is Chain.APPLY:
                started = True
                applied += 1
                book.apply(update)
                book.check()
        assert started, symbol
    assert applied > 150


def test_deribit_books_start_in_band_and_stay_uncrossed(replayed: Callable[[Venue], Replayed]) -> None:
    books: dict[str, Book] = {}
    applied = 0
    for symbol, updates in replayed(DERIBIT).updates().items():
        assert [update.snapshot for update in updates] == [True] + [False] * (len(updates) - 1)
        books[symbol] = Book(updates[0])
        for update in updates[1:]:
            assert DERIBIT.book_rules.next(books[symbol].seq, update) is Chain.APPLY
            books[symbol].apply(update)
            books[symbol].check()
            applied += 1
    assert (len(books), applied) == (10, 36)


@pytest.mark.parametrize(("venue", "pairs"), [(SPOT, 0), (USDM, 87)])
def test_aggregates_are_contiguous(replayed: Callable[[Venue], Replayed], venue: Venue, pairs: int) -> None:
    by_symbol = defaultdict(list)
    for event in replayed(venue).events:
        if isinstance(event, Trade):
            by_symbol[event.symbol].append(event)
    followed = [pair for trades in by_symbol.values() for pair in pairwise(trades)]
    assert len(followed) == pairs
    assert all(b.id == a.id + 1 and b.first_id == a.last_id + 1 for a, b in followed)


@pytest.mark.parametrize(("venue", "candles"), [(SPOT, 2), (USDM, 67)])
def test_candles_count_their_ids(replayed: Callable[[Venue], Replayed], venue: Venue, candles: int) -> None:
    found = [event for event in replayed(venue).events if isinstance(event, Candle)]
    assert len(found) == candles
    assert all(candle.trades == candle.last_id - candle.first_id + 1 for candle in found)
    assert all(candle.open_ns % 60_000_000_000 == 0 for candle in found)


@pytest.mark.parametrize(("venue", "symbols"), [(SPOT, 3), (USDM, 4)])
def test_quote_ids_rise(replayed: Callable[[Venue], Replayed], venue: Venue, symbols: int) -> None:
    last: dict[str, int] = {}
    for event in replayed(venue).events:
        if isinstance(event, Ticker):
            assert event.seq > last.get(event.symbol, -1)
            last[event.symbol] = event.seq
            assert Decimal(event.bid) < Decimal(event.ask)
    assert len(last) == symbols


def test_deribit_quotes_are_exact_text_with_distinct_hashes(replayed: Callable[[Venue], Replayed]) -> None:
    replay = replayed(DERIBIT)
    tickers = [event for event in replay.events if isinstance(event, Ticker)]
    contents = {(t.symbol, t.exchange_ns, t.bid, t.bid_size, t.ask, t.ask_size) for t in tickers}
    assert len({ticker.seq for ticker in tickers}) == len(contents)
    for ticker in tickers:
        frame = next(f.data for f in replay.frames if f.t_ns == ticker.receive_ns and b'"ticker.' in f.data)
        for name, text in (("bid_price", ticker.bid), ("ask_price", ticker.ask)):
            wire = frame.partition(f'"best_{name}":'.encode())[2].split(b",")[0].decode()
            assert text == ("" if wire in ("null", "0.0", "0") else wire)


@pytest.mark.parametrize(
    ("venue", "expected"),
    [(SPOT, {"Spot": 4}), (USDM, {"Perpetual": 4}), (DERIBIT, {"Option": 10})],
)
def test_metadata_of_the_known_instruments(
    replayed: Callable[[Venue], Replayed], venue: Venue, expected: dict[str, int]
) -> None:
    replay = replayed(venue)
    bodies = [
        record
        for record in replay.records
        if record.kind == "http" and ("exchangeInfo" in record.url or "get_instruments" in record.url)
    ]
    found = [
        row
        for record in bodies
        for row in replay.mapper.map_rest("instruments", "", 200, record.data, record.t_ns)
        if isinstance(row, Instrument)
    ]
    assert Counter(row.type for row in found) == expected
    for row in found:
        assert Decimal(row.tick) > 0
        assert Decimal(row.lot) > 0
        assert (row.expiry_ns > 0) == (row.type == "Option")
        assert (row.strike != "", row.option_type in ("call", "put")) == ((row.type == "Option"),) * 2
