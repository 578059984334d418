"""Binance Spot, REST half. Dossier sections 2, 6 and 8."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from feedmill.exchanges.base import RestRequest
from feedmill.exchanges.binance_rows import BinanceRest

SYMBOLS_PER_REQUEST = 50
"""One unknown symbol fails a request as a whole (-1121), so not all are asked for in one."""


class SpotRest(BinanceRest):
    root = "/api/v3"
    known_paths = ("/api/v3", "/api")
    depth_limit, depth_weight = 5000, 250  # What lies beyond the levels asked for stays unknown: ask for all there are.
    info_weight = 20
    list_params = {"showPermissionSets": "false"}  # noqa: RUF012  # More than half of the answer otherwise.
    trades_path, trades_weight = "historicalTrades", 25

    def instruments(self, natives: Sequence[str]) -> list[RestRequest]:
        chunks = [natives[at : at + SYMBOLS_PER_REQUEST] for at in range(0, len(natives), SYMBOLS_PER_REQUEST)]
        return [self._of(chunk) for chunk in chunks]

    def _of(self, natives: Sequence[str]) -> RestRequest:
        return self.info({"symbols": msgspec.json.encode(list(natives)).decode()})

    def halves(self, request: RestRequest) -> list[RestRequest]:
        if request.kind != "instruments":
            return []
        natives = msgspec.json.decode(request.params["symbols"], type=list[str])
        middle = len(natives) // 2
        return [self._of(part) for part in (natives[:middle], natives[middle:])] if middle else []
