"""Private payloads as the dossiers have them, one a file, -> the events expected of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.exchanges.account_base import AccountEvent, AccountMapper
from feedmill.exchanges.base import MapError
from feedmill.exchanges.binance_spot.account_mapper import SpotAccountMapper
from feedmill.exchanges.binance_usdm.account_mapper import UsdmAccountMapper
from feedmill.exchanges.deribit.account_mapper import DeribitAccountMapper
from feedmill.shared.account_events import Balance, BalanceChange, Fill, OrderUpdate, Position
from feedmill.shared.account_keys import balance_key, change_key, fill_key, merged, order_state_key, position_key

FOLDER = Path(__file__).parent / "account_payloads"
AT = 1_700_000_000_000_000_001
MS = 1_000_000
MAPPERS: dict[str, AccountMapper] = {
    "spot": SpotAccountMapper({"ETHBTC": "ETH-BTC"}),
    "usdm": UsdmAccountMapper({"BTCUSDT": "BTC-USDT"}),
    "deribit": DeribitAccountMapper({name: name for name in ("BTC-PERPETUAL", "ETH-PERPETUAL")}),
}
MINE = "mUvoqJxFIILMdfAW5iGSOW"


def spot_order(*rest: Any, price: str = "0.10264410", size: str = "1.00000000", stop: str = "") -> OrderUpdate:
    ident, client, side, kind, force, filled, quote, average, status, terminal, reason, at, created, flags = rest
    return OrderUpdate(
        "ETH-BTC", ident, client, side, kind, force, "", None, price, stop, size, filled, quote, average, status,
        terminal, reason, at * MS, created * MS, AT, flags,
    )  # fmt: skip


CANCELED = (
    "4293153", MINE, 1, "stop_loss_limit", "gtc", "0.40000000", "0.04105600", "0.10264", "cancelled", True, "",
    1499405660000, 1499405658657,
)  # fmt: skip
BTC_SOLD = (
    "BTC-PERPETUAL", "48079254", "4008965646", "", 2, "", "8954", "20", "", "0.00000168", "BTC", False, "",
    1590484156350 * MS, AT,
)  # fmt: skip
STREAM: dict[str, list[AccountEvent]] = {
    "spot/new": [
        spot_order(
            "4293153", MINE, 1, "limit", "gtc", "0.00000000", "0.00000000", "", "new", False, "", 1499405658657,
            1499405658657, 0,
        )
    ],
    "spot/trade": [
        Fill(
            "ETH-BTC", "28457", "4293153", MINE, 1, "", "0.10264000", "0.40000000", "0.04105600", "0.00040000", "ETH",
            True, "", 1499405658848 * MS, AT,
        ),
        spot_order(
            "4293153", MINE, 1, "limit", "gtc", "0.40000000", "0.04105600", "0.10264", "partially_filled", False, "",
            1499405658848, 1499405658657, 0,
        ),
    ],
    "spot/market_by_quote": [
        Fill(
            "ETH-BTC", "28458", "4293160", "web_1", 2, "", "0.10000000", "0.50000000", "0.05000000", "0.00000000",
            "BNB", False, "", 1499405659000 * MS, AT,
        ),
        spot_order(
            "4293160", "web_1", 2, "market", "gtc", "0.50000000", "0.05000000", "0.1", "filled", True, "",
            1499405659000, 1499405659000, 0, price="", size="",
        ),
    ],
    "spot/canceled": [spot_order(*CANCELED, 0, stop="0.10300000")],
    "spot/expired": [
        spot_order(
            "4293170", "ioc", 1, "limit", "ioc", "0.00000000", "0.00000000", "", "expired", True,
            "UNFILLED_IOC_QUANTITY_EXPIRED", 1499405660001, 1499405660001, 0, price="0.10000000", size="2.00000000",
        )
    ],
    "spot/position": [
        Balance("ETH", "10000.500000", "10000.000000", "0.500000", "", 1564034571073 * MS, AT),
        Balance("BTC", "0.00000001", "0.00000001", "0.00000000", "", 1564034571073 * MS, AT),
    ],
    "spot/balance_update": [
        BalanceChange("BTC", "-100.00000000", "unknown:balanceUpdate", "", 1573200697068 * MS, AT)
    ],
    "spot/list_status": [],
    "spot/lock_update": [],
    "spot/terminated": [],
    "spot/shutdown": [],
    "spot/logon_answer": [],
    "spot/subscribed_answer": [],
    "spot/banned_answer": [],
    "spot/revoked": [],
    "usdm/new": [
        OrderUpdate(
            "BTC-USDT", "8886774", "TEST", 2, "limit", "gtc", "", False, "7103.04", "", "0.001", "0", "", "", "new",
            False, "", 1568879465650 * MS, 0, AT,
        )
    ],
    "usdm/trade": [
        Fill(
            "BTC-USDT", "698759", "25851813", "TEST", 2, "short", "7819.01", "0.002", "", "-0.07819010", "USDT", False,
            "-0.91539999", 1568879466000 * MS, AT,
        ),
        OrderUpdate(
            "BTC-USDT", "25851813", "TEST", 2, "market", "gtc", "short", True, "", "", "0.002", "0.002", "",
            "7819.01000", "filled", True, "", 1568879466000 * MS, 0, AT,
        ),
    ],
    "usdm/trade_without_fee": [
        Fill(
            "BTC-USDT", "698759", "25851813", "TEST", 2, "short", "7819.01", "0.002", "", "0", "", False,
            "-0.91539999", 1568879466000 * MS, AT,
        ),
        OrderUpdate(
            "BTC-USDT", "25851813", "TEST", 2, "market", "gtc", "short", True, "", "", "0.002", "0.002", "",
            "7819.01000", "filled", True, "", 1568879466000 * MS, 0, AT,
        ),
    ],
    "usdm/expired": [
        OrderUpdate(
            "BTC-USDT", "8886780", "autoclose-1", 1, "limit", "ioc", "long", False, "9000", "8000", "0.5", "0", "", "",
            "expired", True, "expiry reason 3", 1568879467000 * MS, 0, AT,
        )
    ],
    "usdm/trade_lite": [
        Fill(
            "BTC-USDT", "698759", "25851813", "TEST", 2, "", "7819.01", "0.002", "", "", "", False, "",
            1568879466000 * MS, AT,
        )
    ],
    "usdm/account_update": [
        Balance("USDT", "122624.12345678", "", "", "", 1564745798938 * MS, AT),
        Position("BTC-USDT", "", "-20", "6563.66500", "", "2850.21200", "1.5", 1564745798938 * MS, AT),
        Position("BTC-USDT", "long", "0", "", "", "0", "0", 1564745798938 * MS, AT),
    ],
    "usdm/deposit": [
        BalanceChange("USDT", "50.12345678", "deposit", "", 1564745798939 * MS, AT),
        Balance("USDT", "150.00000000", "", "", "", 1564745798939 * MS, AT),
    ],
    "usdm/funding": [
        BalanceChange("USDT", "-0.50000000", "funding", "", 1564745798940 * MS, AT),
        Balance("USDT", "149.50000000", "", "", "", 1564745798940 * MS, AT),
    ],
    "usdm/insurance": [
        BalanceChange("USDT", "-1.00000000", "unknown:INSURANCE_CLEAR", "", 1564745798941 * MS, AT),
        Balance("USDT", "0.00000000", "", "", "", 1564745798941 * MS, AT),
    ],
    "usdm/algo_update": [],
    "usdm/listen_key_expired": [],
    "deribit/orders_raw": [
        OrderUpdate(
            "BTC-PERPETUAL", "5", "mine", 1, "limit", "gtc", "", False, "10502.52", "", "200", "0", "", "", "new",
            False, "", 1581507423789 * MS, 1581507423780 * MS, AT,
        )
    ],
    "deribit/orders_100ms": [
        OrderUpdate(
            "BTC-PERPETUAL", "5", "mine", 1, "limit", "gtc", "", True, "10502.52", "", "200.0", "20", "", "10502.5",
            "partially_filled", False, "", 1581507423799 * MS, 1581507423780 * MS, AT,
        )
    ],
    "deribit/stop_market_untriggered": [
        OrderUpdate(
            "BTC-PERPETUAL", "SLMS-5", "", 2, "stop_market", "ioc", "", False, "", "10400.0", "200.0", "0", "", "",
            "untriggered", False, "", 1581507423790 * MS, 1581507423790 * MS, AT,
        )
    ],
    "deribit/trades": [Fill(*BTC_SOLD)],
    "deribit/changes": [
        msgspec.structs.replace(Fill(*BTC_SOLD), fee="-0.00000001", maker=True, venue_realised="0.00012"),
        OrderUpdate(
            "BTC-PERPETUAL", "4008965646", "", 2, "market", "gtc", "", False, "", "", "20", "20", "", "8954", "filled",
            True, "", 1590484156350 * MS, 1590484156350 * MS, AT,
        ),
        Position("BTC-PERPETUAL", "", "-185160", "15000", "17391", "0.906961435", "0.012454598", 0, AT),
    ],
    "deribit/portfolio": [Balance("BTC", "302.60065765", "", "", "302.6188592", 0, AT)],
    "deribit/auth_answer": [],
    "deribit/subscribed_answer": [],
    "deribit/unauthorized": [],
    "deribit/test_request": [],
}  # fmt: skip
REST: dict[str, tuple[str, list[AccountEvent]]] = {
    "spot/rest_orders": ("orders", [spot_order(*CANCELED, 2, stop="0.10300000")]),
    "spot/rest_fills": (
        "fills",
        [msgspec.structs.replace(STREAM["spot/trade"][0], client_order_id="", flags=2)],  # type: ignore[type-var]
    ),
    "spot/rest_balances": (
        "balances",
        [Balance("ETH", "10000.50000000", "10000.00000000", "0.50000000", "", 1564034571073 * MS, AT, 2)],
    ),
    "usdm/rest_orders": (
        "orders",
        [
            OrderUpdate(
                "BTC-USDT", "25851813", "TEST", 2, "market", "gtc", "short", True, "", "", "0.002", "0.002",
                "15.63802", "7819.01000", "filled", True, "", 1568879466000 * MS, 1568879465990 * MS, AT, 2,
            )
        ],
    ),
    "usdm/rest_fills": (
        "fills",
        [
            Fill(
                "BTC-USDT", "698759", "25851813", "", 2, "short", "7819.01", "0.002", "15.63802", "-0.07819010",
                "USDT", False, "-0.91539999", 1568879466000 * MS, AT, 2,
            )
        ],
    ),
    "usdm/rest_balances": ("balances", [Balance("USDT", "122624.12345678", "", "", "", 1564745798938 * MS, AT, 2)]),
    "usdm/rest_positions": (
        "positions",
        [Position("BTC-USDT", "", "-20", "6563.665", "6421.10", "2850.21200000", "", 1564745798938 * MS, AT, 2)],
    ),
    "deribit/rest_order_history": (
        "orders",
        [
            OrderUpdate(
                "ETH-PERPETUAL", "ETH-331562", "", 2, "limit", "gtc", "", False, "118.94", "", "20", "5.0", "",
                "118.94", "cancelled", True, "user_request", 1550219810944 * MS, 1550219749176 * MS, AT, 2,
            )
        ],
    ),
    "deribit/rest_trades": (
        "fills",
        [msgspec.structs.replace(Fill(*BTC_SOLD), price="8954.0", size="20.0", flags=2)],
    ),
    "deribit/rest_positions": (
        "positions", [Position("BTC-PERPETUAL", "", "0", "", "17391", "0", "0.012454598", 0, AT, 2)],
    ),
    "deribit/rest_summaries": (
        "balances",
        [
            Balance("BTC", "302.60065765", "", "", "302.6188592", 0, AT, 2),
            Balance("USDC", "0.0", "", "", "0.0", 0, AT, 2),
        ],
    ),
    "deribit/rest_deposits": (
        "deposits", [BalanceChange("BTC", "0.5", "deposit", "230668", 1517983519000 * MS, AT, 2)],
    ),
    "deribit/rest_withdrawals": (
        "withdrawals", [BalanceChange("BTC", "-0.25", "withdrawal", "1", 1571190613000 * MS, AT, 2)],
    ),
}  # fmt: skip
SAME = [
    # Stream and REST of one thing: equal keys.
    ("spot/canceled", "spot/rest_orders", order_state_key),
    ("spot/trade", "spot/rest_fills", fill_key),
    ("spot/position", "spot/rest_balances", balance_key),
    ("usdm/trade", "usdm/rest_fills", fill_key),
    ("usdm/trade_lite", "usdm/rest_fills", fill_key),
    ("usdm/account_update", "usdm/rest_balances", balance_key),
    ("deribit/trades", "deribit/rest_trades", fill_key),
    ("deribit/portfolio", "deribit/rest_summaries", balance_key),
    ("deribit/changes", "deribit/rest_positions", position_key),
]
OTHERS = {"spot/rejected_microseconds", "usdm/listen_key"}
"""Looked at in tests of their own."""


def payload(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes().strip()


def mapper_of(name: str) -> AccountMapper:
    return MAPPERS[name.partition("/")[0]]


def test_every_payload_has_its_expectation() -> None:
    names = {f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.json")}
    assert names == {*STREAM, *REST, *OTHERS}


@pytest.mark.parametrize("name", STREAM)
def test_stream(name: str) -> None:
    assert list(mapper_of(name).map(payload(name), AT)) == STREAM[name]


@pytest.mark.parametrize("name", REST)
def test_rest(name: str) -> None:
    kind, expected = REST[name]
    assert list(mapper_of(name).map_rest(kind, "", 200, payload(name), AT)) == expected


@pytest.mark.parametrize("name", STREAM)
def test_every_spelling_gives_the_same(name: str) -> None:
    """Other order of keys, unknown keys, blanks."""

    def respelled(value: Any) -> Any:
        if isinstance(value, dict):
            turned = {key: respelled(each) for key, each in reversed(value.items())}
            return (
                turned if name.startswith("deribit/") and "result" in value else turned | {"zz_new": [None, {"x": 1}]}
            )
        return [respelled(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(respelled(json.loads(payload(name), parse_float=lambda text: f"@{text}@")), indent=1)
    text = text.replace('"@', "").replace('@"', "")
    assert list(mapper_of(name).map(text.encode(), AT)) == STREAM[name]


@pytest.mark.parametrize(("stream", "rest", "key"), SAME)
def test_stream_and_rest_have_equal_keys(stream: str, rest: str, key: Any) -> None:
    one, other = STREAM[stream], REST[rest][1]
    kind = type(other[0])
    assert {key(each) for each in other} & {key(each) for each in one if type(each) is kind}


def test_a_fee_that_one_source_lacks_comes_from_the_other() -> None:
    rest = REST["usdm/rest_fills"][1][0]
    assert isinstance(rest, Fill)
    for name in ("usdm/trade_lite", "usdm/trade_without_fee"):
        told = STREAM[name][0]
        assert isinstance(told, Fill)
        for both in (merged(told, rest), merged(rest, told)):
            assert (both.fee, both.fee_asset) == ("-0.07819010", "USDT")
            assert (both.client_order_id, both.position_side, both.quote) == ("TEST", "short", "15.63802")
            assert both.venue_realised == "-0.91539999"


def test_a_rejected_order_with_times_in_microseconds() -> None:
    (order,) = mapper_of("spot/").map(payload("spot/rejected_microseconds"), AT)
    assert isinstance(order, OrderUpdate)
    assert (order.status, order.terminal, order.reason) == ("rejected", True, "INSUFFICIENT_BALANCES")
    assert (order.venue_ns, order.created_ns) == (1_499_405_660_001_123_000, 0)


def test_a_state_we_do_not_know_is_kept_as_such_and_not_as_the_end() -> None:
    body = payload("spot/new").replace(b'"X":"NEW"', b'"X":"DREAMING"')
    (order,) = mapper_of("spot/").map(body, AT)
    assert isinstance(order, OrderUpdate)
    assert (order.status, order.terminal) == ("unknown:DREAMING", False)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("spot/trade", b'"s":"ETHBTC"', b'"s":"NEWBTC"', "unknown_symbol"),
        ("spot/trade", b'"l":"0.40000000"', b'"l":"1e5"', "bad_field"),
        ("spot/trade", b'"l":"0.40000000"', b'"l":"NaN"', "bad_field"),
        ("spot/trade", b'"t":28457,', b"", "missing_field"),
        ("spot/trade", b'"S":"BUY"', b'"S":"HOLD"', "bad_field"),
        ("spot/trade", b"executionReport", b"executionDream", "unknown_event"),
        ("spot/position", b'{"a":"ETH"', b'{"a":', "bad_json"),
        ("usdm/trade", b'"s":"BTCUSDT"', b'"s":"NEWUSDT"', "unknown_symbol"),
        ("usdm/trade", b'"ps":"SHORT"', b'"ps":"UP"', "bad_field"),
        ("usdm/trade", b"ORDER_TRADE_UPDATE", b"ORDER_DREAM", "unknown_event"),
        ("usdm/account_update", b'"wb":"122624.12345678"', b'"wb":122624', "bad_field"),
        ("deribit/changes", b'BTC-PERPETUAL","kind"', b'X","kind"', "unknown_symbol"),
        ("deribit/portfolio", b'"balance":302.60065765', b'"balance":"much"', "bad_field"),
        ("deribit/trades", b'"direction":"sell"', b'"direction":"zero"', "bad_field"),
        ("deribit/portfolio", b"user.portfolio.any", b"user.lock", "unknown_event"),
        ("deribit/portfolio", b'"data"', b'"date"', "missing_field"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped_says_why(name: str, old: bytes, new: bytes, reason: str) -> None:
    body = payload(name)
    assert old in body
    with pytest.raises(MapError) as error:
        mapper_of(name).map(body.replace(old, new), AT)
    assert error.value.reason == reason


def test_an_unknown_symbol_is_named_and_can_be_learnt() -> None:
    mapper = SpotAccountMapper({})
    with pytest.raises(MapError) as error:
        mapper.map(payload("spot/new"), AT)
    mapper.learn(error.value.detail, "ETH-BTC")
    assert list(mapper.map(payload("spot/new"), AT)) == STREAM["spot/new"]


@pytest.mark.parametrize("name", MAPPERS)
def test_refused_and_unknown_answers(name: str) -> None:
    for kind, status, reason in (("fills", 429, "rest_status"), ("dreams", 200, "unknown_kind")):
        with pytest.raises(MapError) as error:
            MAPPERS[name].map_rest(kind, "", status, b'{"result":[]}', AT)
        assert error.value.reason == reason
        assert "result" not in error.value.detail, "a refused answer may hold anything"


def test_deribits_has_more() -> None:
    body = payload("deribit/rest_trades")
    whole, part = body, body.replace(b'"has_more":false', b'"has_more":true')
    mapper = mapper_of("deribit/")
    assert [mapper.more("fills", each) for each in (whole, part)] == [False, True]
    assert not mapper.more("orders", payload("deribit/rest_order_history"))
    assert not mapper_of("spot/").more("fills", payload("spot/rest_fills"))
    with pytest.raises(MapError):
        mapper.more("fills", b"[]")


@given(st.sampled_from(sorted(STREAM)), st.data())
def test_torn_frames_are_map_errors_only(name: str, data: st.DataObject) -> None:
    body = bytearray(payload(name))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        events = mapper_of(name).map(bytes(body), AT)
    except MapError:
        return
    for event in events:
        assert type(event) in (OrderUpdate, Fill, Balance, BalanceChange, Position)
        if isinstance(event, BalanceChange):
            assert change_key(event)
