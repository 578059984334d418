"""Latency histograms: exact counts, quantiles within the bucket's width, windows that forget."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from feedmill.shared.latency import Latencies, LatencyHistogram, RecentLatency

durations = st.integers(-10, 2**55)


def filled(values: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_within_seven_percent(values: list[int], q: float) -> None:
    histogram = filled(values)
    ordered = sorted(max(value, 0) for value in values)
    true = ordered[max(1, round(q * len(values))) - 1]
    found = histogram.quantile(q)
    assert found is not None
    assert math.isclose(found, true, rel_tol=0.07)


@given(st.lists(durations, max_size=100), st.lists(durations, max_size=100))
def test_merging_is_adding(one: list[int], other: list[int]) -> None:
    merged = filled(one)
    merged.merge(filled(other))
    assert merged.counts == filled(one + other).counts
    assert merged.count == len(one) + len(other) == sum(merged.counts)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_buckets_keep_the_order(one: int, other: int) -> None:
    low, high = sorted((one, other))
    first, second = filled([low]).quantile(0.5), filled([high]).quantile(0.5)
    assert first is not None
    assert second is not None
    assert first <= second


def test_small_durations_are_exact_and_absurd_ones_still_counted() -> None:
    assert [filled([value]).quantile(1) for value in range(8)] == [float(value) for value in range(8)]
    histogram = filled([-5, 2**80])
    assert histogram.count == 2
    assert histogram.quantile(0) == 0
    weighted = LatencyHistogram()
    weighted.add(5, weight=10)
    assert (weighted.count, weighted.quantile(0.5)) == (10, 5.0)
    assert LatencyHistogram().quantile(0.5) is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_window_forgets() -> None:
    clock = Clock()
    recent = RecentLatency(60.0, clock)
    recent.current.add(1)
    clock.now = 59.0
    recent.current.add(2)
    assert recent.total().count == 2
    clock.now = 61.0
    recent.current.add(3)
    assert recent.total().count == 3, "the window before still counts"
    clock.now = 122.0
    assert recent.total().count == 1, "the first window is gone"
    clock.now = 1000.0
    assert recent.total().count == 0, "a long silence forgets both"


def test_the_document_says_unknown_as_null() -> None:
    clock = Clock()
    latencies = Latencies(60.0, clock)
    assert latencies.document() == {}
    stretch = latencies.of("binance/Spot", "receiveToCommit")
    assert latencies.document() == {"binance/Spot": {"receiveToCommit": {"p50Ms": None, "p99Ms": None, "count": 0}}}
    stretch.current.add(2_000_000, weight=99)
    stretch.current.add(50_000_000)
    shown = latencies.document()["binance/Spot"]["receiveToCommit"]
    assert math.isclose(shown["p50Ms"], 2.0, rel_tol=0.07)
    assert math.isclose(shown["p99Ms"], 2.0, rel_tol=0.07)
    assert shown["count"] == 100
    assert latencies.of("binance/Spot", "receiveToCommit") is stretch
