"""Binance USD-M, REST half. Dossier sections 2, 6 and 8."""

from __future__ import annotations

from feedmill.exchanges.binance_rows import BinanceRest
from feedmill.exchanges.binance_usdm.contracts import kind_of


class UsdmRest(BinanceRest):
    """exchangeInfo takes no parameters here: one request gives every symbol, the mapper keeps the known ones."""

    root = "/fapi/v1"
    known_paths = ("/fapi/v1", "/fapi")
    depth_limit, depth_weight = 1000, 20
    info_weight = 1
    trades_path, trades_weight = "aggTrades", 20  # The last 48 hours.

    @staticmethod
    def kind(native: str, contract: str, delivery_ms: int) -> tuple[str, int]:
        return kind_of(native, contract, delivery_ms)
