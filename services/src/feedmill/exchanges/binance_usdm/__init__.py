"""Binance USD-M futures. Source: dossier binance-usdm."""

from __future__ import annotations

from feedmill.exchanges.base import Arbitration, ChannelName, Venue
from feedmill.exchanges.binance_common import split_symbol
from feedmill.exchanges.binance_rows import TRADES_PAGE
from feedmill.exchanges.binance_usdm.feed import INTERVALS, UsdmFeed
from feedmill.exchanges.binance_usdm.mapper import UsdmBook, UsdmMapper
from feedmill.exchanges.binance_usdm.private import ACCOUNTS
from feedmill.exchanges.binance_usdm.rest import UsdmRest


def to_native(symbol: str) -> str:
    """``BTC-USDT`` -> ``BTCUSDT``, ``BTC-USDT-260925`` -> ``BTCUSDT_260925``."""
    base, quote, *delivery = split_symbol(symbol, 3, "BTC-USDT or BTC-USDT-260925")
    if delivery and not (len(delivery[0]) == 6 and delivery[0].isascii() and delivery[0].isdigit()):
        raise ValueError(f"{symbol!r} does not end in a delivery date: write it as YYMMDD, like BTC-USDT-260925")
    return "_".join((base + quote, *delivery))


VENUE = Venue(
    exchange="binance",
    market="UsdM",
    feed=UsdmFeed,
    rest=UsdmRest,
    mapper=UsdmMapper,
    book_rules=UsdmBook(),
    endpoints={
        "Production": {"stream": "wss://fstream.binance.com", "rest": "https://fapi.binance.com"},
        "Testnet": {"stream": "wss://fstream.binancefuture.com", "rest": "https://demo-fapi.binance.com"},
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
    # Ids and counts are compared by the raw trades that the aggregates cover. Volumes are not: aggregates leave out
    # insurance-fund and ADL trades, which the venue's candles may count.
    venue_candles_comparable={
        "open": True, "high": True, "low": True, "close": True, "volume": False, "quote_volume": False,
        "trades": "raw", "first_id": "raw", "last_id": "raw",
    },
)  # fmt: skip
