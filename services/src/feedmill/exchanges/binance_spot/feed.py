"""Binance Spot, feed half: one combined socket, subscribed by message. Dossier sections 1 to 5."""

from __future__ import annotations

from feedmill.exchanges.base import ChannelName, VenueLimits
from feedmill.exchanges.binance_common import BinanceFeed

INTERVALS = frozenset(
    ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
)


class SpotFeed(BinanceFeed):
    limits = VenueLimits(
        connects=300,
        connects_window=300.0,
        messages_per_second=4.0,  # The venue allows 5, pongs included.
        topics_per_connection=1024,
        topics_per_request=100,  # Keeps a message below 4 KiB.
        request_weight=6000,
        request_window=60.0,
        weight_windows=True,
        connection_lifetime=86_400.0,
        silence=60.0,  # The venue pings every 20 s.
    )
    # By first letter, the busiest first, so that "!serverShutdown" in its envelope is not taken for data. Streams of
    # symbols in other scripts are merely judged the slow way.
    data_prefixes = tuple(b'{"stream":"' + bytes([letter]) for letter in b"besxdaplt1cfghijkmnoqruvwyz023456789")
    streams = {  # noqa: RUF012
        ChannelName.TRADES: "trade",
        ChannelName.BOOK: "depth@100ms",
        ChannelName.TICKER: "bookTicker",
        ChannelName.CANDLES: "kline_{interval}",
    }
    sockets = dict.fromkeys(ChannelName, "stream")
    paths = {"stream": "/stream"}  # noqa: RUF012
    known_paths = ("/stream", "/ws")
    intervals = INTERVALS
