"""Binance USD-M, feed half: the venue's routed roots need two sockets. Dossier sections 1 to 5.

A stream on the wrong root is acknowledged and stays silent, so the table of sockets below is what matters.
"""

from __future__ import annotations

from feedmill.exchanges.base import ChannelName, VenueLimits
from feedmill.exchanges.binance_common import BinanceFeed

INTERVALS = frozenset(["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"])


class UsdmFeed(BinanceFeed):
    limits = VenueLimits(
        connects=300,  # Undocumented here: Spot's.
        connects_window=300.0,
        messages_per_second=8.0,  # The venue allows 10.
        topics_per_connection=1024,
        topics_per_request=100,  # Keeps a message below 4 KiB.
        request_weight=2400,
        request_window=60.0,
        weight_windows=True,
        connection_lifetime=86_400.0,
        # The only sign of life of a quiet market is the ping every 3 minutes. A feed of busy ones can say less in
        # its manifest (receiver.reconnect.silenceTimeout).
        silence=200.0,
    )
    data_prefixes = (b'{"stream":"',)
    streams = {  # noqa: RUF012
        ChannelName.TRADES: "aggTrade",
        ChannelName.BOOK: "depth@100ms",
        ChannelName.TICKER: "bookTicker",
        ChannelName.CANDLES: "kline_{interval}",
    }
    sockets = {  # noqa: RUF012
        ChannelName.TRADES: "market",
        ChannelName.BOOK: "public",
        ChannelName.TICKER: "public",
        ChannelName.CANDLES: "market",
    }
    paths = {"public": "/public/stream", "market": "/market/stream"}  # noqa: RUF012
    known_paths = ("/stream", "/ws", "/public", "/market", "/private")
    intervals = INTERVALS
