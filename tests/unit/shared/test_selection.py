"""Which instruments a selection comes to: hand-made lists of the three venues, and what must hold for any list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.exchanges.base import Listed, Listing, MapError
from feedmill.exchanges.registry import get_venue
from feedmill.plan import plan, shard_of
from feedmill.resources.feed import Select
from feedmill.resources.load import load_texts
from feedmill.shared.clock import SECOND
from feedmill.shared.selection.pick import (
    Chosen,
    Criteria,
    NothingTrades,
    TooMany,
    choose,
    next_expiry,
    unexpired,
)
from feedmill.shared.selection.record import Record, encode, next_version, read_answer, record_key

DAY = 86_400 * SECOND
NOW = 1_795_651_200_000_000_000
"""2026-11-26 00:00 UTC."""
MS = 1_000_000


def criteria(**select: Any) -> Criteria:
    return Criteria.of(Select.model_validate(select))


def deribit(name: str, kind: str, base: str, quote: str, days: float = 0, **other: Any) -> dict[str, Any]:
    expiry = (NOW + int(days * DAY)) // MS if days else 32503708800000
    row = {"instrument_name": name, "kind": kind, "base_currency": base, "quote_currency": quote, "state": "open"}
    return row | {"expiration_timestamp": expiry, "is_active": True, "tick_size": 0.5} | other


DERIBIT = [
    deribit("BTC-PERPETUAL", "future", "BTC", "USD", settlement_period="perpetual"),
    deribit("BTC-25DEC26", "future", "BTC", "USD", 29, settlement_period="month"),
    deribit("BTC-27NOV26-80000-C", "option", "BTC", "BTC", 1.33),
    deribit("BTC-27NOV26-80000-P", "option", "BTC", "BTC", 1.33, state="locked"),
    deribit("BTC-26NOV26-80000-P", "option", "BTC", "BTC", 0.33, state="created"),
    deribit("BTC-25JUN27-80000-C", "option", "BTC", "BTC", 211),
    deribit("BTC_USDC-27NOV26-80000-C", "option", "BTC", "USDC", 1.33),
    deribit("ETH-27NOV26-3000-C", "option", "ETH", "ETH", 1.33),
    deribit("BTC-25NOV26-80000-C", "option", "BTC", "BTC", -0.66),
    deribit("BTC-27NOV26-90000-C", "option", "BTC", "BTC", 1.33, state="closed", is_active=False),
    deribit("BTC_USDC", "spot", "BTC", "USDC"),
    deribit("BTC-CS-19DEC26-70000_75000", "option_combo", "BTC", "BTC", 23),
    deribit("of a form nobody knows", "option", "BTC", "BTC", 2),
    {"instrument_name": "BTC-NO-CURRENCY", "kind": "option"},
    deribit("BTC-NEW", "a kind of tomorrow", "BTC", "BTC"),
]


def spot(base: str, quote: str, status: str = "TRADING") -> dict[str, Any]:
    return {"symbol": base + quote, "status": status, "baseAsset": base, "quoteAsset": quote, "filters": []}


SPOT = [
    spot("BTC", "USDT"), spot("ETH", "USDT"), spot("ETH", "BTC"), spot("LUNA", "USDT", "BREAK"),
    spot("SOL", "USDT", "HALT"), spot("1INCH", "USDT"), spot("这是测试币456", "USDT"), {"symbol": "BROKEN"},
]  # fmt: skip
NEVER = 4133404800000


def usdm(native: str, base: str, quote: str, contract: str, delivery: int = NEVER, **other: Any) -> dict[str, Any]:
    row = {"symbol": native, "baseAsset": base, "quoteAsset": quote, "contractType": contract}
    return row | {"deliveryDate": delivery, "status": "TRADING", "filters": []} | other


USDM = [
    usdm("BTCUSDT", "BTC", "USDT", "PERPETUAL"),
    usdm("ETHUSDC", "ETH", "USDC", "PERPETUAL"),
    usdm("TSLAUSDT", "TSLA", "USDT", "TRADIFI_PERPETUAL"),
    usdm("BTCUSDT_261225", "BTC", "USDT", "CURRENT_QUARTER", (NOW + 29 * DAY) // MS),
    usdm("BTCUSDT_270326", "BTC", "USDT", "NEXT_QUARTER", (NOW + 120 * DAY) // MS, status="PENDING_TRADING"),
    usdm("OLDUSDT", "OLD", "USDT", "PERPETUAL", (NOW + DAY) // MS, status="SETTLING"),
]


def listed(venue: str) -> list[Listed]:
    rows: list[Any] = {"deribit/Derivatives": DERIBIT, "binance/Spot": SPOT, "binance/UsdM": USDM}[venue]
    body = json.dumps({"result": rows} if venue.startswith("deribit") else {"symbols": rows}, ensure_ascii=False)
    return list(get_venue(*venue.split("/")).rest("http://x").read_listing(body.encode()))


def symbols(venue: str, had: frozenset[str] = frozenset(), at: int = NOW, **select: Any) -> list[str]:
    to_native = get_venue(*venue.split("/")).to_native
    return [each.symbol for each in choose(criteria(**select), listed(venue), at, had, to_native)]


@pytest.mark.parametrize(
    ("venue", "select", "wanted"),
    [
        (
            "deribit/Derivatives", {"types": ["Option"], "base": ["BTC"], "expiresWithin": "30d"},
            ["BTC-27NOV26-80000-C", "BTC_USDC-27NOV26-80000-C"],
        ),
        (
            "deribit/Derivatives", {"types": ["Option"], "base": ["BTC"], "quote": ["BTC"]},
            ["BTC-25JUN27-80000-C", "BTC-27NOV26-80000-C"],
        ),
        ("deribit/Derivatives", {"types": ["Perpetual"]}, ["BTC-PERPETUAL"]),
        ("deribit/Derivatives", {"types": ["Future"]}, ["BTC-25DEC26"]),
        ("deribit/Derivatives", {"types": ["Spot", "Perpetual"]}, ["BTC-PERPETUAL", "BTC_USDC"]),
        ("deribit/Derivatives", {"types": ["Combo"]}, ["BTC-CS-19DEC26-70000_75000"]),
        ("deribit/Derivatives", {"base": ["XRP"]}, []),
        ("binance/Spot", {"quote": ["USDT"]}, ["1INCH-USDT", "BTC-USDT", "ETH-USDT", "这是测试币456-USDT"]),
        ("binance/Spot", {"base": ["ETH"]}, ["ETH-BTC", "ETH-USDT"]),
        ("binance/Spot", {"quote": ["USDT"], "expiresWithin": "30d"}, []),
        ("binance/UsdM", {"types": ["Perpetual"], "quote": ["USDT"]}, ["BTC-USDT", "TSLA-USDT"]),
        ("binance/UsdM", {"base": ["BTC"]}, ["BTC-USDT", "BTC-USDT-261225"]),
        ("binance/UsdM", {"types": ["Future"], "expiresWithin": "90d"}, ["BTC-USDT-261225"]),
    ],
)  # fmt: skip
def test_the_lists_of_the_venues(venue: str, select: dict[str, Any], wanted: list[str]) -> None:
    assert symbols(venue, **select) == wanted


def test_what_rests_is_kept_but_not_begun_with() -> None:
    venue, select = "deribit/Derivatives", {"types": ["Option"], "base": ["BTC"], "expiresWithin": "30d"}
    kept = "BTC-27NOV26-80000-P"
    assert kept not in symbols(venue, **select)
    assert kept in symbols(venue, frozenset({kept}), **select)
    assert "SOL-USDT" in symbols("binance/Spot", frozenset({"SOL-USDT"}), quote=["USDT"])
    # An end is an end, also of what was there.
    assert "LUNA-USDT" not in symbols("binance/Spot", frozenset({"LUNA-USDT"}), quote=["USDT"])
    assert kept not in symbols(venue, frozenset({kept}), NOW + 2 * DAY, **select)


def test_a_venue_that_rests_as_a_whole_ends_nothing() -> None:
    for rows in ([], [Listed("BTC-USDT", "BTCUSDT", "Spot", "BTC", "USDT", 0, Listing.ENDED)]):
        with pytest.raises(NothingTrades):
            choose(criteria(base=["BTC"]), rows, NOW, frozenset({"BTC-USDT"}), lambda symbol: symbol.replace("-", ""))


def test_too_many_names_key_number_and_remedy() -> None:
    with pytest.raises(TooMany) as told:
        symbols("binance/Spot", quote=["USDT"], maxInstruments=3)
    assert str(told.value) == (
        "spec.instruments.select matches 4 instruments, more than maxInstruments 3: "
        "narrow it by types, base, quote or expiresWithin, or raise maxInstruments (2000 at most)"
    )
    assert len(symbols("binance/Spot", quote=["USDT"], maxInstruments=4)) == 4


@pytest.mark.parametrize("venue", ["deribit/Derivatives", "binance/Spot", "binance/UsdM"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"result":7,"symbols":7}', b"\xff"])
def test_an_answer_that_is_no_list(venue: str, body: bytes) -> None:
    with pytest.raises(MapError):
        list(get_venue(*venue.split("/")).rest("http://x").read_listing(body))


def test_what_is_asked_for() -> None:
    rest = get_venue("deribit", "Derivatives").rest("https://d")
    assert [request.params["kind"] for request in rest.listing(frozenset({"Option"}))] == ["option"]
    assert [request.params["kind"] for request in rest.listing(frozenset({"Perpetual", "Spot"}))] == ["spot", "future"]
    assert len(rest.listing(frozenset())) == 5
    for request in rest.listing(frozenset()):
        assert (request.bucket, request.params["currency"]) == ("instruments", "any")
    (request,) = get_venue("binance", "Spot").rest("https://b").listing(frozenset({"Spot"}))
    assert (request.url, request.weight) == ("https://b/api/v3/exchangeInfo", 20)
    (request,) = get_venue("binance", "UsdM").rest("https://f").listing(frozenset())
    assert (request.url, request.weight) == ("https://f/fapi/v1/exchangeInfo", 1)


def test_how_often_the_list_is_read() -> None:
    assert criteria(base=["BTC"]).every == 60
    assert criteria(types=["Option", "Spot"]).every == 60
    assert criteria(types=["Spot"]).every == 300
    assert criteria(types=["Option"], refreshInterval="10m").every == 600


def test_criteria_mean_the_same_or_not() -> None:
    one = criteria(types=["Option", "Future"], base=["BTC", "ETH"])
    assert one.key == criteria(base=["ETH", "BTC"], types=["Future", "Option"], maxInstruments=7).key
    assert one.key != criteria(types=["Option"], base=["BTC", "ETH"]).key
    assert criteria(base=["BTC"]).key != criteria(quote=["BTC"]).key
    assert criteria(base=["BTC"], expiresWithin="24h").key == criteria(base=["BTC"], expiresWithin="1d").key


_CURRENCY = st.sampled_from(["BTC", "ETH", "USDT", "SOL"])
_LISTED = st.builds(
    Listed,
    st.just(""), st.just(""), st.sampled_from(["Spot", "Perpetual", "Future", "Option", "Combo"]), _CURRENCY, _CURRENCY,
    st.one_of(st.just(0), st.integers(NOW - DAY, NOW + 60 * DAY)), st.sampled_from(Listing),
)  # fmt: skip


@st.composite
def _lists(draw: st.DrawFn) -> list[Listed]:
    rows = draw(st.lists(_LISTED, max_size=30))
    return [
        Listed(f"S{n}", f"n{n}", row.type, row.base, row.quote, row.expiry_ns, row.state) for n, row in enumerate(rows)
    ]


_SELECT = st.fixed_dictionaries(
    {"base": st.lists(_CURRENCY, min_size=1, unique=True)},
    optional={
        "types": st.lists(st.sampled_from(["Spot", "Future", "Option"]), min_size=1, unique=True),
        "quote": st.lists(_CURRENCY, min_size=1, unique=True),
        "expiresWithin": st.sampled_from(["1h", "7d", "30d"]),
    },
)


@given(rows=_lists(), select=_SELECT, had=st.frozensets(st.integers(0, 29).map("S{}".format)), data=st.data())
def test_any_list(rows: list[Listed], select: dict[str, Any], had: frozenset[str], data: st.DataObject) -> None:
    """Sorted, by every criterion, the same in any order of the list, and nothing that has ended or expired."""
    wanted = criteria(**select)

    def native(symbol: str) -> str:
        return f"n{symbol[1:]}"

    if not any(row.state is Listing.TRADING for row in rows):
        with pytest.raises(NothingTrades):
            choose(wanted, rows, NOW, had, native)
        return
    found = choose(wanted, rows, NOW, had, native)
    assert choose(wanted, data.draw(st.permutations(rows)), NOW, had, native) == found
    assert found == sorted(found)
    by_name = {row.symbol: row for row in rows}
    for each in found:
        row = by_name[each.symbol]
        assert (each.native, each.expiry_ns) == (row.native, row.expiry_ns)
        assert row.base in select["base"]
        assert row.type in select.get("types", [row.type])
        assert row.quote in select.get("quote", [row.quote])
        assert not row.expiry_ns or row.expiry_ns > NOW
        assert row.state is Listing.TRADING or (row.state is Listing.PAUSED and row.symbol in had)
        assert row.expiry_ns or "expiresWithin" not in select
    # What trades and is not found fails a criterion.
    for row in rows:
        if row.state is Listing.TRADING and row.symbol not in {each.symbol for each in found}:
            assert not wanted.match(row, NOW)
    # Time alone only takes away what expires; the rest keeps its shard.
    later = choose(wanted, rows, NOW + 3600 * SECOND, frozenset(each.symbol for each in found), native)
    if "expiresWithin" not in select:
        assert later == unexpired(found, NOW + 3600 * SECOND)
    first = next_expiry(found)
    if first is not None:
        assert unexpired(found, first - 1) == found
        assert len(unexpired(found, first)) < len(found)
    assert {each.symbol: shard_of(each.symbol, 4) for each in later}.items() <= {
        symbol: shard_of(symbol, 4) for symbol in by_name
    }.items()


def test_the_record() -> None:
    record = Record(criteria(base=["BTC"]).key, NOW, [Chosen("BTC-USDT", "BTCUSDT", 0), Chosen("X-26", "X", NOW)])
    assert read_answer([b"7", encode(record)]) == ("7", record)
    assert record.symbols == ("BTC-USDT", "X-26")
    assert read_answer([b"7"]) == ("7", None)
    assert read_answer([b"", b""]) == ("", None)
    assert read_answer([b"7", b"{broken"]) == ("7", None)
    assert record_key(("team", "options")) == "fm:{team.options}:selection"


@given(st.one_of(st.just(""), st.integers(0, 2**53).map(str), st.text(max_size=5)), st.integers(0, 2**62))
def test_versions_rise(version: str, now_ns: int) -> None:
    after = next_version(version, now_ns)
    assert after.isdigit()
    if version.isascii() and version.isdigit():
        assert int(after) > int(version)


def test_the_example() -> None:
    text = (Path(__file__).parents[3] / "examples" / "deribit-options.yaml").read_text("utf-8")
    resources = load_texts({"deribit-options.yaml": text}, local=True)
    (feed,) = resources.feeds.values()
    select = feed.spec.instruments.select
    assert select is not None
    wanted = Criteria.of(select)
    assert (wanted.most, wanted.every) == (500, 60)
    found = choose(
        wanted, listed("deribit/Derivatives"), NOW, frozenset(), get_venue("deribit", "Derivatives").to_native
    )
    assert [each.symbol for each in found] == ["BTC-27NOV26-80000-C"]
    assert sorted(each.shard for each in plan(resources) if each.role == "receiver" and each.shard is not None) == [
        0,
        1,
    ]
