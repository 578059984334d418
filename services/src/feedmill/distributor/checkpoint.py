"""The distributor's state as fields of one Redis hash. Pure.

Fields: ``id`` (random id of the last commit), ``pos`` (raw entry id), ``en`` and ``eid`` (number and id of the last
events commit), ``n:<session>``, ``s:<session>``, ``t:<symbol>`` (trades), ``k:<symbol>`` (tickers),
``c:<symbol>/<interval>`` (candles), ``b:<symbol>`` (books), ``u:<channel>/<symbol>`` (subscribed, nothing seen yet),
``f:<symbol>`` (trades asked for by REST).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from feedmill.distributor.backfill import Filling
from feedmill.distributor.books import IDLE, SYNCING, VALID, BookMeta
from feedmill.distributor.candles import CandleTrack
from feedmill.distributor.sources import Session
from feedmill.distributor.tickers import TickerTrack
from feedmill.distributor.trades import TradeTrack
from feedmill.distributor.unseen import Awaited
from feedmill.shared.redis.ids import BEGIN

T = TypeVar("T")
BOOK_STATES = (IDLE, SYNCING, VALID)
_encoder = msgspec.msgpack.Encoder()
_trade = msgspec.msgpack.Decoder(TradeTrack)
_ticker = msgspec.msgpack.Decoder(TickerTrack)
_candle = msgspec.msgpack.Decoder(CandleTrack)
_book = msgspec.msgpack.Decoder(BookMeta)
_session = msgspec.msgpack.Decoder(Session)
_filling = msgspec.msgpack.Decoder(Filling)
_awaited = msgspec.msgpack.Decoder(Awaited)


class BadCheckpoint(ValueError):
    """A field cannot be read by this code. Nothing is guessed: the message names the field and the remedy."""


@dataclass(slots=True)
class Checkpoint:
    """Everything a distributor begins with."""

    id: str = ""
    pos: str = BEGIN
    en: int = 0
    eid: str = ""
    sessions: list[Session] = field(default_factory=list)
    batches: dict[str, int] = field(default_factory=dict)
    trades: dict[str, TradeTrack] = field(default_factory=dict)
    tickers: dict[str, TickerTrack] = field(default_factory=dict)
    candles: dict[tuple[str, str], CandleTrack] = field(default_factory=dict)
    books: dict[str, BookMeta] = field(default_factory=dict)
    unseen: dict[str, Awaited] = field(default_factory=dict)
    fillings: dict[str, Filling] = field(default_factory=dict)


def encode(state: TradeTrack | TickerTrack | CandleTrack | BookMeta | Session | Awaited | Filling) -> bytes:
    return _encoder.encode(state)


def load(fields: Mapping[bytes, bytes]) -> Checkpoint:
    """Read the hash. Raises BadCheckpoint."""
    return read_into(Checkpoint(), fields, _read, " to begin anew at the raw stream's start")


def read_into(found: T, fields: Mapping[bytes, bytes], read: Callable[[T, str, bytes], None], deleted: str) -> T:
    """``found`` with each field of a hash read by ``read``. Raises BadCheckpoint; ``deleted`` tells what it means to
    delete the checkpoint."""
    for raw, value in fields.items():
        name = raw.decode()
        try:
            read(found, name, value)
        except (msgspec.DecodeError, ValueError) as error:
            raise BadCheckpoint(
                f"checkpoint field {name!r} cannot be read ({error}): run the version that wrote it, or delete the"
                f" checkpoint{deleted}"
            ) from error
    return found


def _read(found: Checkpoint, name: str, value: bytes) -> None:
    kind, colon, rest = name.partition(":")
    if not colon:
        text: Any = value.decode()
        if name in ("id", "pos", "en", "eid"):
            setattr(found, name, int(text) if name == "en" else text)
    elif kind == "n":
        found.batches[rest] = int(value)
    elif kind == "s":
        found.sessions.append(_session.decode(value))
    elif kind == "t":
        found.trades[rest] = _trade.decode(value)
    elif kind == "k":
        found.tickers[rest] = _ticker.decode(value)
    elif kind == "b":
        found.books[rest] = _book.decode(value)
    elif kind == "f":
        found.fillings[rest] = _filling.decode(value)
    elif kind == "u":
        found.unseen[rest] = _awaited.decode(value)
    elif kind == "c":
        symbol, _, interval = rest.rpartition("/")
        found.candles[symbol, interval] = _candle.decode(value)
