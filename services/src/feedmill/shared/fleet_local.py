"""A process's share of a fleet's budget while Redis is away. Pure.

It begins with a part of the ``reserve`` that the shared bucket leaves out, and grows at its part of the rate while it
is in use. Coming and going must bring nothing: what is left of it is kept, and the reserve is there again only after as
long a time with Redis as it would take to save it up.
"""

from __future__ import annotations


class LocalShare:
    """Times are monotonic seconds; ``members`` is how many share the budget."""

    def __init__(self, capacity: float, rate: float, reserve: float) -> None:
        self.capacity = capacity
        self.rate = rate
        self.reserve_all = reserve
        self._level: float | None = None
        """None = it was never in use."""
        self._at = 0.0

    def enter(self, members: int, now: float) -> None:
        """Redis is away from now on."""
        begin = min(self.capacity, self.reserve_all) / members
        rested = self._level is None or now - self._at >= 2 * self.capacity / self.rate
        self._level = begin if rested or self._level is None else min(self._level, begin)
        self._at = now

    def leave(self, now: float) -> None:
        """Redis is back."""
        self._at = now

    def reserve(self, amount: float, members: int, now: float) -> float:
        """Seconds to wait before ``amount``, which is taken now, may be spent."""
        if self._level is None:
            self.enter(members, now)
        level, rate = self._level or 0.0, self.rate / members
        grown = min(self.capacity / members, level + max(0.0, now - self._at) * rate)
        self._level, self._at = max(level, grown) - amount, now
        return max(0.0, -self._level) / rate

    def give(self, amount: float) -> None:
        """It was not spent."""
        if self._level is not None:
            self._level += amount

    def correct(self, left: float) -> None:
        """No more than ``left`` may be spent now."""
        if self._level is not None:
            self._level = min(self._level, left)
