"""Binance Spot frames in their current shapes (dossier binance-spot, section 5) -> expected events."""

from __future__ import annotations

import json

import pytest

from feedmill.exchanges.base import BookUpdate, MapError, Mapper
from feedmill.exchanges.binance_spot import VENUE
from feedmill.shared.events import Candle, Flag, Instrument, Side, Ticker, Trade

RECEIVED = 1_700_000_000_000_000_001
TRADE = (
    '{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782137,"m":true,"M":true}'
)
AGG = (
    '{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,'
    '"T":1672515782136,"m":false,"M":true}'
)
TICKER = '{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}'
DEPTH = (
    '{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,'
    '"b":[["0.35130000","6195.00000000"],["0.35","0.00000000"]],"a":[]}'
)
KLINE = (
    '{"e":"kline","E":1672515782136,"s":"BNBBTC","k":{"t":1672515780000,"T":1672515839999,"s":"BNBBTC","i":"1m",'
    '"f":100,"L":199,"o":"0.0010","c":"0.0020","h":"0.0025","l":"0.0015","v":"1000","n":100,"x":true,"q":"1.0000",'
    '"V":"500","Q":"0.500","B":"123456"}}'
)
CASES = {
    "trade": (
        "bnbbtc@trade",
        TRADE,
        Trade("BNB-BTC", 12345, "0.001", "100", Side.SELL, 1_672_515_782_137_000_000, RECEIVED),
    ),
    "aggTrade": (
        "bnbbtc@aggTrade",
        AGG,
        Trade("BNB-BTC", 12345, "0.001", "100", Side.BUY, 1_672_515_782_136_000_000, RECEIVED, 0, 100, 105),
    ),
    "bookTicker": (
        "bnbusdt@bookTicker",
        TICKER,
        Ticker("BNB-USDT", 400900217, "25.35190000", "31.21000000", "25.36520000", "40.66000000", 0, RECEIVED),
    ),
    "depth": (
        "nknusdt@depth@100ms",
        DEPTH,
        BookUpdate(
            "NKN-USDT", False, 499869750, 499869752, -1, 1_633_998_512_068_000_000, RECEIVED,
            [("0.35130000", "6195.00000000"), ("0.35", "0.00000000")], [],
        ),
    ),
    "kline": (
        "bnbbtc@kline_1m",
        KLINE,
        Candle(
            "BNB-BTC", "1m", 1_672_515_780_000_000_000, "0.0010", "0.0025", "0.0015", "0.0020", "1000", "1.0000", 100,
            100, 199, True, 1_672_515_782_136_000_000, RECEIVED,
        ),
    ),
}  # fmt: skip


@pytest.fixture
def mapper() -> Mapper:
    return VENUE.mapper({"BNBBTC": "BNB-BTC", "BNBUSDT": "BNB-USDT", "NKNUSDT": "NKN-USDT"})


def combined(stream: str, payload: str) -> bytes:
    return f'{{"stream":"{stream}","data":{payload}}}'.encode()


@pytest.mark.parametrize("case", CASES)
def test_every_kind_maps_in_every_spelling(mapper: Mapper, case: str) -> None:
    stream, payload, expected = CASES[case]
    fields = json.loads(payload)
    backwards = dict(reversed(fields.items())) | {"new_field": {"x": [1, None]}, "st": 1}
    spellings = {
        "combined": combined(stream, payload),
        "combined, spaced": json.dumps({"stream": stream, "data": fields}, indent=1).encode(),
        "combined, data first": json.dumps({"data": fields, "stream": stream}).encode(),
        "combined, other order and unknown fields": json.dumps({"stream": stream, "data": backwards, "x": 1}).encode(),
        "combined, escaped": combined(stream, payload).replace(b"@", b"\\u0040"),
        "raw": payload.encode(),
        "raw, spaced": b" " + json.dumps(backwards).encode() + b"\n",
    }
    for spelling, frame in spellings.items():
        assert list(mapper.map(frame, RECEIVED)) == [expected], spelling


def test_a_ticker_with_an_event_type_and_times_is_the_same_ticker(mapper: Mapper) -> None:
    payload = TICKER.replace("{", '{"e":"bookTicker","E":5,"T":4,', 1)
    assert list(mapper.map(payload.encode(), RECEIVED)) == [CASES["bookTicker"][2]]
    assert list(mapper.map(combined("bnbusdt@bookTicker", payload), RECEIVED)) == [CASES["bookTicker"][2]]


def test_an_empty_open_candle_keeps_its_absent_ids(mapper: Mapper) -> None:
    payload = KLINE.replace('"f":100,"L":199', '"f":-1,"L":-1').replace('"n":100,"x":true', '"n":0,"x":false')
    (candle,) = mapper.map(combined("bnbbtc@kline_1m", payload), RECEIVED)
    assert isinstance(candle, Candle)
    assert (candle.first_id, candle.last_id, candle.trades, candle.closed) == (-1, -1, 0, False)


def test_microseconds_are_told_by_their_magnitude(mapper: Mapper) -> None:
    (event,) = mapper.map(combined("bnbbtc@trade", TRADE.replace("1672515782137", "1672515782137456")), RECEIVED)
    assert isinstance(event, Trade)
    assert event.exchange_ns == 1_672_515_782_137_456_000


def test_symbols_of_other_scripts(mapper: Mapper) -> None:
    native = VENUE.to_native("这是测试币456-USDT")
    mapper.learn(native, "这是测试币456-USDT")
    payload = TRADE.replace("BNBBTC", native)
    for frame in (combined(f"{native.lower()}@trade", payload), json.dumps(json.loads(payload)).encode()):
        (event,) = mapper.map(frame, RECEIVED)
        assert event.symbol == "这是测试币456-USDT"


@pytest.mark.parametrize(
    "frame",
    [
        '{"result":null,"id":1}',
        '{"id": "abc", "result": ["btcusdt@trade"]}',
        '{"result":true,"id":2}',
        '{"code":2,"msg":"Invalid request: unknown variant","id":4}',
        '{"error":{"code":2,"msg":"Invalid request"},"id":4}',
        '{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}',
        '{"e":"serverShutdown","E":1770123456789}',
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        '{"event":{"e":"serverShutdown","E":1770123456789}}',
    ],
)
def test_frames_without_an_event(mapper: Mapper, frame: str) -> None:
    assert list(mapper.map(frame.encode(), RECEIVED)) == []


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("bad_json", b""),
        ("bad_json", b"not json"),
        ("bad_json", combined("bnbbtc@trade", TRADE)[:-5]),
        ("bad_json", b"\xff\xfe"),
        ("bad_text", combined("bnbbtc@trade", TRADE).replace(b"0.001", b"\xff")),
        ("not_an_object", b"[1,2]"),
        ("not_an_object", b"3"),
        ("unknown_event", b"{}"),
        ("unknown_event", b'{"id":4}'),
        ("unknown_event", b'{"e":"24hrTicker","s":"BNBBTC"}'),
        ("unknown_event", b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}'),
        ("unknown_event", b'{"stream":"bnbbtc@depth20","data":{"lastUpdateId":160,"bids":[],"asks":[]}}'),
        ("unknown_event", b'{"stream":"bnbbtc@blockTrade","data":{"e":"blockTrade","s":"BNBBTC"}}'),
        ("unknown_event", b'{"u":1,"s":"BNBUSDT","b":"1","B":"1","a":"1"}'),
        ("missing_field", combined("bnbbtc@trade", TRADE.replace('"t":12345,', ""))),
        ("missing_field", combined("bnbbtc@kline_1m", KLINE.replace('"q":"1.0000",', ""))),
        ("bad_field", combined("bnbbtc@trade", TRADE.replace('"0.001"', "0.001"))),
        ("bad_field", combined("bnbbtc@trade", TRADE.replace("12345,", '"12345",'))),
        ("bad_field", combined("bnbbtc@trade", TRADE.replace("12345,", "99999999999999999999,"))),
        ("bad_field", combined("bnbbtc@trade", TRADE.replace('"T":1672515782137', '"T":-1'))),
        ("bad_field", combined("bnbbtc@trade", TRADE.replace('"T":1672515782137', '"T":99999999999999999'))),
        ("bad_field", combined("nknusdt@depth@100ms", DEPTH.replace('["0.35","0.00000000"]', '["0.35"]'))),
        ("bad_field", combined("bnbusdt@bookTicker", TICKER.replace('"31.21000000"', "null"))),
        ("unknown_symbol", combined("ethbtc@trade", TRADE.replace("BNBBTC", "ETHBTC"))),
        ("unknown_symbol", combined("x@bookTicker", TICKER.replace("BNBUSDT", "X"))),
    ],
)
def test_what_cannot_be_mapped_says_why(mapper: Mapper, reason: str, frame: bytes) -> None:
    with pytest.raises(MapError) as caught:
        mapper.map(frame, RECEIVED)
    assert caught.value.reason == reason


def test_a_trade_from_rest_has_the_key_fields_of_the_stream(mapper: Mapper) -> None:
    (streamed,) = mapper.map(combined("bnbbtc@trade", TRADE), RECEIVED)
    body = (
        b'[{"id":12345,"price":"0.001","qty":"100","quoteQty":"0.1","time":1672515782137,"isBuyerMaker":true,'
        b'"isBestMatch":true}]'
    )
    (fetched,) = mapper.map_rest("trades", "BNB-BTC", 200, body, RECEIVED + 5)
    assert isinstance(streamed, Trade)
    assert isinstance(fetched, Trade)
    assert fetched.flags == Flag.BACKFILL
    fetched.flags, fetched.receive_ns = streamed.flags, streamed.receive_ns
    assert fetched == streamed


def test_snapshots_and_metadata(mapper: Mapper) -> None:
    body = b'{"lastUpdateId": 160, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]}'
    assert list(mapper.map_rest("book_snapshot", "BNB-BTC", 200, body, RECEIVED)) == [
        BookUpdate("BNB-BTC", True, 160, 160, -1, 0, RECEIVED, [("0.0024", "10")], [("0.0026", "100")])
    ]
    row = {
        "symbol": "BNBBTC", "status": "TRADING", "baseAsset": "BNB", "quoteAsset": "BTC", "baseAssetPrecision": 8,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.00000100", "maxPrice": "1", "tickSize": "0.00000100"},
            {"filterType": "LOT_SIZE", "minQty": "0.00100000", "maxQty": "1", "stepSize": "0.00100000"},
            {"filterType": "NOTIONAL", "minNotional": "10.0", "applyMinToMarket": False},
        ],
    }  # fmt: skip
    body = json.dumps({"timezone": "UTC", "symbols": [{"symbol": "OTHER", "filters": 7}, row]}).encode()
    assert list(mapper.map_rest("instruments", "", 200, body, RECEIVED)) == [
        Instrument(
            "BNB-BTC", "BNBBTC", "Spot", "BNB", "BTC", "BTC", "TRADING", "0.00000100", "0.00100000", "1", 0, "", "",
            RECEIVED,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "kind", "status", "body"),
    [
        ("rest_status", "instruments", 400, b'{"code":-1121,"msg":"Invalid symbol."}'),
        ("bad_json", "book_snapshot", 200, b"<html>"),
        ("missing_field", "book_snapshot", 200, b'{"bids":[],"asks":[]}'),
        ("unknown_kind", "funding", 200, b"{}"),
    ],
)
def test_rest_answers_that_cannot_be_mapped(mapper: Mapper, reason: str, kind: str, status: int, body: bytes) -> None:
    with pytest.raises(MapError) as caught:
        mapper.map_rest(kind, "BNB-BTC", status, body, RECEIVED)
    assert caught.value.reason == reason
