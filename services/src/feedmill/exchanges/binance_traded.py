"""Which instruments of Binance an account may trade, from ``exchangeInfo``: all of them, whatever is subscribed."""

from __future__ import annotations

import msgspec

from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.reading import DECODE_ERRORS, map_error


class _Symbol(msgspec.Struct, gc=False):
    symbol: str
    baseAsset: str
    quoteAsset: str
    marginAsset: str = ""


class _Info(msgspec.Struct, gc=False):
    symbols: list[_Symbol]


_info = msgspec.json.Decoder(_Info)


def traded(body: bytes) -> dict[str, Traded]:
    """By canonical symbol: ``BTC-USDT``, and ``BTC-USDT-260925`` where a contract has a delivery. Raises MapError."""
    try:
        rows = _info.decode(body).symbols
    except DECODE_ERRORS as error:
        raise map_error(error) from error
    found = {}
    for row in rows:
        _, underscore, delivery = row.symbol.partition("_")
        symbol = f"{row.baseAsset}-{row.quoteAsset}" + (f"-{delivery}" if underscore else "")
        assets = (row.marginAsset,) if row.marginAsset else (row.baseAsset, row.quoteAsset)
        found[symbol] = Traded(row.symbol, assets)
    return found
