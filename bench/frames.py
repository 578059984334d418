"""Binance Spot trade frames, made by hand: complete WebSocket server frames, as cheap as bytes formatting gets.

Sources: shared/exchanges/binance-spot.md sections 4 and 5 (combined streams, trade, aggTrade), RFC 6455 section 5.2.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence

from bench.stamps import BASE_ID

SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")
"""The bench's instruments, canonical; messages go round them."""
_PRICES = {"BTC-USDT": 64123, "ETH-USDT": 34567, "SOL-USDT": 14321, "XRP-USDT": 10203}
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def native(symbol: str) -> str:
    return symbol.replace("-", "")


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a client's key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def server_frame(payload: bytes, opcode: int = 1) -> bytes:
    """One unmasked frame with FIN set."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return head + payload


def _template(symbol: str, channel: str, maker: bool, combined: bool, micros: bool) -> bytes:
    """A frame with holes for: event time, id (thrice for aggTrade), cents, size, trade time."""
    name = native(symbol)
    flag = "true" if maker else "false"
    ids = '"t":%d' if channel == "trade" else '"a":%d'
    covered = "" if channel == "trade" else '"f":%d,"l":%d,'
    text = (
        f'{{"e":"{channel}","E":%d,"s":"{name}",{ids},"p":"{_PRICES[symbol]}.%02d000000","q":"0.%05d000",'
        f'{covered}"T":%d,"m":{flag},"M":true}}'
    )
    if combined:
        text = f'{{"stream":"{name.lower()}@{channel}","data":{text}}}'
    stamp = 10**15 if micros else 10**12
    values = (stamp, BASE_ID, 0, 0, stamp) if channel == "trade" else (stamp, BASE_ID, 0, 0, BASE_ID, BASE_ID, stamp)
    size = len((text % values).encode())
    return server_frame(bytes(size))[:-size] + text.encode()


class TradeFrames:
    """Frames of message 0, 1, 2, ...: message ``k`` is a trade of symbol ``k % S`` with id ``BASE_ID + k // S``."""

    def __init__(
        self, symbols: Sequence[str], channel: str = "trade", *, combined: bool = True, micros: bool = False
    ) -> None:
        """``channel``: trade or aggTrade. ``micros``: times in us (``timeUnit=MICROSECOND``)."""
        self.symbols = tuple(symbols)
        self.channel = channel
        self._divisor = 1_000 if micros else 1_000_000
        self._templates = [
            (_template(s, channel, True, combined, micros), _template(s, channel, False, combined, micros))
            for s in symbols
        ]

    def frame(self, number: int, now_ns: int | None = None) -> bytes:
        """The frame of message ``number``; ``now_ns`` (UTC) is its event and trade time."""
        count = len(self._templates)
        trade, index = divmod(number, count)
        stamp = (time.time_ns() if now_ns is None else now_ns) // self._divisor
        template = self._templates[index][trade & 1]
        if self.channel == "trade":
            return template % (stamp, BASE_ID + trade, trade % 100, trade % 99991 + 1, stamp)
        unit = BASE_ID + trade
        return template % (stamp, unit, trade % 100, trade % 99991 + 1, unit, unit, stamp)


def exchange_info(symbols: Sequence[str]) -> bytes:
    """The answer of ``/api/v3/exchangeInfo`` for these symbols."""
    rows = []
    for symbol in symbols:
        base, quote = symbol.split("-")
        rows.append(
            {
                "symbol": base + quote,
                "status": "TRADING",
                "baseAsset": base,
                "baseAssetPrecision": 8,
                "quoteAsset": quote,
                "quotePrecision": 8,
                "quoteAssetPrecision": 8,
                "orderTypes": ["LIMIT", "MARKET"],
                "isSpotTradingAllowed": True,
                "isMarginTradingAllowed": False,
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
                    {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.00000", "stepSize": "0.00001"},
                ],
                "permissions": [],
                "permissionSets": [["SPOT"]],
            }
        )
    return json.dumps(
        {"timezone": "UTC", "serverTime": time.time_ns() // 1_000_000, "rateLimits": [], "exchangeFilters": [],
         "symbols": rows}
    ).encode()  # fmt: skip


def depth() -> bytes:
    """The answer of ``/api/v3/depth``: a small book (the bench subscribes to no book, but a receiver may ask)."""
    return json.dumps({"lastUpdateId": 1, "bids": [["1.00", "1.0"]], "asks": [["2.00", "1.0"]]}).encode()
