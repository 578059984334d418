"""Latencies as small log-bucket histograms: mergeable, exact counts, quantiles within 7 %.

A value's bucket is its highest set bit and the three bits after it, so 512 counters cover ns to centuries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feedmill.shared.clock import monotonic

_SUB_BITS = 3
_SIZE = 64 << _SUB_BITS


def _bucket(ns: int) -> int:
    if ns < 8:
        return max(ns, 0)
    top = ns.bit_length() - 1
    return min(((top - _SUB_BITS + 1) << _SUB_BITS) | ((ns >> (top - _SUB_BITS)) & 7), _SIZE - 1)


def _middle(bucket: int) -> float:
    """The middle of a bucket's range, ns."""
    if bucket < 8:
        return float(bucket)
    shift = (bucket >> _SUB_BITS) - 1
    low = (8 | (bucket & 7)) << shift
    return low + ((1 << shift) - 1) / 2


class LatencyHistogram:
    """Counts of durations in ns. Negative ones (clocks that disagree) count as 0."""

    __slots__ = ("count", "counts")

    def __init__(self) -> None:
        self.counts = [0] * _SIZE
        self.count = 0

    def add(self, ns: int, weight: int = 1) -> None:
        self.counts[_bucket(ns)] += weight
        self.count += weight

    def merge(self, other: LatencyHistogram) -> None:
        if other.count:
            self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
            self.count += other.count

    def quantile(self, q: float) -> float | None:
        """The duration in ns that a share ``q`` (0..1) does not exceed; None when nothing was counted."""
        if not self.count:
            return None
        wanted, seen = max(1, round(q * self.count)), 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen >= wanted:
                return _middle(bucket)
        return _middle(_SIZE - 1)


class RecentLatency:
    """A histogram of the last one to two ``window`` seconds."""

    __slots__ = ("_clock", "_current", "_past", "_since", "_window")

    def __init__(self, window: float = 60.0, clock: Callable[[], float] = monotonic) -> None:
        self._window = window
        self._clock = clock
        self._current = LatencyHistogram()
        self._past = LatencyHistogram()
        self._since = clock()

    def _turn(self) -> None:
        age = self._clock() - self._since
        if age >= self._window:
            self._past = self._current if age < 2 * self._window else LatencyHistogram()
            self._current = LatencyHistogram()
            self._since = self._clock()

    @property
    def current(self) -> LatencyHistogram:
        """Where durations of now are added. Not to be kept."""
        self._turn()
        return self._current

    def total(self) -> LatencyHistogram:
        self._turn()
        both = LatencyHistogram()
        both.merge(self._past)
        both.merge(self._current)
        return both


class Latencies:
    """Recent latencies by exchange market and stretch, as ``/health`` shows them."""

    def __init__(self, window: float = 60.0, clock: Callable[[], float] = monotonic) -> None:
        self._window = window
        self._clock = clock
        self._all: dict[str, dict[str, RecentLatency]] = {}

    def of(self, venue: str, stretch: str) -> RecentLatency:
        """The histogram of one stretch, e.g. ``of("binance/Spot", "receiveToCommit")``."""
        stretches = self._all.setdefault(venue, {})
        if stretch not in stretches:
            stretches[stretch] = RecentLatency(self._window, self._clock)
        return stretches[stretch]

    def document(self) -> dict[str, dict[str, dict[str, Any]]]:
        """``{"binance/Spot": {"receiveToCommit": {"p50Ms": .., "p99Ms": .., "count": ..}}}``; null where unknown."""
        return {
            venue: {name: _shown(recent.total()) for name, recent in stretches.items()}
            for venue, stretches in self._all.items()
        }


def _shown(histogram: LatencyHistogram) -> dict[str, Any]:
    def ms(q: float) -> float | None:
        ns = histogram.quantile(q)
        return None if ns is None else round(ns / 1e6, 3)

    return {"p50Ms": ms(0.5), "p99Ms": ms(0.99), "count": histogram.count}
