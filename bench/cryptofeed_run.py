# mypy: ignore-errors
"""cryptofeed as its users run it: BINANCE trades into one of its own backends. Executed by its own venv's Python.

Nothing of it is changed but the two addresses (stream and REST), which point to the bench's server. uvloop is on (its
default), logging at WARNING, no multiprocessing. The settings come as JSON in BENCH_SETTINGS:
``{"port", "symbols", "backend": "redis"|"postgres", "redis": {host, port}, "postgres": {host, port, user, pw, db}}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.backends.postgres import TradePostgres
from cryptofeed.backends.redis import TradeStream
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import TRADES
from cryptofeed.exchanges import Binance


def feed_class(port: int) -> type[Binance]:
    class LoopbackBinance(Binance):
        websocket_endpoints = [WebsocketEndpoint(f"wss://127.0.0.1:{port}")]  # noqa: RUF012
        rest_endpoints = [  # noqa: RUF012
            RestEndpoint(
                f"https://127.0.0.1:{port}",
                routes=Routes("/api/v3/exchangeInfo", l2book="/api/v3/depth?symbol={}&limit={}"),
            )
        ]

    return LoopbackBinance


def backend(settings: dict[str, Any]) -> Any:
    if settings["backend"] == "redis":
        return TradeStream(**settings["redis"])
    return TradePostgres(**settings["postgres"])


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # its postgres backend uses datetime.utcfromtimestamp
    settings = json.loads(os.environ["BENCH_SETTINGS"])
    handler = FeedHandler()
    if sys.version_info < (3, 12):
        import uvloop

        # cryptofeed 2.4.1 takes the current loop, which uvloop of today no longer makes by itself.
        asyncio.set_event_loop(uvloop.new_event_loop())
    handler.add_feed(
        feed_class(settings["port"])(
            symbols=settings["symbols"], channels=[TRADES], callbacks={TRADES: backend(settings)}
        )
    )
    handler.run()


if __name__ == "__main__":
    main()
