"""Deribit frames in their current shapes (dossier deribit, section 5) -> expected events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from feedmill.exchanges.base import BookUpdate, MapError, Mapper
from feedmill.exchanges.deribit import VENUE
from feedmill.exchanges.deribit.numbers import ticker_seq
from feedmill.shared.events import Candle, Flag, Instrument, Side, Ticker, Trade

RECEIVED = 1_700_000_000_000_000_001
NAMES = ("BTC-PERPETUAL", "NVDA_USDC-PERPETUAL", "BTC-27DEC24-100000-C", "BTC-CS-19MAY26-70000_75000")
TRADE = (
    '{"timestamp":1765531356452,"price":92294.5,"amount":10.0,"direction":"sell","index_price":92276.75,'
    '"instrument_name":"BTC-PERPETUAL","trade_seq":271252854,"mark_price":92287.11,"tick_direction":2,'
    '"contracts":1.0,"trade_id":"403691824"}'
)
SNAPSHOT = (
    '{"timestamp":1790133840448,"type":"snapshot","change_id":193809616666,"instrument_name":"NVDA_USDC-PERPETUAL",'
    '"bids":[["new",228.51,0.22]],"asks":[["new",228.52,2.2e3]]}'
)
CHANGE = (
    '{"timestamp":1790133845258,"type":"change","change_id":193809650259,"instrument_name":"NVDA_USDC-PERPETUAL",'
    '"bids":[["delete",228.5,0.0]],"asks":[["change",228.58,91.89],["new",229,1E-4]],"prev_change_id":193809644396}'
)
QUOTE = (
    '{"timestamp":1765541767174,"instrument_name":"BTC-PERPETUAL","best_ask_price":92288.5,"best_bid_price":92288.0,'
    '"best_ask_amount":99470.0,"best_bid_amount":133440.0}'
)
TICKER = (
    '{"timestamp":1765541767174,"state":"open","stats":{"high":93612.0,"low":89277.5,"price_change":2.3275},'
    '"index_price":92263.55,"instrument_name":"BTC-PERPETUAL","last_price":92283.5,"open_interest":1132329370.0,'
    '"best_ask_price":92288.50,"best_bid_price":92288,"best_ask_amount":9.947e4,"best_bid_amount":133440,'
    '"current_funding":0.0,"funding_8h":1.742e-05}'
)
BAR = (
    '{"tick":1767200040000,"open":87500.0,"high":87501.5,"low":87499,"close":87500.5,"volume":0.95978896,'
    '"cost":83970.0}'
)


@pytest.fixture
def mapper() -> Mapper:
    return VENUE.mapper({name: name for name in NAMES})


def frame(channel: str, data: str) -> bytes:
    return (f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}').encode()


def reordered(payload: bytes) -> bytes:
    """The same frame with spaces and keys in another order; numbers keep their text."""

    def turn(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turn(value[key]) for key in reversed(value)}
        return [turn(entry) for entry in value] if isinstance(value, list) else value

    text = json.dumps(turn(json.loads(payload, parse_float=lambda number: f"<{number}>")), indent=2)
    return text.replace('"<', "").replace('>"', "").encode()


SEQ = ticker_seq("BTC-PERPETUAL", 1765541767174, "92288", "133440", "92288.5", "99470")
CASES = {
    "trade": (
        frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]"),
        [
            Trade(
                "BTC-PERPETUAL", 271252854, "92294.5", "10.0", Side.SELL, 1_765_531_356_452_000_000, RECEIVED, 0, 0,
                0, "403691824",
            )
        ],
    ),
    "snapshot": (
        frame("book.NVDA_USDC-PERPETUAL.100ms", SNAPSHOT),
        [
            BookUpdate(
                "NVDA_USDC-PERPETUAL", True, 193809616666, 193809616666, -1, 1_790_133_840_448_000_000, RECEIVED,
                [("228.51", "0.22")], [("228.52", "2200")],
            )
        ],
    ),
    "change": (
        frame("book.NVDA_USDC-PERPETUAL.raw", CHANGE),
        [
            BookUpdate(
                "NVDA_USDC-PERPETUAL", False, 193809650259, 193809650259, 193809644396, 1_790_133_845_258_000_000,
                RECEIVED, [("228.5", "0")], [("228.58", "91.89"), ("229", "0.0001")],
            )
        ],
    ),
    "quote": (
        frame("quote.BTC-PERPETUAL", QUOTE),
        [
            Ticker(
                "BTC-PERPETUAL", SEQ, "92288.0", "133440.0", "92288.5", "99470.0", 1_765_541_767_174_000_000, RECEIVED
            )
        ],
    ),
    "ticker": (
        frame("ticker.BTC-PERPETUAL.raw", TICKER),
        [
            Ticker(
                "BTC-PERPETUAL", SEQ, "92288", "133440", "92288.50", "99470", 1_765_541_767_174_000_000, RECEIVED
            )
        ],
    ),
    "chart": (
        frame("chart.trades.BTC-PERPETUAL.60", BAR),
        [
            Candle(
                "BTC-PERPETUAL", "1h", 1_767_200_040_000_000_000, "87500.0", "87501.5", "87499", "87500.5",
                "0.95978896", "83970.0", -1, -1, -1, False, 0, RECEIVED,
            )
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_kind_maps_in_every_spelling(mapper: Mapper, case: str) -> None:
    payload, expected = CASES[case]
    assert list(mapper.map(payload, RECEIVED)) == expected
    assert list(mapper.map(reordered(payload), RECEIVED)) == expected


def test_one_frame_with_several_trades_keeps_their_order(mapper: Mapper) -> None:
    option = (
        '{"timestamp":1765531356453,"price":0.0525,"amount":2.2e1,"direction":"buy","instrument_name":'
        '"BTC-27DEC24-100000-C","trade_seq":17,"trade_id":403691825,"iv":55.5,"liquidation":"MT","combo_id":"x",'
        '"combo_trade_id":"7","block_trade_id":"BLOCK-1","block_trade_leg_count":2,"legs":[]}'
    )
    combo = (
        '{"timestamp":1765531356454,"price":-0.0005,"amount":1,"direction":"buy","instrument_name":'
        '"BTC-CS-19MAY26-70000_75000","trade_seq":1,"trade_id":"403691826","legs":[{"instrument_name":"A"}]}'
    )
    events = mapper.map(frame("trades.any.BTC.100ms", f"[{TRADE},{option},{combo}]"), RECEIVED)
    assert [(e.symbol, e.id, e.price, e.size, e.side, e.venue_id) for e in events if isinstance(e, Trade)] == [
        ("BTC-PERPETUAL", 271252854, "92294.5", "10.0", Side.SELL, "403691824"),
        ("BTC-27DEC24-100000-C", 17, "0.0525", "22", Side.BUY, "403691825"),
        ("BTC-CS-19MAY26-70000_75000", 1, "-0.0005", "1", Side.BUY, "403691826"),
    ]


@pytest.mark.parametrize("empty", ["null", "0", "0.0", "0e0"])
def test_an_empty_side_is_empty_text(mapper: Mapper, empty: str) -> None:
    payload = QUOTE.replace('"best_ask_price":92288.5', f'"best_ask_price":{empty}')
    payload = payload.replace('"best_ask_amount":99470.0', '"best_ask_amount":0.0')
    (event,) = mapper.map(frame("quote.BTC-PERPETUAL", payload), RECEIVED)
    assert isinstance(event, Ticker)
    assert (event.bid, event.bid_size, event.ask, event.ask_size) == ("92288.0", "133440.0", "", "")
    assert event.seq == ticker_seq("BTC-PERPETUAL", 1765541767174, "92288", "133440", "", "")


def test_the_content_hash_is_stable_and_tells_contents_apart() -> None:
    base = ("BTC-PERPETUAL", 1765541767174, "92288", "133440", "92288.5", "99470")
    assert ticker_seq(*base) == 7360461951492853595
    assert ticker_seq("BTC-PERPETUAL", 1765541767174, "92288.00", "133440.0", "92288.50", "99470.0") == SEQ
    others = {
        ticker_seq("ETH-PERPETUAL", *base[1:]),
        ticker_seq(base[0], 1765541767175, *base[2:]),
        ticker_seq(*base[:2], "92287", *base[3:]),
        ticker_seq(*base[:3], "133441", *base[4:]),
        ticker_seq(*base[:4], "92289", base[5]),
        ticker_seq(*base[:5], "9947"),
        ticker_seq(*base),
    }
    assert len(others) == 7
    assert all(0 <= seq < 2**63 for seq in others)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"jsonrpc":"2.0","id":3,"result":["trades.BTC-PERPETUAL.100ms"],"usIn":1,"usOut":2,"usDiff":1}',
        b'{"jsonrpc":"2.0","id":12,"result":{"version":"1.2.26"},"usIn":1,"usOut":2,"usDiff":1,"testnet":false}',
        b'{"jsonrpc":"2.0","id":5,"error":{"code":13778,"message":"raw_subscriptions_not_available"},"usIn":1}',
        b'{"jsonrpc":"2.0","error":{"code":11050,"data":"invalid json","message":"bad_request"}}',
        b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}',
        b'{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}',
    ],
)
def test_frames_without_an_event(mapper: Mapper, payload: bytes) -> None:
    assert list(mapper.map(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        ("bad_json", b"{"),
        ("bad_json", frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]")[:-3]),
        ("not_an_object", b"[]"),
        ("unknown_event", b"{}"),
        ("unknown_event", b'{"jsonrpc":"2.0","method":"other","params":{}}'),
        ("unknown_event", frame("incremental_ticker.BTC-PERPETUAL", QUOTE)),
        ("unknown_event", frame("platform_state", '{"price_index":"sol_usdc","locked":true}')),
        ("unknown_event", frame("chart.trades.BTC-PERPETUAL.7", BAR)),
        ("unknown_event", frame("chart.quotes.BTC-PERPETUAL.1", BAR)),
        (
            "missing_field",
            frame("book.BTC-PERPETUAL.none.20.100ms", '{"timestamp":1,"change_id":1,"bids":[],"asks":[]}'),
        ),
        ("missing_field", frame("book.BTC-PERPETUAL.100ms", CHANGE.replace(',"prev_change_id":193809644396', ""))),
        ("missing_field", frame("quote.BTC-PERPETUAL", QUOTE.replace('"best_bid_price":92288.0,', ""))),
        ("missing_field", b'{"jsonrpc":"2.0","method":"subscription"}'),
        ("bad_field", frame("book.BTC-PERPETUAL.100ms", CHANGE.replace('"change",', '"moved",'))),
        ("bad_field", frame("book.BTC-PERPETUAL.100ms", SNAPSHOT.replace('"snapshot"', '"image"'))),
        ("bad_field", frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]".replace("92294.5", "null"))),
        ("bad_field", frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]".replace("92294.5", "true"))),
        ("bad_field", frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]".replace("92294.5", "1e999999999"))),
        ("bad_field", frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]".replace('"sell"', '"zero"'))),
        ("bad_field", frame("trades.BTC-PERPETUAL.100ms", TRADE)),
        ("unknown_symbol", frame("quote.X", QUOTE.replace("BTC-PERPETUAL", "X"))),
        ("unknown_symbol", frame("chart.trades.X.1", BAR)),
    ],
)
def test_what_cannot_be_mapped_says_why(mapper: Mapper, reason: str, payload: bytes) -> None:
    with pytest.raises(MapError) as caught:
        mapper.map(payload, RECEIVED)
    assert caught.value.reason == reason


def test_text_in_place_of_a_number_is_passed_on_for_postgresql_to_judge(mapper: Mapper) -> None:
    bad = TRADE.replace("92294.5", '"not-a-number"').replace("271252854", "271252855")
    events = mapper.map(frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE},{bad}]"), RECEIVED)
    assert [event.price for event in events if isinstance(event, Trade)] == ["92294.5", "not-a-number"]


def test_a_trade_from_rest_has_the_key_fields_of_the_stream(mapper: Mapper) -> None:
    (streamed,) = mapper.map(frame("trades.BTC-PERPETUAL.100ms", f"[{TRADE}]"), RECEIVED)
    later = TRADE.replace("271252854", "271252855").replace("403691824", "403691830")
    body = f'{{"jsonrpc":"2.0","result":{{"trades":[{later},{TRADE},{later}],"has_more":true}},"usIn":1}}'.encode()
    fetched, after = mapper.map_rest("trades", "BTC-PERPETUAL", 200, body, RECEIVED + 5)
    assert isinstance(streamed, Trade)
    assert isinstance(fetched, Trade)
    assert isinstance(after, Trade)
    assert after.id == fetched.id + 1
    assert fetched.flags == Flag.BACKFILL
    fetched.flags, fetched.receive_ns = streamed.flags, streamed.receive_ns
    assert fetched == streamed


def test_order_book_by_rest(mapper: Mapper) -> None:
    body = (
        b'{"jsonrpc":"2.0","result":{"timestamp":1790133840448,"state":"open","instrument_name":"BTC-PERPETUAL",'
        b'"change_id":42,"bids":[[92288.0,1e1]],"asks":[[92288.5,20.0]]}}'
    )
    assert list(mapper.map_rest("book_snapshot", "BTC-PERPETUAL", 200, body, RECEIVED)) == [
        BookUpdate(
            "BTC-PERPETUAL", True, 42, 42, -1, 1_790_133_840_448_000_000, RECEIVED, [("92288.0", "10")],
            [("92288.5", "20.0")],
        )
    ]  # fmt: skip


PERPETUAL = {
    "tick_size": 0.5, "tick_size_steps": [], "taker_commission": 0.0005, "settlement_period": "perpetual",
    "settlement_currency": "BTC", "quote_currency": "USD", "counter_currency": "USD", "base_currency": "BTC",
    "min_trade_amount": 10, "max_leverage": 50, "kind": "future", "is_active": True,
    "instrument_name": "BTC-PERPETUAL", "instrument_type": "reversed", "expiration_timestamp": 32503708800000,
    "contract_size": 10, "state": "open",
}  # fmt: skip
OPTION = PERPETUAL | {
    "kind": "option", "instrument_name": "BTC-27DEC24-100000-C", "settlement_period": "month",
    "quote_currency": "BTC", "option_type": "call", "strike": 100000.0, "expiration_timestamp": 1735286400000,
    "tick_size": 0.0001, "contract_size": 1.0, "min_trade_amount": 0.1,
}  # fmt: skip


def test_metadata_of_one_and_of_a_currency(mapper: Mapper) -> None:
    perpetual = Instrument(
        "BTC-PERPETUAL", "BTC-PERPETUAL", "Perpetual", "BTC", "USD", "BTC", "open", "0.5", "10", "10", 0, "", "",
        RECEIVED,
    )  # fmt: skip
    option = Instrument(
        "BTC-27DEC24-100000-C", "BTC-27DEC24-100000-C", "Option", "BTC", "BTC", "BTC", "open", "0.0001", "0.1", "1.0",
        1_735_286_400_000_000_000, "100000.0", "call", RECEIVED,
    )  # fmt: skip
    one = json.dumps({"jsonrpc": "2.0", "result": PERPETUAL}).encode()
    assert list(mapper.map_rest("instruments", "", 200, one, RECEIVED)) == [perpetual]
    many = json.dumps({"result": [PERPETUAL | {"instrument_name": "X", "kind": "new"}, OPTION, PERPETUAL]}).encode()
    assert list(mapper.map_rest("instruments", "", 200, many, RECEIVED)) == [option, perpetual]


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [
        ("rest_status", 400, b'{"error":{"code":13020,"message":"not_found"}}'),
        ("bad_json", 200, b"<html>"),
        ("missing_field", 200, b'{"error":{"code":10028,"message":"too_many_requests"}}'),
    ],
)
def test_rest_answers_that_cannot_be_mapped(mapper: Mapper, reason: str, status: int, body: bytes) -> None:
    for kind in ("instruments", "trades", "book_snapshot"):
        with pytest.raises(MapError) as caught:
            mapper.map_rest(kind, "BTC-PERPETUAL", status, body, RECEIVED)
        assert caught.value.reason == reason
