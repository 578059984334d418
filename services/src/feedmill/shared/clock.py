"""Clocks. Wall time is UTC in ns; intervals use the monotonic clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

now_ns = time.time_ns
"""UTC wall clock, ns since the epoch."""
monotonic = time.monotonic
"""Seconds, for intervals only."""

MS = 1_000_000
SECOND = 1_000_000_000


def iso(ns: int) -> str:
    """``2026-11-24T05:00:00.123456789Z`` for ns since the epoch, UTC."""
    seconds, rest = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
