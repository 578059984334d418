"""Values of other programs: exact, or refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.importing import ImportRefused, mapping, values


@given(st.floats(min_value=1e-30, max_value=1e30) | st.floats(min_value=-1e30, max_value=-1e-30))
def test_a_float_becomes_the_shortest_text_that_gives_it_again(number: float) -> None:
    text = values.decimal(number)
    assert float(text) == number
    assert Decimal(text) == Decimal(repr(number))
    assert "e" not in text.lower()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**15), max_value=10**15))
def test_decimals_and_texts_stay_exact(number: Decimal) -> None:
    assert Decimal(values.decimal(number)) == number
    assert values.decimal(format(number, "f")) == values.decimal(number)


@pytest.mark.parametrize(("given_", "text"), [
    (0.1, "0.1"), (1e-8, "0.00000001"), (100, "100"), ("1.5000", "1.5"), (" 7e3 ", "7000"), (-0.0, "0"), ("0.000", "0"),
])  # fmt: skip
def test_numbers(given_: Any, text: str) -> None:
    assert values.decimal(given_) == text


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "NaN", "-Infinity", "1,5", "", "1e999999999", True, b"1", None, []]
)
def test_no_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a"):
        values.decimal(value)


AT = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
NS = "1769860800250000000"


@pytest.mark.parametrize("value", [
    1769860800.25, 1769860800250, 1769860800250000, 1769860800250000000, "1769860800.25", "1769860800250", AT,
    AT.replace(tzinfo=None), AT.astimezone(timezone(timedelta(hours=5))), "2026-01-31T12:00:00.250Z",
    "2026-01-31 12:00:00.250000", "2026-01-31T17:00:00.25+05:00", Decimal("1769860800.25"),
])  # fmt: skip
def test_times(value: Any) -> None:
    assert values.moment(value) == NS


@pytest.mark.parametrize("value", [0, -5, 12345, "yesterday", 10**25, date(1999, 1, 1), None, True, "1769860800,25"])
def test_no_times(value: Any) -> None:
    with pytest.raises(ValueError, match="is "):
        values.moment(value)


@pytest.mark.parametrize(("value", "text"), [
    ("BTC/USDT", "BTC-USDT"), ("btcusdt", "BTC-USDT"), ("BTC_USDT", "BTC-USDT"), ("BTC/USDT:USDT", "BTC-USDT"),
    ("ETHBTC", "ETH-BTC"), ("BTC-PERPETUAL", "BTC-PERPETUAL"), ("BTC-27DEC26-100000-C", "BTC-27DEC26-100000-C"),
])  # fmt: skip
def test_symbols(value: str, text: str) -> None:
    assert values.symbol(value) == text


def test_words() -> None:
    assert [values.side(value) for value in ("BUY", "sell", "b", "ask")] == ["1", "2", "1", "2"]
    assert values.status("PARTIALLY_FILLED") == "partially_filled"
    assert values.status("canceled") == "cancelled"
    assert values.status("weird") == "unknown:weird"
    assert values.account("Main Account") == "main-account"
    assert values.account("Desk/One") == "desk/one"
    assert values.word(17.0) == "17"
    for read, value in ((values.side, "hold"), (values.symbol, "???"), (values.word, "a\x00b"), (values.flag, "maybe"),
                        (values.account, "///"), (values.count, "1.5")):  # fmt: skip
        with pytest.raises(ValueError, match="is not"):
            read(value)


@pytest.mark.parametrize(("text", "message"), [
    ("[1]", "is not a mapping of names"),
    ("a: [", "is not YAML"),
    ("acount: x", "'acount' is not known: write account"),
    ("tables: {a: {target: moon}}", "tables.a.target: 'moon' is not known: write fills"),
    ("tables: {a: {target: fills, fields: {prize: p}}}", "'prize' is no field of fills: write account, symbol"),
    ("tables: {a: {target: fills, fields: {price: 5}}}", "tables.a.fields.price: is not a text"),
])  # fmt: skip
def test_mappings_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        mapping.parse(text, "mapping.yaml")
