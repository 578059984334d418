"""Which candles to look at: none is forgotten, and the ranges stay few."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from feedmill.processor.dirty import MINUTE, NEAR, Dirty, merge

MINUTES = st.sets(st.integers(0, 2000).map(lambda n: n * MINUTE), min_size=1, max_size=30)


@given(MINUTES)
def test_every_minute_is_in_a_range_and_ranges_are_apart(minutes: set[int]) -> None:
    ranges = merge(7, minutes)
    assert all(any(low <= minute <= high for _, low, high in ranges) for minute in minutes)
    assert {low for _, low, _ in ranges} | {high for _, _, high in ranges} <= minutes
    assert all(after[1] - before[2] > NEAR for before, after in pairwise(ranges))
    assert {instrument for instrument, _, _ in ranges} == {7}


@given(st.dictionaries(st.integers(1, 5), MINUTES, min_size=1), st.integers(1, 3))
def test_taking_and_putting_back_forgets_nothing(known: dict[int, set[int]], at_once: int) -> None:
    dirty = Dirty()
    for instrument, minutes in known.items():
        dirty.add((instrument, minute) for minute in minutes)
    assert len(dirty) == len(known)
    taken = dirty.take(at_once)
    assert len({instrument for instrument, _, _ in taken}) == min(at_once, len(known))
    assert len(dirty) == len(known) - min(at_once, len(known))
    dirty.put_back(taken)
    everything = dirty.take(10)
    assert len(dirty) == 0
    for instrument, minutes in known.items():
        for minute in minutes:
            assert any(i == instrument and low <= minute <= high for i, low, high in everything)


def test_the_longest_waiting_come_first() -> None:
    dirty = Dirty()
    dirty.add([(3, 0), (1, 0), (2, 0), (3, 60)])
    assert dirty.take(2) == [(3, 0, 60), (1, 0, 0)]
    dirty.drop([2, 9])
    assert len(dirty) == 0


def test_a_long_range_stays_one() -> None:
    dirty = Dirty()
    dirty.add_range((4, 0, 10 * NEAR + MINUTE))
    assert dirty.take(1) == [(4, 0, 10 * NEAR + MINUTE)]
