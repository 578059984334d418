"""Sequence rules of books, as the dossiers word them (their sections 6)."""

from __future__ import annotations

import pytest

from feedmill.exchanges.base import BookUpdate, Chain, Venue
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT

APPLY, STALE, BREAK = Chain.APPLY, Chain.STALE, Chain.BREAK


def change(first: int, seq: int, previous: int = -1) -> BookUpdate:
    return BookUpdate("S", False, first, seq, previous, 0, 0, [], [])


@pytest.mark.parametrize(
    ("first", "seq", "verdict"),
    [
        (90, 99, STALE),
        (95, 100, STALE),
        (95, 101, APPLY),  # Overlapping: quantities are absolute.
        (101, 101, APPLY),
        (101, 120, APPLY),
        (102, 120, BREAK),
    ],
)
def test_spot(first: int, seq: int, verdict: Chain) -> None:
    rules = SPOT.book_rules
    assert rules.first(100, change(first, seq)) is verdict
    assert rules.next(100, change(first, seq)) is verdict


@pytest.mark.parametrize(
    ("first", "seq", "previous", "verdict"),
    [
        (80, 99, 70, STALE),
        (90, 100, 80, APPLY),
        (100, 110, 90, APPLY),
        (95, 110, 90, APPLY),
        (105, 110, 100, APPLY),  # Seen live, undocumented: the change right after the snapshot's.
        (105, 110, 102, BREAK),
    ],
)
def test_usdm_after_a_snapshot(first: int, seq: int, previous: int, verdict: Chain) -> None:
    assert USDM.book_rules.first(100, change(first, seq, previous)) is verdict


@pytest.mark.parametrize("venue", [USDM, DERIBIT])
@pytest.mark.parametrize(
    ("seq", "previous", "verdict"),
    [(110, 100, APPLY), (110, 99, BREAK), (110, 105, BREAK), (100, 90, STALE), (95, 90, STALE)],
)
def test_chained_by_the_previous_id(venue: Venue, seq: int, previous: int, verdict: Chain) -> None:
    assert venue.book_rules.next(100, change(previous + 1, seq, previous)) is verdict


def test_deribit_chains_to_its_snapshot_like_to_any_change() -> None:
    rules = DERIBIT.book_rules
    assert rules.first(100, change(110, 110, 100)) is APPLY
    assert rules.first(100, change(110, 110, 101)) is BREAK
    assert rules.first(100, change(100, 100, 90)) is STALE


def test_how_books_start_and_whether_ids_are_dense() -> None:
    rules = (SPOT.book_rules, USDM.book_rules, DERIBIT.book_rules)
    assert [(rule.bootstrap, rule.dense) for rule in rules] == [("rest", True), ("rest", False), ("inband", False)]
