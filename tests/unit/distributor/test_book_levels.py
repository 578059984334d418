"""Prices as exact keys, and the two sides of a book."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.distributor.book import DIGITS, Book, Image, is_zero, price_key
from feedmill.exchanges.base import BookUpdate

DECIMALS = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=Decimal("-1e40"), max_value=Decimal("1e40"), places=None
)


@pytest.mark.parametrize(
    "same",
    [
        ("1.0", "1.00", "1", "1.", "01", "1e0", "10E-1", "0.1e1", "+1"),
        ("-1.5", "-1.50", "-15e-1"),
        ("0", "0.000", "-0", "-0.0", "0e-30"),
        ("0.000000000000000001", "1e-18"),
        ("62000.10", "62000.1", "6.20001E4"),
    ],
)
def test_equal_prices_have_one_key(same: tuple[str, ...]) -> None:
    assert len({price_key(text) for text in same}) == 1


@given(DECIMALS)
def test_the_key_is_the_exact_number_or_refused(number: Decimal) -> None:
    units = Fraction(number) * 10**DIGITS
    for text in (str(number), format(number, "f")):
        if units.denominator == 1:
            assert price_key(text) == units
        else:
            with pytest.raises(ValueError, match="decimals"):
                price_key(text)


@pytest.mark.parametrize("sign", ["", "-"])
def test_neighbours_of_many_digits_are_told_apart(sign: str) -> None:
    low, high = (price_key(f"{sign}12345678901234567890.12345678901234567{last}") for last in "89")
    assert abs(high - low) == 1


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "x", "1,5", "nan", "-inf", "Infinity", "sNaN", "1e-19", "0.0000000000000000001", "1e999999",
     "1e99999999999999999999", "9" * 61, "9" * 5000, "1" + "0" * 5000 + ".5", "0." + "1" * 5000, "1e"],
)  # fmt: skip
def test_what_is_no_price_is_refused_by_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"price|digits"):
        price_key(text)


@pytest.mark.parametrize(
    ("size", "zero"), [("0", True), ("0.00000000", True), ("00.0", True), ("0.001", False), ("10", False)]
)
def test_zero_sizes(size: str, zero: bool) -> None:
    assert is_zero(size) is zero


def update(bids: Any = (), asks: Any = (), *, snapshot: bool = False, seq: int = 2, at: int = 0) -> BookUpdate:
    return BookUpdate("S", snapshot, seq, seq, seq - 1, at, 5, list(bids), list(asks))


def test_a_change_sets_replaces_and_removes_levels_whatever_their_spelling() -> None:
    book = Book(update([("10.0", "1"), ("9", "2"), ("8", "0")], [("11", "1")], snapshot=True, seq=1))
    assert book.fresh
    book.apply(update([("10.00", "5"), ("9.0", "0.000"), ("7", "0"), ("9.5", "3")], [("11.0", "0"), ("12", "4")]))
    assert book.top(5) == ([("10.00", "5"), ("9.5", "3")], [("12", "4")])
    assert (book.seq, book.fresh) == (2, False)


def test_top_is_best_first_and_no_deeper_than_asked() -> None:
    levels = [(f"{n / 2}", "1") for n in (5, 1, 9, 3, 7)]
    book = Book(update(levels, levels, snapshot=True))
    assert [price for price, _ in book.top(3)[0]] == ["4.5", "3.5", "2.5"]
    assert [price for price, _ in book.top(3)[1]] == ["0.5", "1.5", "2.5"]
    assert book.top(0) == ([], [])


def test_negative_prices_are_in_order() -> None:
    book = Book(update([("-1.5", "1"), ("-0.5", "1"), ("2", "1")], [("-0.1", "1"), ("-3", "1")], snapshot=True))
    assert [price for price, _ in book.top(9)[0]] == ["2", "-0.5", "-1.5"]
    assert [price for price, _ in book.top(9)[1]] == ["-3", "-0.1"]


def test_an_unreadable_change_applies_nothing() -> None:
    book = Book(update([("10", "1")], [("11", "1")], snapshot=True, seq=1))
    before = book.image()
    with pytest.raises(ValueError, match="price"):
        book.apply(update([("10", "0")], [("11", "0"), ("x", "1")]))
    assert book.image() == before


def test_a_snapshot_without_a_time_keeps_none_and_a_change_without_one_keeps_the_last() -> None:
    book = Book(update(snapshot=True, seq=1))
    assert book.exchange_ns == 0
    book.apply(update(at=7))
    book.apply(update(seq=3))
    assert book.exchange_ns == 7


def test_an_image_brings_back_the_same_book() -> None:
    book = Book(update([("10.0", "1"), ("9", "2")], [("11", "1")], snapshot=True, seq=1))
    book.apply(update([("9.10", "3")], at=9))
    image = msgspec.msgpack.decode(msgspec.msgpack.encode(book.image()), type=Image)
    again = Book(image)
    assert again.image() == book.image()
    assert again.top(9) == book.top(9)
    assert again.image_delta("S") == book.image_delta("S")
