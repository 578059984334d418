"""Deribit, mapper half: ``trades.*``, ``book.*``, ``quote.*``, ``ticker.*``, ``chart.trades.*``. Dossier sections 5, 6.

Candles come without a closed flag and without a time of their own: every one maps to ``closed=False`` and
``exchange_ns`` 0, and is known to be closed once one with a later open time is there. The mapper holds no state, so it
cannot say so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feedmill.exchanges.base import BookRules, BookUpdate, Chain, MapError, Mapper, VenueEvent
from feedmill.exchanges.deribit import rows
from feedmill.exchanges.deribit.feed import INTERVALS
from feedmill.exchanges.deribit.frames import Bar, Book, Quote, RawLevel, TradeRow
from feedmill.exchanges.deribit.numbers import decimal_text, side, ticker_seq
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.times import to_ns
from feedmill.shared.events import Candle, Level, Ticker

_START = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'
_KIND = slice(len(_START), len(_START) + 4)


class _Params(msgspec.Struct, gc=False):
    channel: str
    data: Raw


class _Frame(msgspec.Struct, gc=False):
    method: str = ""
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_frame = msgspec.json.Decoder(_Frame)
_params = msgspec.json.Decoder(_Params)


def _decoder(data: Any) -> msgspec.json.Decoder[Any]:
    """Decoder of a whole notification whose data is of this form."""
    params = msgspec.defstruct("Params", [("channel", str), ("data", data)], gc=False)
    return msgspec.json.Decoder(msgspec.defstruct("Notification", [("params", params)], gc=False))


_FORMS: Mapping[str, Any] = {"trades": list[TradeRow], "book": Book, "quote": Quote, "ticker": Quote, "chart": Bar}
_DATA = {kind: msgspec.json.Decoder(form) for kind, form in _FORMS.items()}
# By the first four letters of the channel, which tell these five apart from each other.
_WHOLE = {kind[:4].encode(): _decoder(form) for kind, form in _FORMS.items()}


def _levels(levels: list[RawLevel]) -> list[Level]:
    found = []
    for action, price, amount in levels:
        if action == "delete":
            found.append((decimal_text(price), "0"))
        elif action in ("new", "change"):
            found.append((decimal_text(price), decimal_text(amount)))
        else:
            raise MapError("bad_field", f"unknown book action {action[:40]}")
    return found


class DeribitMapper(Mapper):
    def __init__(self, symbols: Mapping[str, str]) -> None:
        super().__init__(symbols)
        handlers: dict[str, Callable[[Any, str, int], Sequence[VenueEvent]]] = {
            "trades": self._trades,
            "book": self._book,
            "quote": self._quote,
            "ticker": self._quote,
            "chart": self._candle,
        }
        self._handlers = handlers
        self._fast = {
            kind[:4].encode(): (f"{kind}.".encode(), _WHOLE[kind[:4].encode()].decode, handlers[kind])
            for kind in handlers
        }

    def map(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        if payload.startswith(_START) and (found := self._fast.get(payload[_KIND])) is not None:
            start, decode, handle = found
            if payload.startswith(start, _KIND.start):
                try:
                    params = decode(payload).params
                    return handle(params.data, params.channel, receive_ns)
                except (*DECODE_ERRORS, KeyError):
                    pass
        return self.general(payload, receive_ns)

    def general(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        """Any frame of the venue in any spelling of JSON."""
        try:
            frame = _frame.decode(payload)
            if frame.method == "heartbeat":
                return ()
            if frame.method != "subscription":
                if not frame.method and (isinstance(frame.result, Raw) or isinstance(frame.error, Raw)):
                    return ()
                raise MapError("unknown_event", frame.method or "no method")
            if not isinstance(frame.params, Raw):
                raise MapError("missing_field", "params")
            params = _params.decode(frame.params)
            kind = params.channel.partition(".")[0]
            form = _DATA.get(kind)
            if form is None or (kind == "chart" and not params.channel.startswith("chart.trades.")):
                raise MapError("unknown_event", params.channel)
            data = form.decode(params.data)
            return self._handlers[kind](data, params.channel, receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None

    def _trades(self, data: list[TradeRow], channel: str, receive_ns: int) -> Sequence[VenueEvent]:
        symbols = self.symbols
        return [rows.trade(symbols[row.instrument_name], row, receive_ns) for row in data]

    def _book(self, x: Book, channel: str, receive_ns: int) -> Sequence[VenueEvent]:
        snapshot = x.type == "snapshot"
        previous = x.prev_change_id
        if snapshot:
            previous = -1
        elif x.type != "change":
            raise MapError("bad_field", f"book type {x.type[:40]}")
        elif not isinstance(previous, int):
            raise MapError("missing_field", "prev_change_id of a change")
        return (
            BookUpdate(
                self.symbols[x.instrument_name], snapshot, x.change_id, x.change_id, previous, to_ns(x.timestamp),
                receive_ns, _levels(x.bids), _levels(x.asks),
            ),
        )  # fmt: skip

    def _quote(self, x: Quote, channel: str, receive_ns: int) -> Sequence[VenueEvent]:
        symbol = self.symbols[x.instrument_name]
        bid, bid_size = side(x.best_bid_price, x.best_bid_amount)
        ask, ask_size = side(x.best_ask_price, x.best_ask_amount)
        exchange_ns = to_ns(x.timestamp)
        seq = ticker_seq(x.instrument_name, exchange_ns // 1_000_000, bid, bid_size, ask, ask_size)
        return (Ticker(symbol, seq, bid, bid_size, ask, ask_size, exchange_ns, receive_ns),)

    def _candle(self, x: Bar, channel: str, receive_ns: int) -> Sequence[VenueEvent]:
        words = channel.split(".")
        interval = INTERVALS.get(words[-1])
        if len(words) != 4 or words[1] != "trades" or interval is None:
            raise MapError("unknown_event", channel)
        return (
            Candle(
                self.symbols[words[2]], interval, to_ns(x.tick), decimal_text(x.open), decimal_text(x.high),
                decimal_text(x.low), decimal_text(x.close), decimal_text(x.volume), decimal_text(x.cost), -1, -1, -1,
                False, 0, receive_ns,
            ),
        )  # fmt: skip

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        if status != 200:
            raise MapError("rest_status", f"{kind}: HTTP {status}: {body[:200].decode('utf-8', 'replace')}")
        try:
            if kind == "book_snapshot":
                return (rows.order_book(symbol, body, receive_ns),)
            if kind == "trades":
                return rows.last_trades(symbol, body, receive_ns)
            if kind == "instruments":
                return rows.instruments(self.symbols, body, receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        raise MapError("unknown_kind", kind)


class DeribitBook(BookRules):
    """A subscription's first message is the snapshot; each change names the change before it. Ids jump."""

    bootstrap = "inband"
    dense = False

    def first(self, snapshot_seq: int, update: BookUpdate) -> Chain:
        return self.next(snapshot_seq, update)

    def next(self, last_seq: int, update: BookUpdate) -> Chain:
        if update.prev_seq == last_seq:
            return Chain.APPLY
        return Chain.STALE if update.seq <= last_seq else Chain.BREAK
