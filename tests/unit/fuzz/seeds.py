"""Frames to damage: a few of our own of every form, and recorded ones where they lie beside the project."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path

from feedmill.exchanges.base import Venue
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT

RECORDINGS = Path(os.environ.get("FEEDMILL_RECORDINGS", Path(__file__).parents[4] / "shared" / "recordings"))
FILES = {SPOT.name: "binance", USDM.name: "binance_futures", DERIBIT.name: "deribit"}
MOST_RECORDED = 60
"""Of each venue: spread over the recording, so that every form is among them."""


@dataclass(frozen=True)
class Seeds:
    """What a venue says. ``natives``: its name -> ours."""

    venue: Venue
    natives: dict[str, str]
    good: bytes
    """A frame of an instrument that no other frame is of."""
    frames: tuple[bytes, ...]
    answers: tuple[tuple[str, bytes], ...]
    """(kind, body) of REST answers."""


def _combined(stream: str, data: str) -> bytes:
    return f'{{"stream":"{stream}","data":{data}}}'.encode()


def _notified(channel: str, data: str) -> bytes:
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}'.encode()


def _agg(native: str) -> bytes:
    return _combined(
        f"{native.lower()}@aggTrade",
        f'{{"e":"aggTrade","E":1750000000001,"s":"{native}","a":700,"p":"0.5","q":"3","f":90,"l":92,'
        '"T":1750000000000,"m":true,"M":true}',
    )


def _spot_trade(native: str) -> bytes:
    return _combined(
        f"{native.lower()}@trade",
        f'{{"e":"trade","E":1750000000001,"s":"{native}","t":12345,"p":"0.001","q":"100","T":1750000000000,"m":true,'
        '"M":true}',
    )


_KLINE = _combined(
    "btcusdt@kline_1m",
    '{"e":"kline","E":1750000001000,"s":"BTCUSDT","k":{"t":1749999960000,"T":1750000019999,"s":"BTCUSDT","i":"1m",'
    '"f":100,"L":200,"o":"1.10","c":"1.20","h":"1.30","l":"1.00","v":"1000","n":101,"x":true,"q":"1.1","V":"5","Q":"6"}}',
)
_BINANCE_DEPTH = b'{"lastUpdateId":160,"E":1750000000000,"T":1750000000000,"bids":[["1.0","10"]],"asks":[["2.0","9"]]}'
_INFO = (
    b'{"timezone":"UTC","symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT",'
    b'"marginAsset":"USDT","contractType":"PERPETUAL","deliveryDate":4133404800000,"filters":['
    b'{"filterType":"PRICE_FILTER","tickSize":"0.10"},{"filterType":"LOT_SIZE","stepSize":"0.001"}]}]}'
)
_HISTORY = b'[{"id":28457,"price":"4.1","qty":"12","quoteQty":"48","time":1750000000000,"isBuyerMaker":true}]'
_AGGS = b'[{"a":26129,"p":"0.01","q":"4.7","f":27781,"l":27781,"T":1750000000000,"m":true}]'

_OWN = [
    Seeds(
        SPOT,
        {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT", "GOODUSDT": "GOOD-USDT"},
        _spot_trade("GOODUSDT"),
        (
            _spot_trade("BTCUSDT"),
            _agg("BTCUSDT"),
            _KLINE,
            _combined("ethusdt@bookTicker", '{"u":400,"s":"ETHUSDT","b":"25.3","B":"31.2","a":"25.4","A":"40.6"}'),
            _combined(
                "btcusdt@depth@100ms",
                '{"e":"depthUpdate","E":1750000000100,"s":"BTCUSDT","U":157,"u":160,"b":[["0.0024","10"]],'
                '"a":[["0.0026","100"],["0.0027","0.00000000"]]}',
            ),
            b'{"result":null,"id":1}',
            b'{"error":{"code":2,"msg":"Invalid request"},"id":7}',
            b'{"event":{"e":"serverShutdown","E":1750000000000}}',
        ),
        (("book_snapshot", _BINANCE_DEPTH), ("trades", _HISTORY), ("instruments", _INFO)),
    ),
    Seeds(
        USDM,
        {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT", "GOODUSDT": "GOOD-USDT"},
        _agg("GOODUSDT"),
        (
            _agg("BTCUSDT"),
            _KLINE,
            _combined(
                "ethusdt@bookTicker",
                '{"e":"bookTicker","u":400,"E":1750000000000,"T":1750000000000,"s":"ETHUSDT","b":"25.3","B":"31.2",'
                '"a":"25.4","A":"40.6"}',
            ),
            _combined(
                "btcusdt@depth@100ms",
                '{"e":"depthUpdate","E":1750000000100,"T":1750000000100,"s":"BTCUSDT","U":157,"u":160,"pu":149,'
                '"b":[["0.0024","10"]],"a":[["0.0026","100"]]}',
            ),
            b'{"result":null,"id":1}',
        ),
        (("book_snapshot", _BINANCE_DEPTH), ("trades", _AGGS), ("instruments", _INFO)),
    ),
    Seeds(
        DERIBIT,
        {"BTC-PERPETUAL": "BTC-PERPETUAL", "ETH-PERPETUAL": "ETH-PERPETUAL", "GOOD-PERPETUAL": "GOOD-PERPETUAL"},
        _notified(
            "trades.GOOD-PERPETUAL.100ms",
            '[{"timestamp":1750000000000,"price":8950.0,"amount":10.0,"direction":"sell",'
            '"instrument_name":"GOOD-PERPETUAL","trade_seq":30289442,"trade_id":"48079269","tick_direction":2,'
            '"mark_price":8948.9,"index_price":8955.88}]',
        ),
        (
            _notified(
                "trades.BTC-PERPETUAL.100ms",
                '[{"timestamp":1750000000000,"price":8950.5,"amount":1e1,"direction":"buy",'
                '"instrument_name":"BTC-PERPETUAL","trade_seq":5,"trade_id":"1"},{"timestamp":1750000000001,'
                '"price":8951,"amount":20,"direction":"sell","instrument_name":"BTC-PERPETUAL","trade_seq":6,'
                '"trade_id":"2"}]',
            ),
            _notified(
                "book.BTC-PERPETUAL.100ms",
                '{"type":"snapshot","timestamp":1750000000000,"instrument_name":"BTC-PERPETUAL","change_id":297217,'
                '"bids":[["new",5042.34,30],["new",5041.94,20]],"asks":[["new",5042.64,40]]}',
            ),
            _notified(
                "book.BTC-PERPETUAL.100ms",
                '{"type":"change","timestamp":1750000000100,"instrument_name":"BTC-PERPETUAL","change_id":297218,'
                '"prev_change_id":297217,"bids":[["delete",5041.94,0]],"asks":[["change",5042.64,1e-3]]}',
            ),
            _notified(
                "quote.ETH-PERPETUAL",
                '{"timestamp":1750000000000,"instrument_name":"ETH-PERPETUAL","best_bid_price":3914.97,'
                '"best_bid_amount":40.0,"best_ask_price":null,"best_ask_amount":0}',
            ),
            _notified(
                "chart.trades.BTC-PERPETUAL.1",
                '{"tick":1750000000000,"open":10.5,"high":11,"low":9.5,"close":10,"volume":0.05,"cost":460.0}',
            ),
            b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}',
            b'{"jsonrpc":"2.0","id":5,"result":["trades.BTC-PERPETUAL.100ms"],"usIn":1,"usOut":2,"usDiff":1}',
            b'{"jsonrpc":"2.0","id":6,"error":{"code":10028,"message":"too_many_requests"}}',
        ),
        (
            (
                "book_snapshot",
                b'{"jsonrpc":"2.0","result":{"timestamp":1750000000000,"instrument_name":"BTC-PERPETUAL",'
                b'"change_id":297300,"bids":[[5042.34,30]],"asks":[[5042.64,40.5]]}}',
            ),
            (
                "trades",
                b'{"jsonrpc":"2.0","result":{"trades":[{"timestamp":1750000000000,"price":8950.5,"amount":10,'
                b'"direction":"buy","instrument_name":"BTC-PERPETUAL","trade_seq":4,"trade_id":"1"}],"has_more":false}}',
            ),
            (
                "instruments",
                b'{"jsonrpc":"2.0","result":[{"instrument_name":"BTC-PERPETUAL","kind":"future","base_currency":"BTC",'
                b'"quote_currency":"USD","settlement_currency":"BTC","settlement_period":"perpetual","is_active":true,'
                b'"tick_size":0.5,"min_trade_amount":10,"contract_size":10,"expiration_timestamp":32503708800000,'
                b'"instrument_type":"reversed","state":"open"}]}',
            ),
        ),
    ),
]  # fmt: skip


def _recorded(own: Seeds) -> Seeds:
    """With frames of the recordings, where they are there."""
    path = RECORDINGS / f"{FILES[own.venue.name]}.jsonl.gz"
    if not path.exists():
        return own
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        frames = [row["data"].encode() for row in map(json.loads, lines) if row["kind"] == "recv"]
    chosen = frames[:: max(1, len(frames) // MOST_RECORDED)]
    names = {native: native for frame in chosen for native in _names(json.loads(frame))}
    return Seeds(own.venue, names | own.natives, own.good, (*own.frames, *chosen), own.answers)


def _names(frame: object) -> list[str]:
    """Instruments that a frame names."""
    found = []
    if isinstance(frame, dict):
        found += [value for key, value in frame.items() if key in ("s", "instrument_name") and isinstance(value, str)]
        found += [name for value in frame.values() for name in _names(value)]
    elif isinstance(frame, list):
        found += [name for value in frame for name in _names(value)]
    return found


OWN = {own.venue.name: own for own in _OWN}
RECORDED = {name: _recorded(own) for name, own in OWN.items()}
