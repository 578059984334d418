"""Binance Spot, mapper half: ``@trade``, ``@depth``, ``@bookTicker``, ``@kline_*``. Dossier sections 5 and 6.

``@aggTrade`` is not subscribed; found in an archive it maps to Trade under its own ids (``a``, covering ``f``..``l``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from feedmill.exchanges.base import BookRules, BookUpdate, Chain, VenueEvent
from feedmill.exchanges.binance_frames import AggTrade, Kline, SpotDepth, SpotTicker, SpotTrade
from feedmill.exchanges.binance_mapper import BinanceMapper, decoders
from feedmill.exchanges.binance_rows import RestRows, historical_trades
from feedmill.exchanges.reading import DECODE_ERRORS
from feedmill.exchanges.times import to_ns
from feedmill.shared.events import Side, Ticker, Trade

_BUY, _SELL = int(Side.BUY), int(Side.SELL)


class _Typed(msgspec.Struct, gc=False):
    data: SpotTrade | SpotDepth | AggTrade | Kline


class _Ticker(msgspec.Struct, gc=False):
    data: SpotTicker


_typed = msgspec.json.Decoder(_Typed).decode
_ticker = msgspec.json.Decoder(_Ticker).decode


class SpotMapper(BinanceMapper):
    forms = decoders(
        {
            "trade": SpotTrade,
            "aggTrade": AggTrade,
            "depthUpdate": SpotDepth,
            "bookTicker": SpotTicker,
            "kline": Kline,
        }
    )
    rows = RestRows(historical_trades, lambda row: ("Spot", 0))

    def __init__(self, symbols: Mapping[str, str]) -> None:
        super().__init__(symbols)
        self.handlers |= {SpotTrade: self._trade, SpotDepth: self._depth, SpotTicker: self._quote}

    def map(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        try:
            # bookTicker alone has no event type: its stream's name says what it is.
            if payload.find(b"@bookT", 11, 64) > 0:
                return self._quote(_ticker(payload).data, "", receive_ns)
            data = _typed(payload).data
            if type(data) is SpotTrade:
                return self._trade(data, "", receive_ns)
            return self.handlers[type(data)](data, "", receive_ns)
        except (*DECODE_ERRORS, KeyError):
            return self.general(payload, receive_ns)

    def _trade(self, x: SpotTrade, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        side = _SELL if x.m else _BUY
        return (Trade(self.symbols[x.s], x.t, x.p, x.q, side, to_ns(x.T), receive_ns),)

    def _depth(self, x: SpotDepth, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        return (BookUpdate(self.symbols[x.s], False, x.U, x.u, -1, to_ns(x.E), receive_ns, x.b, x.a),)

    def _quote(self, x: SpotTicker, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        return (Ticker(self.symbols[x.s], x.u, x.b, x.B, x.a, x.A, 0, receive_ns),)


class SpotBook(BookRules):
    """Update ids are dense: U is the u before plus one. The working test, also right after a snapshot."""

    bootstrap = "rest"
    dense = True

    def first(self, snapshot_seq: int, update: BookUpdate) -> Chain:
        return self.next(snapshot_seq, update)

    def next(self, last_seq: int, update: BookUpdate) -> Chain:
        if update.seq <= last_seq:
            return Chain.STALE
        return Chain.APPLY if update.first_seq <= last_seq + 1 else Chain.BREAK
