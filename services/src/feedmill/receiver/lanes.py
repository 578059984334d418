"""REST requests that wait, in two lanes: what books and metadata need, and pages of missing trades.

A book is blind until its snapshot is there, so snapshots go first; but hundreds of them (a large feed that reconnects)
would keep the trades waiting for longer than venues keep them. While both wait, trades get a quarter of the weight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
SNAPSHOTS_TO_TRADES = 3.0
"""Weight of the one for each of the other while both wait."""


class Lanes(Generic[T]):
    """At most ``most`` wait. One lane is first in, first out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._first: deque[tuple[T, float]] = deque()
        self._second: deque[tuple[T, float]] = deque()
        self._came = asyncio.Event()
        self._spent = [0.0, 0.0]
        """Weight of either since both wait."""

    def put(self, item: T, weight: float, *, yields: bool) -> bool:
        """False = too many wait. ``yields``: it is of the second lane."""
        if len(self._first) + len(self._second) >= self._most:
            return False
        (self._second if yields else self._first).append((item, weight))
        self._came.set()
        return True

    async def get(self) -> T:
        """The next one, as soon as there is one."""
        while not self._first and not self._second:
            self._came.clear()
            await self._came.wait()
        if not self._first or not self._second:
            self._spent = [0.0, 0.0]
            item, _ = (self._first or self._second).popleft()
            return item
        second = self._spent[1] * SNAPSHOTS_TO_TRADES < self._spent[0]
        item, weight = (self._second if second else self._first).popleft()
        self._spent[second] += weight
        return item
