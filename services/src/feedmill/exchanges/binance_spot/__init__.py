"""Binance Spot. Source: dossier binance-spot."""

from __future__ import annotations

from feedmill.exchanges.base import Arbitration, ChannelName, Venue
from feedmill.exchanges.binance_common import split_symbol
from feedmill.exchanges.binance_rows import TRADES_PAGE
from feedmill.exchanges.binance_spot.feed import INTERVALS, SpotFeed
from feedmill.exchanges.binance_spot.mapper import SpotBook, SpotMapper
from feedmill.exchanges.binance_spot.private import ACCOUNTS
from feedmill.exchanges.binance_spot.rest import SpotRest


def to_native(symbol: str) -> str:
    """``BTC-USDT`` -> ``BTCUSDT``."""
    return "".join(split_symbol(symbol, 2, "BTC-USDT"))


VENUE = Venue(
    exchange="binance",
    market="Spot",
    feed=SpotFeed,
    rest=SpotRest,
    mapper=SpotMapper,
    book_rules=SpotBook(),
    endpoints={
        "Production": {"stream": "wss://stream.binance.com:9443", "rest": "https://api.binance.com"},
        "Testnet": {"stream": "wss://stream.testnet.binance.vision", "rest": "https://testnet.binance.vision"},
    },
    arbitration={
        ChannelName.TRADES: Arbitration.CONTIGUOUS,
        ChannelName.BOOK: Arbitration.PRIMARY,
        ChannelName.TICKER: Arbitration.MONOTONIC,
        ChannelName.CANDLES: Arbitration.PRIMARY,
    },
    to_native=to_native,
    candle_intervals=INTERVALS,
    trades_page=TRADES_PAGE,
    accounts=ACCOUNTS,
    venue_candles_comparable={
        "open": True, "high": True, "low": True, "close": True, "volume": True, "quote_volume": True, "trades": True,
        "first_id": True, "last_id": True,
    },
)  # fmt: skip
