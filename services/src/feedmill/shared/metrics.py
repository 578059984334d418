"""Metrics that every process has. Names: ``feedmill_<service>_<what>_<unit>``."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import Gauge, Histogram

LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds."""

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
