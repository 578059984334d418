"""Binance USD-M frames in their current shapes (dossier binance-usdm, section 5) -> expected events."""

from __future__ import annotations

import json

import pytest

from feedmill.exchanges.base import BookUpdate, MapError, Mapper
from feedmill.exchanges.binance_usdm import VENUE
from feedmill.shared.events import Candle, Flag, Instrument, Side, Ticker, Trade

RECEIVED = 1_700_000_000_000_000_001
AGG = (
    '{"e":"aggTrade","E":1789478374128,"a":309917647,"s":"BTCUSDT","p":"76916.00","q":"0.0010","nq":"0.0010",'
    '"f":537895188,"l":537895190,"T":1789478374000,"m":true,"st":1}'
)
TICKER = (
    '{"e":"bookTicker","u":400900217,"E":1568014460893,"T":1568014460891,"s":"BNBUSDT","ps":"BNBUSDT",'
    '"b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000","st":1}'
)
DEPTH = (
    '{"e":"depthUpdate","E":1568014460893,"T":1568014460891,"s":"BTCUSDT","ps":"BTCUSDT","U":157,"u":160,"pu":149,'
    '"b":[["0.0024","10"]],"a":[["0.0026","0"]],"st":1}'
)
KLINE = (
    '{"e":"kline","E":1626992741424,"s":"BTCUSDT","k":{"t":1626992700000,"T":1626992759999,"s":"BTCUSDT","i":"5m",'
    '"f":23961275,"L":23961322,"o":"1.01000","c":"1.01100","h":"1.01100","l":"1.01000","v":"3917","n":48,"x":false,'
    '"q":"3957.89900","V":"1729","Q":"1748.01900","B":"0"},"st":1}'
)
CASES = {
    "aggTrade": (
        "btcusdt@aggTrade",
        AGG,
        Trade(
            "BTC-USDT", 309917647, "76916.00", "0.0010", Side.SELL, 1_789_478_374_000_000_000, RECEIVED, 0, 537895188,
            537895190,
        ),
    ),
    "bookTicker": (
        "bnbusdt@bookTicker",
        TICKER,
        Ticker(
            "BNB-USDT", 400900217, "25.35190000", "31.21000000", "25.36520000", "40.66000000",
            1_568_014_460_891_000_000, RECEIVED,
        ),
    ),
    "depth": (
        "btcusdt@depth@100ms",
        DEPTH,
        BookUpdate(
            "BTC-USDT", False, 157, 160, 149, 1_568_014_460_891_000_000, RECEIVED, [("0.0024", "10")],
            [("0.0026", "0")],
        ),
    ),
    "kline": (
        "btcusdt@kline_5m",
        KLINE,
        Candle(
            "BTC-USDT", "5m", 1_626_992_700_000_000_000, "1.01000", "1.01100", "1.01000", "1.01100", "3917",
            "3957.89900", 48, 23961275, 23961322, False, 1_626_992_741_424_000_000, RECEIVED,
        ),
    ),
}  # fmt: skip


@pytest.fixture
def mapper() -> Mapper:
    return VENUE.mapper({"BTCUSDT": "BTC-USDT", "BNBUSDT": "BNB-USDT", "BTCUSDT_260925": "BTC-USDT-260925"})


def combined(stream: str, payload: str) -> bytes:
    return f'{{"stream":"{stream}","data":{payload}}}'.encode()


@pytest.mark.parametrize("case", CASES)
def test_every_kind_maps_in_every_spelling(mapper: Mapper, case: str) -> None:
    stream, payload, expected = CASES[case]
    fields = json.loads(payload)
    old = {name: value for name, value in fields.items() if name not in ("st", "ps", "nq")}
    spellings = {
        "combined": combined(stream, payload),
        "before 2025": combined(stream, json.dumps(old)),
        "spaced, other order": json.dumps({"data": dict(reversed(fields.items())), "stream": stream}).encode(),
        "raw": payload.encode(),
    }
    for spelling, frame in spellings.items():
        assert list(mapper.map(frame, RECEIVED)) == [expected], spelling


def test_delivery_contracts_have_their_own_symbol(mapper: Mapper) -> None:
    payload = AGG.replace("BTCUSDT", "BTCUSDT_260925")
    (event,) = mapper.map(combined("btcusdt_260925@aggTrade", payload), RECEIVED)
    assert event.symbol == "BTC-USDT-260925"


@pytest.mark.parametrize("stream", ["btcusdt@depth5", "btcusdt@depth20@100ms", "btcusdt@rpiDepth@500ms"])
def test_partial_books_are_not_taken_for_changes(mapper: Mapper, stream: str) -> None:
    spaced = json.dumps({"stream": stream, "data": json.loads(DEPTH)}).encode()
    for frame in (combined(stream, DEPTH), spaced):
        with pytest.raises(MapError) as caught:
            mapper.map(frame, RECEIVED)
        assert caught.value.reason == "unknown_event"


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("unknown_event", b'{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","s":"BTCUSDT"}}'),
        ("unknown_event", b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT"}}'),
        ("missing_field", combined("btcusdt@depth", DEPTH.replace('"pu":149,', ""))),
        ("missing_field", combined("btcusdt@bookTicker", TICKER.replace('"T":1568014460891,', ""))),
        ("bad_field", combined("btcusdt@aggTrade", AGG.replace('"m":true', '"m":1'))),
        ("unknown_symbol", combined("x@aggTrade", AGG.replace("BTCUSDT", "BTCUSD_PERP"))),
    ],
)
def test_what_cannot_be_mapped_says_why(mapper: Mapper, reason: str, frame: bytes) -> None:
    with pytest.raises(MapError) as caught:
        mapper.map(frame, RECEIVED)
    assert caught.value.reason == reason


@pytest.mark.parametrize("frame", [b'{"result":null,"id":1}', b'{"code":2,"msg":"Invalid request: unknown variant"}'])
def test_frames_without_an_event(mapper: Mapper, frame: bytes) -> None:
    assert list(mapper.map(frame, RECEIVED)) == []


def test_an_aggregate_from_rest_has_the_key_fields_of_the_stream(mapper: Mapper) -> None:
    (streamed,) = mapper.map(combined("btcusdt@aggTrade", AGG), RECEIVED)
    body = (
        b'[{"a":309917647,"p":"76916.00","q":"0.0010","nq":"0.0010","f":537895188,"l":537895190,"T":1789478374000,'
        b'"m":true}]'
    )
    (fetched,) = mapper.map_rest("trades", "BTC-USDT", 200, body, RECEIVED + 5)
    assert isinstance(streamed, Trade)
    assert isinstance(fetched, Trade)
    assert fetched.flags == Flag.BACKFILL
    fetched.flags, fetched.receive_ns = streamed.flags, streamed.receive_ns
    assert fetched == streamed


def test_snapshots_carry_the_matching_time(mapper: Mapper) -> None:
    body = b'{"lastUpdateId":1027024,"E":1589436922972,"T":1589436922959,"bids":[["4.0","431"]],"asks":[]}'
    assert list(mapper.map_rest("book_snapshot", "BTC-USDT", 200, body, RECEIVED)) == [
        BookUpdate(
            "BTC-USDT", True, 1027024, 1027024, -1, 1_589_436_922_959_000_000, RECEIVED, [("4.0", "431")], []
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("native", "contract", "delivery", "kind", "expiry_ns"),
    [
        ("BTCUSDT", "PERPETUAL", 4133404800000, "Perpetual", 0),
        ("BNBUSDT", "TRADIFI_PERPETUAL", 4133404800000, "Perpetual", 0),
        ("BTCUSDT_260925", "CURRENT_QUARTER", 1790323200000, "Future", 1_790_323_200_000_000_000),
        ("BTCUSDT_260925", "", 1790323200000, "Future", 1_790_323_200_000_000_000),
    ],
)
def test_metadata(mapper: Mapper, native: str, contract: str, delivery: int, kind: str, expiry_ns: int) -> None:
    row = {
        "symbol": native, "pair": "BTCUSDT", "contractType": contract, "deliveryDate": delivery, "status": "TRADING",
        "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT", "pricePrecision": 5,
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.10"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        ],
    }  # fmt: skip
    body = json.dumps({"serverTime": 1, "symbols": [row, row | {"symbol": "XUSDT"}]}).encode()
    assert list(mapper.map_rest("instruments", "", 200, body, RECEIVED)) == [
        Instrument(
            mapper.symbols[native], native, kind, "BTC", "USDT", "USDT", "TRADING", "0.10", "0.001", "1", expiry_ns,
            "", "", RECEIVED,
        )
    ]  # fmt: skip
