"""Metrics that every process has. Names: ``feedmill_<service>_<what>_<unit>``."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator

import prometheus_client
from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from feedmill.shared import log

# In OpenMetrics each series of a counter or histogram would have a second one with the time it began.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds."""

unreadable = Counter("feedmill_process_unreadable_gauges", "Looks at a gauge that failed, by gauge.", ["gauge"])
_told: set[tuple[str, str]] = set()
"""(gauge, error) that the log has told of."""


class Gauge(prometheus_client.Gauge):
    """Every gauge of ours: where its function fails it shows NaN, and ``/metrics`` goes on to the others."""

    def set_function(self, f: Callable[[], float]) -> None:
        super().set_function(lambda: self._read(f))

    def _read(self, f: Callable[[], float]) -> float:
        try:
            return float(f())
        except Exception as error:
            unreadable.labels(self._name).inc()
            cause = (self._name, type(error).__name__)
            if cause not in _told:
                _told.add(cause)
                log.get_logger().exception("metrics.gauge_failed", gauge=self._name)
            return math.nan


class _LogLines(Collector):
    """The log counts them itself: what counts here must not be what the log stands on."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "feedmill_process_dropped_log_lines",
            "Log lines dropped since nobody read the ones before.",
            value=log.dropped_lines,
        )
        yield CounterMetricFamily(
            "feedmill_process_repeated_log_lines",
            "Log lines left out since they repeated what others just said.",
            value=log.repeated_lines,
        )


log_lines = _LogLines()
REGISTRY.register(log_lines)
loop_lag = Histogram(
    "feedmill_process_loop_lag_seconds",
    "How late a timer of the event loop fired.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
loop_lag_max = Gauge("feedmill_process_loop_lag_max_seconds", "The largest event loop lag of the last minute.")


async def watch_loop_lag(interval: float = 0.5) -> None:
    """Measure the event loop's lag until cancelled (``interval``: seconds; a look costs an idle process 0.1 ms)."""
    worst: list[tuple[float, float]] = []
    while True:
        started = time.perf_counter()
        await asyncio.sleep(interval)
        now = time.perf_counter()
        lag = max(0.0, now - started - interval)
        loop_lag.observe(lag)
        worst = [(at, value) for at, value in worst if at > now - 60 and value > lag]
        worst.append((now, lag))
        loop_lag_max.set(worst[0][1])
