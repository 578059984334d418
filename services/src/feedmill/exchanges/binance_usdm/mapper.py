"""Binance USD-M, mapper half: ``@aggTrade``, ``@depth``, ``@bookTicker``, ``@kline_*``. Dossier sections 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from feedmill.exchanges.base import BookRules, BookUpdate, Chain, MapError, VenueEvent
from feedmill.exchanges.binance_frames import AggTrade, Kline, UsdmDepth, UsdmTicker
from feedmill.exchanges.binance_mapper import BinanceMapper, decoders
from feedmill.exchanges.binance_rows import RestRows, SymbolRow, agg_trades
from feedmill.exchanges.binance_usdm.contracts import kind_of
from feedmill.exchanges.reading import DECODE_ERRORS
from feedmill.exchanges.times import to_ns
from feedmill.shared.events import Ticker

_DIFF = frozenset({"", "depth", "depth@100ms", "depth@500ms"})
"""Partial books and ``@rpiDepth`` have the event type of changes: only the stream's name tells them apart."""


class _Typed(msgspec.Struct, gc=False):
    data: AggTrade | UsdmTicker | UsdmDepth | Kline
    stream: str = ""


_typed = msgspec.json.Decoder(_Typed).decode


def _kind(row: SymbolRow) -> tuple[str, int]:
    return kind_of(row.symbol, row.contractType, row.deliveryDate)


class UsdmMapper(BinanceMapper):
    forms = decoders({"aggTrade": AggTrade, "depthUpdate": UsdmDepth, "bookTicker": UsdmTicker, "kline": Kline})
    rows = RestRows(agg_trades, _kind)

    def __init__(self, symbols: Mapping[str, str]) -> None:
        super().__init__(symbols)
        self.handlers |= {UsdmDepth: self._depth, UsdmTicker: self._quote}

    def map(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        try:
            frame = _typed(payload)
            data = frame.data
            return self.handlers[type(data)](data, frame.stream, receive_ns)
        except (*DECODE_ERRORS, KeyError):
            return self.general(payload, receive_ns)

    def _depth(self, x: UsdmDepth, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        if stream.partition("@")[2] not in _DIFF:
            raise MapError("unknown_event", stream)
        return (BookUpdate(self.symbols[x.s], False, x.U, x.u, x.pu, to_ns(x.T), receive_ns, x.b, x.a),)

    def _quote(self, x: UsdmTicker, stream: str, receive_ns: int) -> Sequence[VenueEvent]:
        return (Ticker(self.symbols[x.s], x.u, x.b, x.B, x.a, x.A, to_ns(x.T), receive_ns),)


class UsdmBook(BookRules):
    """Ids are shared by all symbols, so they jump; ``pu`` is the ``u`` of the message before."""

    bootstrap = "rest"
    dense = False

    def first(self, snapshot_seq: int, update: BookUpdate) -> Chain:
        if update.seq < snapshot_seq:
            return Chain.STALE
        spans = update.first_seq <= snapshot_seq <= update.seq
        return Chain.APPLY if spans or update.prev_seq == snapshot_seq else Chain.BREAK

    def next(self, last_seq: int, update: BookUpdate) -> Chain:
        if update.prev_seq == last_seq:
            return Chain.APPLY
        return Chain.STALE if update.seq <= last_seq else Chain.BREAK
