"""REST answers of Binance Spot and USD-M: requests, rows, limits. Dossiers, sections 2, 6 and 8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from feedmill.exchanges.base import Listed, Listing, Rest, RestLimits, RestRequest, TradeRange
from feedmill.exchanges.reading import DECODE_ERRORS, map_error, seconds
from feedmill.exchanges.times import Number, Time, to_ns
from feedmill.exchanges.urls import join
from feedmill.shared.events import Flag, Instrument, Level, Side, Trade

TRADES_PAGE = 1000
"""Both markets give as many trades a request."""
_BACKFILL = int(Flag.BACKFILL)
_RETRY_AFTER = {429: 60.0, 418: 300.0, 403: 60.0}
"""Seconds to stay away where the answer does not say it: a weight window, a ban, the firewall."""


class Depth(msgspec.Struct, gc=False):
    lastUpdateId: Number
    bids: list[Level]
    asks: list[Level]
    T: Time = 0
    """USD-M only."""


class HistoricalTrade(msgspec.Struct, gc=False):
    id: Number
    price: str
    qty: str
    time: Time
    isBuyerMaker: bool


class AggRow(msgspec.Struct, gc=False):
    a: Number
    p: str
    q: str
    f: Number
    l: Number  # noqa: E741
    T: Time
    m: bool


class Filter(msgspec.Struct, gc=False):
    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class SymbolRow(msgspec.Struct, gc=False):
    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[Filter] = []
    marginAsset: str = ""
    contractType: str = ""
    deliveryDate: Time = 0


class ExchangeInfo(msgspec.Struct, gc=False):
    symbols: list[msgspec.Raw]


class _Symbol(msgspec.Struct, gc=False):
    symbol: str


class _ListedRow(msgspec.Struct, gc=False):
    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    contractType: str = ""
    deliveryDate: Time = 0


_depth = msgspec.json.Decoder(Depth)
_historical = msgspec.json.Decoder(list[HistoricalTrade])
_agg = msgspec.json.Decoder(list[AggRow])
_info = msgspec.json.Decoder(ExchangeInfo)
_symbol = msgspec.json.Decoder(_Symbol)
_row = msgspec.json.Decoder(SymbolRow)
_listed = msgspec.json.Decoder(_ListedRow)
_STATES = {
    "TRADING": Listing.TRADING, "HALT": Listing.PAUSED, "END_OF_DAY": Listing.PAUSED, "CANCEL_ONLY": Listing.PAUSED,
    "PENDING_TRADING": Listing.PAUSED, "PRE_DELIVERING": Listing.PAUSED, "PRE_SETTLE": Listing.PAUSED,
}  # fmt: skip
"""Every other status is an end: BREAK (Spot: taken off the market), DELIVERING, DELIVERED, SETTLING, CLOSE."""


def historical_trades(symbol: str, body: bytes, receive_ns: int) -> list[Trade]:
    return [
        Trade(
            symbol, row.id, row.price, row.qty, Side.SELL if row.isBuyerMaker else Side.BUY, to_ns(row.time),
            receive_ns, _BACKFILL,
        )
        for row in _historical.decode(body)
    ]  # fmt: skip


def agg_trades(symbol: str, body: bytes, receive_ns: int) -> list[Trade]:
    return [
        Trade(
            symbol, row.a, row.p, row.q, Side.SELL if row.m else Side.BUY, to_ns(row.T), receive_ns, _BACKFILL,
            row.f, row.l,
        )
        for row in _agg.decode(body)
    ]  # fmt: skip


class RestRows:
    """How the answers of one market read: its trades, and type and expiry (ns, 0 = never) of a symbol."""

    def __init__(
        self,
        trades: Callable[[str, bytes, int], list[Trade]],
        kind: Callable[[SymbolRow], tuple[str, int]],
    ) -> None:
        self.trades = trades
        self._kind = kind

    @staticmethod
    def depth(body: bytes) -> Depth:
        return _depth.decode(body)

    def instruments(self, symbols: Mapping[str, str], body: bytes, receive_ns: int) -> list[Instrument]:
        """The known symbols among ``exchangeInfo``; the others are not even decoded, whatever they hold."""
        found = []
        for raw in _info.decode(body).symbols:
            symbol = symbols.get(_symbol.decode(raw).symbol)
            if symbol is not None:
                found.append(self._instrument(symbol, _row.decode(raw), receive_ns))
        return found

    def _instrument(self, symbol: str, row: SymbolRow, receive_ns: int) -> Instrument:
        filters = {entry.filterType: entry for entry in row.filters}
        price, lot = filters.get("PRICE_FILTER"), filters.get("LOT_SIZE")
        kind, expiry_ns = self._kind(row)
        return Instrument(
            symbol=symbol, native=row.symbol, type=kind, base=row.baseAsset, quote=row.quoteAsset,
            settle=row.marginAsset or row.quoteAsset, status=row.status, tick=price.tickSize if price else "",
            lot=lot.stepSize if lot else "", contract_size="1", expiry_ns=expiry_ns, strike="", option_type="",
            receive_ns=receive_ns,
        )  # fmt: skip


class BinanceRest(Rest):
    """REST half; a market names its root, limits of depth and weights."""

    root: ClassVar[str]
    known_paths: ClassVar[tuple[str, ...]]
    depth_limit: ClassVar[int]
    depth_weight: ClassVar[int]
    info_weight: ClassVar[int]
    trades_path: ClassVar[str]
    """Whose ids are those of the trades stream."""
    trades_weight: ClassVar[int]

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.base = join(base, self.known_paths, self.root)

    def instruments(self, natives: Sequence[str]) -> list[RestRequest]:
        return [self.info({})] if natives else []

    def info(self, params: Mapping[str, str]) -> RestRequest:
        return RestRequest("instruments", f"{self.base}/exchangeInfo", params, self.info_weight)

    list_params: ClassVar[Mapping[str, str]] = {}
    """Of the request for all symbols: what makes it smaller."""

    def listing(self, types: frozenset[str]) -> list[RestRequest]:
        return [RestRequest("listing", f"{self.base}/exchangeInfo", self.list_params, self.info_weight)]

    def read_listing(self, body: bytes) -> Iterator[Listed]:
        try:
            rows = _info.decode(body).symbols
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        for raw in rows:
            try:
                row = _listed.decode(raw)
            except DECODE_ERRORS:
                continue
            yield self._one(row)

    def _one(self, row: _ListedRow) -> Listed:
        kind, expiry_ns = self.kind(row.symbol, row.contractType, row.deliveryDate)
        delivery = row.symbol.partition("_")[2] if kind == "Future" else ""
        symbol = "-".join((row.baseAsset, row.quoteAsset, *([delivery] if delivery else [])))
        state = _STATES.get(row.status, Listing.ENDED)
        return Listed(symbol, row.symbol, kind, row.baseAsset, row.quoteAsset, expiry_ns, state)

    @staticmethod
    def kind(native: str, contract: str, delivery_ms: int) -> tuple[str, int]:
        """Type and expiry (ns, 0 = never) of a symbol."""
        return "Spot", 0

    def book_snapshot(self, symbol: str, native: str) -> RestRequest:
        params = {"symbol": native, "limit": str(self.depth_limit)}
        return RestRequest("book_snapshot", f"{self.base}/depth", params, self.depth_weight, symbol, native)

    def trades(self, symbol: str, native: str, wanted: TradeRange) -> RestRequest:
        """From an id on, ascending; where that is gone, from the first there is."""
        params = {"symbol": native, "fromId": str(wanted.from_id), "limit": str(min(wanted.count, TRADES_PAGE))}
        return RestRequest("trades", f"{self.base}/{self.trades_path}", params, self.trades_weight, symbol, native)

    def read_limits(self, status: int, headers: Mapping[str, str], body: bytes) -> RestLimits:
        lower: dict[str, Any] = {name.lower(): value for name, value in headers.items()}
        used, wait = lower.get("x-mbx-used-weight-1m", ""), _RETRY_AFTER.get(status)
        if wait is not None:
            wait = seconds(lower.get("retry-after", ""), wait)
        return RestLimits(int(used) if used.isascii() and used.isdigit() else None, wait)
