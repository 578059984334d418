"""Deribit (API v2): perpetuals, futures, options, spot, combos. Source: dossier deribit."""

from __future__ import annotations

from feedmill.exchanges.base import Arbitration, ChannelName, Venue
from feedmill.exchanges.deribit.feed import RESOLUTIONS, DeribitFeed
from feedmill.exchanges.deribit.mapper import DeribitBook, DeribitMapper
from feedmill.exchanges.deribit.names import to_native
from feedmill.exchanges.deribit.private import ACCOUNTS
from feedmill.exchanges.deribit.rest import TRADES_PAGE, DeribitRest

VENUE = Venue(
    exchange="deribit",
    market="Derivatives",
    feed=DeribitFeed,
    rest=DeribitRest,
    mapper=DeribitMapper,
    book_rules=DeribitBook(),
    endpoints={
        "Production": {"stream": "wss://www.deribit.com", "rest": "https://www.deribit.com"},
        "Testnet": {"stream": "wss://test.deribit.com", "rest": "https://test.deribit.com"},
    },
    arbitration={
        ChannelName.TRADES: Arbitration.CONTIGUOUS,
        ChannelName.BOOK: Arbitration.PRIMARY,
        ChannelName.TICKER: Arbitration.PRIMARY,
        ChannelName.CANDLES: Arbitration.PRIMARY,
    },
    to_native=to_native,
    candle_intervals=frozenset(RESOLUTIONS),
    trades_page=TRADES_PAGE,
    accounts=ACCOUNTS,
    # The volume is in coin, a trade's amount in USD where the contract is inverse; ids and counts are not given.
    venue_candles_comparable={
        "open": True, "high": True, "low": True, "close": True, "volume": False, "quote_volume": False,
        "trades": False, "first_id": False, "last_id": False,
    },
)  # fmt: skip
