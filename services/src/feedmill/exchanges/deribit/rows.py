"""Rows of Deribit: a trade (stream and REST alike), and the REST results. Dossier sections 6 and 8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from feedmill.exchanges.base import BookUpdate, Listed, Listing, MapError
from feedmill.exchanges.deribit.frames import InstrumentRow, LastTrades, OrderBook, TradeRow
from feedmill.exchanges.deribit.numbers import decimal_text
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.times import Time, to_ns
from feedmill.shared.events import Flag, Instrument, Side, Trade

NEVER_MS = 32_503_708_800_000
"""expiration_timestamp of what never expires."""
_SIDES = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
_TYPES = {
    "future": "Future", "option": "Option", "spot": "Spot", "future_combo": "Combo", "option_combo": "Combo",
}  # fmt: skip
_STATES = {
    "open": Listing.TRADING, "created": Listing.PAUSED, "started": Listing.PAUSED, "locked": Listing.PAUSED,
    "halted": Listing.PAUSED,
}  # fmt: skip
"""Every other state is an end: settlement, delivered, closed, inactive, archivized, terminated."""


class _Name(msgspec.Struct, gc=False):
    instrument_name: str


class _ListedRow(msgspec.Struct, gc=False):
    instrument_name: str
    kind: str
    base_currency: str
    quote_currency: str
    expiration_timestamp: Time = 0
    settlement_period: str = ""
    state: str = ""
    is_active: bool = True


def _result(form: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("Answer", [("result", form)], gc=False))


_book, _trades, _raw = _result(OrderBook), _result(LastTrades), _result(Raw)
_list = msgspec.json.Decoder(list[Raw])
_name = msgspec.json.Decoder(_Name)
_row = msgspec.json.Decoder(InstrumentRow)
_raws = _result(list[Raw])
_listed = msgspec.json.Decoder(_ListedRow)


def trade(symbol: str, row: TradeRow, receive_ns: int, flags: int = 0) -> Trade:
    side = _SIDES.get(row.direction)
    if side is None:
        raise MapError("bad_field", f"direction {row.direction[:40]}")
    return Trade(
        symbol, row.trade_seq, decimal_text(row.price), decimal_text(row.amount), side, to_ns(row.timestamp),
        receive_ns, flags, 0, 0, str(row.trade_id),
    )  # fmt: skip


def last_trades(symbol: str, body: bytes, receive_ns: int) -> list[Trade]:
    """``get_last_trades_by_instrument``: the rows are roughly, not strictly sorted, and may repeat: both mended."""
    found = {row.trade_seq: row for row in _trades.decode(body).result.trades}
    return [trade(symbol, found[seq], receive_ns, int(Flag.BACKFILL)) for seq in sorted(found)]


def order_book(symbol: str, body: bytes, receive_ns: int) -> BookUpdate:
    x = _book.decode(body).result
    bids, asks = ([(decimal_text(p), decimal_text(a)) for p, a in levels] for levels in (x.bids, x.asks))
    return BookUpdate(symbol, True, x.change_id, x.change_id, -1, to_ns(x.timestamp), receive_ns, bids, asks)


def instruments(symbols: Mapping[str, str], body: bytes, receive_ns: int) -> list[Instrument]:
    """``get_instruments`` (a list) or ``get_instrument`` (one): the known symbols among them."""
    result = _raw.decode(body).result
    many = _list.decode(result) if bytes(result).startswith(b"[") else [result]
    found = []
    for raw in many:
        symbol = symbols.get(_name.decode(raw).instrument_name)
        if symbol is not None:
            found.append(_instrument(symbol, _row.decode(raw), receive_ns))
    return found


def listing(body: bytes) -> Iterator[Listed]:
    """``get_instruments``: every row of it that can be read."""
    try:
        found = _raws.decode(body).result
    except DECODE_ERRORS as error:
        raise map_error(error) from error
    for raw in found:
        try:
            row = _listed.decode(raw)
        except DECODE_ERRORS:
            continue
        kind = _kind(row.kind, row.settlement_period)
        if kind is not None:
            name, expiry = row.instrument_name, row.expiration_timestamp
            state = _STATES.get(row.state, Listing.ENDED) if row.state else Listing.TRADING
            if not row.is_active and state is Listing.TRADING:
                state = Listing.ENDED
            expiry_ns = to_ns(expiry) if expiry < NEVER_MS else 0
            yield Listed(name, name, kind, row.base_currency, row.quote_currency, expiry_ns, state)


def _kind(kind: str, settlement_period: str) -> str | None:
    """Our type; None = a kind not known here."""
    return "Perpetual" if kind == "future" and settlement_period == "perpetual" else _TYPES.get(kind)


def _instrument(symbol: str, row: InstrumentRow, receive_ns: int) -> Instrument:
    kind = _kind(row.kind, row.settlement_period)
    if kind is None:
        raise MapError("bad_field", f"kind {row.kind[:40]}")
    expiry = row.expiration_timestamp
    return Instrument(
        symbol=symbol, native=row.instrument_name, type=kind, base=row.base_currency, quote=row.quote_currency,
        settle=row.settlement_currency, status=row.state or ("open" if row.is_active else "inactive"),
        tick=decimal_text(row.tick_size), lot=decimal_text(row.min_trade_amount),
        contract_size=decimal_text(row.contract_size), expiry_ns=to_ns(expiry) if expiry < NEVER_MS else 0,
        strike=decimal_text(row.strike) if isinstance(row.strike, Raw) else "", option_type=row.option_type,
        receive_ns=receive_ns,
    )  # fmt: skip
