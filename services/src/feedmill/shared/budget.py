"""Budgets: tokens over time (connects, REST weight, client messages) and bytes held in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

Clock = Callable[[], float]


class Budget(Protocol):
    """What may be spent over time: by this process (:class:`TokenBucket`) or by a fleet (``shared/fleet.py``)."""

    async def take(self, amount: float = 1.0) -> None:
        """Wait until ``amount`` may be spent and spend it; first come, first served."""

    def block(self, seconds: float) -> None:
        """Let nothing through for ``seconds`` (Retry-After). A longer block that runs is kept."""

    @property
    def blocked_for(self) -> float:
        """Seconds a block still lasts."""

    def correct(self, left: float, age: float = 0.0) -> None:
        """The server says only ``left`` tokens remain: believe it when that is less than what is counted here.

        ``age``: seconds since the request was sent whose answer says so.
        """


def burst_and_rate(limit: float, window: float) -> tuple[float, float]:
    """Capacity and tokens a second of a bucket that keeps ``limit`` in *any* half-open window of ``window`` seconds.

    Half of the limit may go at once and the other half trickles in, since burst and refill of one window add up.
    """
    capacity = max(1.0, limit / 2)
    return capacity, (limit - capacity) / window if limit - capacity >= 1 else 1.0 / window


class TokenBucket:
    """A local token bucket: at most ``capacity`` at once, refilled at ``rate`` tokens a second."""

    def __init__(self, capacity: float, rate: float, *, clock: Clock = time.monotonic) -> None:
        if capacity <= 0 or rate <= 0:
            raise ValueError(f"a token bucket needs capacity and rate above 0, not {capacity} and {rate}")
        self.capacity = capacity
        self.rate = rate
        self._clock = clock
        self._level = capacity
        self._at = clock()
        self._blocked_until = 0.0
        self._turn = asyncio.Lock()

    @classmethod
    def within(cls, limit: float, window: float, *, clock: Clock = time.monotonic) -> TokenBucket:
        """A bucket that never lets more than ``limit`` through in *any* half-open window of ``window`` seconds."""
        if limit < 1 or window <= 0:
            raise ValueError(f"a limit of {limit} per {window} s cannot be kept: at least 1 per window")
        return cls(*burst_and_rate(limit, window), clock=clock)

    @property
    def level(self) -> float:
        """Tokens there now; below 0 after :meth:`force`."""
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now
        return self._level

    def wait_for(self, amount: float = 1.0) -> float:
        """Seconds until ``amount`` could be taken (0 = now). More than the capacity waits for a full bucket."""
        need = min(amount, self.capacity) - self.level
        blocked = self._blocked_until - self._clock()
        return max(0.0, need / self.rate, blocked)

    def try_take(self, amount: float = 1.0) -> bool:
        if self.wait_for(amount) > 0:
            return False
        self._level -= amount
        return True

    def force(self, amount: float = 1.0) -> None:
        """Spend now what cannot wait (a pong); those who can will wait longer."""
        self._level = self.level - amount

    async def take(self, amount: float = 1.0) -> None:
        async with self._turn:
            # A hair is added because a timer may fire a little early and rounding must not make this spin.
            while not self.try_take(amount):  # noqa: ASYNC110 - time itself is what is waited for
                await asyncio.sleep(self.wait_for(amount) + 0.001)

    def block(self, seconds: float) -> None:
        """Let nothing through for ``seconds`` (Retry-After). A longer block that runs is kept."""
        self._blocked_until = max(self._blocked_until, self._clock() + seconds)

    @property
    def blocked_for(self) -> float:
        return max(0.0, self._blocked_until - self._clock())

    def correct(self, left: float, age: float = 0.0) -> None:
        """The server says only ``left`` tokens remain: believe it when that is less than what is counted here."""
        if left < self.level:
            self._level = left


class ByteBudget:
    """Bytes held by this process, with hysteresis: full at ``limit``, free again at ``resume`` times the limit.

    Never refuses: what is received is already in memory. Readers look at :attr:`full` and stop reading.
    """

    def __init__(self, limit: int, *, resume: float = 0.75) -> None:
        if limit <= 0 or not 0 < resume <= 1:
            raise ValueError(f"a byte budget needs limit > 0 and 0 < resume <= 1, not {limit} and {resume}")
        self.limit = limit
        self._resume = resume
        self.low = int(limit * resume)
        self.used = 0
        self.peak = 0
        self.full = False
        self._listeners: list[Callable[[bool], None]] = []

    def listen(self, changed: Callable[[bool], None]) -> None:
        """``changed(full)`` is called at each change of :attr:`full`."""
        self._listeners.append(changed)

    def unlisten(self, changed: Callable[[bool], None]) -> None:
        if changed in self._listeners:
            self._listeners.remove(changed)

    def resize(self, limit: int) -> None:
        """Another limit from now on; what that makes of :attr:`full` is told at once."""
        if limit <= 0:
            raise ValueError(f"a byte budget needs limit > 0, not {limit}")
        self.limit, self.low = limit, int(limit * self._resume)
        if self.full and self.used <= self.low:
            self._change(False)
        elif not self.full and self.used >= self.limit:
            self._change(True)

    def add(self, size: int) -> None:
        self.used += size
        self.peak = max(self.peak, self.used)
        if not self.full and self.used >= self.limit:
            self._change(True)

    def release(self, size: int) -> None:
        self.used -= size
        if self.full and self.used <= self.low:
            self._change(False)

    def _change(self, full: bool) -> None:
        self.full = full
        for listener in tuple(self._listeners):
            listener(full)
