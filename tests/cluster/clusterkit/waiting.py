"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 60.0, *, every: float = 0.1, what: str = "") -> T:
    """The first true value of ``condition``; raises AssertionError with what it said last."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'the condition'}: not within {timeout:g} s (last: {value!r})")
        time.sleep(every)


def holds(condition: Callable[[], object], seconds: float, *, every: float = 0.2, what: str = "") -> None:
    """That ``condition`` stays true for so long: for what must not happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        assert value, f"{what or 'the condition'} did not hold: {value!r}"
        time.sleep(every)
