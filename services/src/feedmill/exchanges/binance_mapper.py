"""What the mappers of Binance Spot and USD-M share.

The fast path decodes the combined envelope and its event in one typed call, told apart by ``e``. Whatever that refuses
(no envelope, unknown type, bad field) takes the general path, which finds the kind first, then decodes the same
structs and runs the same handlers; so both give equal events, and only the general path words errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import msgspec

from feedmill.exchanges.base import BookUpdate, MapError, Mapper, VenueEvent
from feedmill.exchanges.binance_frames import AggTrade, Envelope, Kline, Payload
from feedmill.exchanges.binance_rows import RestRows
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.times import to_ns
from feedmill.shared.events import Candle, Side, Trade

_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_envelope = msgspec.json.Decoder(Envelope)
_payload = msgspec.json.Decoder(Payload)
_name = msgspec.json.Decoder(str)
Handler = Callable[[Any, str, int], Sequence[VenueEvent]]
"""(decoded payload, stream name or "", receive_ns) -> events; KeyError for an unknown symbol."""


def decoders(kinds: Mapping[str, type[Any]]) -> Mapping[str, msgspec.json.Decoder[Any]]:
    return {kind: msgspec.json.Decoder(form) for kind, form in kinds.items()}


class BinanceMapper(Mapper):
    """Mapper half. A market names its forms by event type, and its REST rows."""

    forms: ClassVar[Mapping[str, msgspec.json.Decoder[Any]]]
    """Event type -> decoder of its payload."""
    rows: ClassVar[RestRows]

    def __init__(self, symbols: Mapping[str, str]) -> None:
        super().__init__(symbols)
        self.handlers: dict[type[Any], Handler] = {AggTrade: self._agg_trade, Kline: self._kline}

    def general(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        """Any frame of the venue in any spelling of JSON."""
        try:
            frame = _envelope.decode(payload)
            inner: Any = payload
            stream = ""
            if isinstance(frame.data, msgspec.Raw):
                inner = frame.data
                stream = _stream_name(frame.stream)
            elif isinstance(frame.event, msgspec.Raw):
                inner = frame.event
            found = self._found(inner, stream)
            kind = found.e or ("bookTicker" if found.is_book_ticker else "")
            if kind == "serverShutdown":
                return ()
            form = self.forms.get(kind)
            if form is None:
                if not kind and inner is payload and _is_answer(frame):
                    return ()
                raise MapError("unknown_event", kind or stream or "no event type")
            data = form.decode(inner)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        try:
            return self.handlers[type(data)](data, stream, receive_ns)
        except KeyError:
            self.unknown(data.s)

    @staticmethod
    def _found(inner: Any, stream: str) -> Payload:
        try:
            return _payload.decode(inner)
        except msgspec.ValidationError as error:
            if stream:  # All-market streams carry arrays: well-formed, but none of ours.
                raise MapError("unknown_event", f"{stream}: {error}") from error
            raise

    @staticmethod
    def unknown(native: str) -> NoReturn:
        raise MapError("unknown_symbol", native) from None

    def _agg_trade(self, x: AggTrade, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        side = _SELL if x.m else _BUY
        return (Trade(self.symbols[x.s], x.a, x.p, x.q, side, to_ns(x.T), receive_ns, 0, x.f, x.l),)

    def _kline(self, x: Kline, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        k = x.k
        return (
            Candle(
                self.symbols[x.s], k.i, to_ns(k.t), k.o, k.h, k.l, k.c, k.v, k.q, k.n, k.f, k.L, k.x, to_ns(x.E),
                receive_ns,
            ),
        )  # fmt: skip

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        if status != 200:
            raise MapError("rest_status", f"{kind}: HTTP {status}: {body[:200].decode('utf-8', 'replace')}")
        try:
            if kind == "book_snapshot":
                return (self._snapshot(symbol, body, receive_ns),)
            if kind == "trades":
                return self.rows.trades(symbol, body, receive_ns)
            if kind == "instruments":
                return self.rows.instruments(self.symbols, body, receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        raise MapError("unknown_kind", kind)

    def _snapshot(self, symbol: str, body: bytes, receive_ns: int) -> BookUpdate:
        x = self.rows.depth(body)
        seq = x.lastUpdateId
        return BookUpdate(symbol, True, seq, seq, -1, to_ns(x.T), receive_ns, x.bids, x.asks)


def _stream_name(raw: msgspec.Raw | msgspec.UnsetType) -> str:
    """Most events do not need it, so an unreadable one is no failure: it gets a name that fits no stream."""
    if not isinstance(raw, msgspec.Raw):
        return ""
    try:
        return _name.decode(raw)
    except DECODE_ERRORS:
        return "@?"


def _is_answer(frame: Envelope) -> bool:
    return any(isinstance(raw, msgspec.Raw) for raw in (frame.result, frame.error, frame.code))
