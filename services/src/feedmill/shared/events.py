"""Normalised events and the blocks that carry them in the events stream.

Money is the venue's exact decimal text. Times are ns since the epoch, UTC: ``exchange_ns`` is the venue's own
(0 where the venue gives none), ``receive_ns`` is when the frame reached the receiver. Every event has a key made of
exchange content only (docs/reference/event-keys.md); receive time, session and Redis ids are never part of it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import msgspec

from feedmill.shared.decoding import decode
from feedmill.shared.traceparent import TraceRef

VERSION = 1

Level = tuple[str, str]
"""(price, size), exact decimal text."""


class Side(IntEnum):
    """The taker's side."""

    BUY = 1
    SELL = 2


class Flag(IntFlag):
    LATE = 1
    """Arrived after a later one of its instrument had been emitted."""
    BACKFILL = 2
    """Came from REST, not from the stream."""


class Trade(msgspec.Struct, array_like=True, gc=False):
    """Key: symbol, id, exchange time cut to ms. ``id`` is the venue's contiguous unit id (class contiguous)."""

    symbol: str
    id: int
    price: str
    size: str
    side: int
    exchange_ns: int
    receive_ns: int
    flags: int = 0
    first_id: int = 0
    """First raw trade covered (aggregates), 0 where the unit is a single trade."""
    last_id: int = 0
    venue_id: str = ""
    """The venue's own trade id where it is not ``id`` (Deribit)."""


class Ticker(msgspec.Struct, array_like=True, gc=False):
    """Best bid and ask. Key: symbol, seq. Empty text where a side is empty.

    ``seq`` is the venue's update id, or, where it has none (Deribit), a 63-bit hash of time and content.
    """

    symbol: str
    seq: int
    bid: str
    bid_size: str
    ask: str
    ask_size: str
    exchange_ns: int
    receive_ns: int
    flags: int = 0


class BookSnapshot(msgspec.Struct, array_like=True, gc=False):
    """The best levels as they stood at ``slot_ns`` (end of a sampling slot by exchange time). Key: symbol, slot."""

    symbol: str
    slot_ns: int
    seq: int
    """Update id of the last change applied."""
    exchange_ns: int
    """Exchange time of that change."""
    receive_ns: int
    bids: list[Level]
    """Best first."""
    asks: list[Level]


class BookDelta(msgspec.Struct, array_like=True, gc=False):
    """One change of a valid book, or its full image when ``image`` is set. Size "0" removes a level."""

    symbol: str
    image: bool
    first_seq: int
    seq: int
    prev_seq: int
    exchange_ns: int
    receive_ns: int
    bids: list[Level]
    asks: list[Level]


class Candle(msgspec.Struct, array_like=True, gc=False):
    """The venue's own candle. Key: symbol, interval, open time; closed wins over open, later over earlier."""

    symbol: str
    interval: str
    open_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    """Empty where the venue gives none."""
    trades: int
    """-1 where the venue gives none."""
    first_id: int
    """-1 where empty or not given."""
    last_id: int
    closed: bool
    exchange_ns: int
    receive_ns: int


class Gap(msgspec.Struct, array_like=True, gc=False):
    """Something is or was missing. Key: ``id``; a higher ``revision`` replaces a lower one.

    For numbered channels (Trades, Book) ``from_seq``..``to_seq`` are the first and last missing numbers and
    ``missing`` the ranges still missing. Where numbers are not dense (Ticker) they are the last number seen before and
    the first seen after, both excluded, and ``missing`` is empty. -1 = not known (yet).
    ``from_ns``/``to_ns`` are receive times of the last event before and the first after; 0 = not known (yet).
    """

    id: str
    symbol: str
    channel: str
    cause: str
    """sequence | disconnected | shutdown | killed | session_lost | shed | redis_lost | book."""
    state: str
    """open | closed. Closed: the extent is final and (numbered) all is repaired, or the stream flows again, or the
    instrument was delisted or is wanted no longer (``to_ns``; ``to_seq`` is not known then)."""
    from_seq: int
    to_seq: int
    missing: list[tuple[int, int]]
    from_ns: int
    to_ns: int
    repaired_by: str
    """Empty, or late | snapshot:<id> | backfill:<command>."""
    revision: int
    detected_ns: int
    """Receive time of the record that showed it."""


class DeadLetter(msgspec.Struct, array_like=True, gc=False):
    """A frame or event that could not be handled. Key: session, batch, index."""

    session: str
    batch: int
    index: int
    conn: int
    receive_ns: int
    reason: str
    detail: str
    code_version: str
    payload: bytes


class Instrument(msgspec.Struct, array_like=True, gc=False):
    """Metadata of one instrument as the venue states it now. Key: symbol; a change of content makes a new version."""

    symbol: str
    native: str
    type: str
    """Spot | Perpetual | Future | Option | Combo."""
    base: str
    quote: str
    settle: str
    status: str
    tick: str
    lot: str
    contract_size: str
    expiry_ns: int
    """0 = never."""
    strike: str
    option_type: str
    """call | put | empty."""
    receive_ns: int


class EventBlock(msgspec.Struct, array_like=True):
    """All events of one commit that are stored. In each list, order per instrument is the order of emission."""

    version: int = VERSION
    trades: list[Trade] = msgspec.field(default_factory=list)
    tickers: list[Ticker] = msgspec.field(default_factory=list)
    books: list[BookSnapshot] = msgspec.field(default_factory=list)
    candles: list[Candle] = msgspec.field(default_factory=list)
    gaps: list[Gap] = msgspec.field(default_factory=list)
    dead_letters: list[DeadLetter] = msgspec.field(default_factory=list)
    instruments: list[Instrument] = msgspec.field(default_factory=list)
    traces: list[TraceRef] = msgspec.field(default_factory=list)
    """What the block is followed by. One without traces is written without this field, and readers pass over it."""

    def __len__(self) -> int:
        return (
            len(self.trades)
            + len(self.tickers)
            + len(self.books)
            + len(self.candles)
            + len(self.gaps)
            + len(self.dead_letters)
            + len(self.instruments)
        )


class DeltaBlock(msgspec.Struct, array_like=True):
    """Book changes of one commit: for readers of the stream, not stored in PostgreSQL."""

    version: int = VERSION
    deltas: list[BookDelta] = msgspec.field(default_factory=list)


_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(EventBlock)
_deltas = msgspec.msgpack.Decoder(DeltaBlock)


def encode(block: EventBlock | DeltaBlock) -> bytes:
    if type(block) is EventBlock and not block.traces:
        return _encoder.encode(msgspec.structs.astuple(block)[:-1])
    return _encoder.encode(block)


def _check(version: int) -> None:
    if version != VERSION:
        raise ValueError(f"event block has version {version}, this code reads {VERSION}: upgrade the reader")


def decode_events(data: bytes) -> EventBlock:
    """Raises ``msgspec.DecodeError`` or ValueError when it is not a block this code reads."""
    block = decode(_events, data)
    _check(block.version)
    return block


def decode_deltas(data: bytes) -> DeltaBlock:
    block = decode(_deltas, data)
    _check(block.version)
    return block
