"""Wire forms of Deribit's notifications and results: only what is needed. Dossier sections 5, 6 and 8.

Numbers are taken raw, so that their text stays exact.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feedmill.exchanges.times import Number, Time


class TradeRow(msgspec.Struct, gc=False):
    timestamp: Time
    price: Raw
    amount: Raw
    direction: str
    instrument_name: str
    trade_seq: Number
    trade_id: str | int


class Quote(msgspec.Struct, gc=False):
    """Also the part of ``ticker.*`` that is needed."""

    timestamp: Time
    instrument_name: str
    best_bid_price: Raw
    best_bid_amount: Raw
    best_ask_price: Raw
    best_ask_amount: Raw


RawLevel = tuple[str, Raw, Raw]
"""(new | change | delete, price, amount)"""


class Book(msgspec.Struct, gc=False):
    timestamp: Time
    type: str
    change_id: Number
    instrument_name: str
    bids: list[RawLevel]
    asks: list[RawLevel]
    prev_change_id: Number | UnsetType = UNSET


class Bar(msgspec.Struct, gc=False):
    tick: Time
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw
    cost: Raw


class OrderBook(msgspec.Struct, gc=False):
    """Result of ``get_order_book``."""

    timestamp: Time
    change_id: Number
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]


class LastTrades(msgspec.Struct, gc=False):
    trades: list[TradeRow]


class InstrumentRow(msgspec.Struct, gc=False):
    instrument_name: str
    kind: str
    tick_size: Raw
    min_trade_amount: Raw
    contract_size: Raw
    expiration_timestamp: Time = 0
    base_currency: str = ""
    quote_currency: str = ""
    settlement_currency: str = ""
    settlement_period: str = ""
    state: str = ""
    is_active: bool = True
    option_type: str = ""
    strike: Raw | UnsetType = UNSET
