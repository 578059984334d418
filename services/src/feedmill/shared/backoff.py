"""Full-jitter exponential back-off: each wait is uniform in [0, min(cap, base * 2^n)].

Full jitter spreads a crowd of clients better than a fixed or half-jittered step; the cap keeps the longest wait known.
"""

from __future__ import annotations

import random


class Backoff:
    """Waits in seconds. ``floor`` is a least wait, for servers that must not be asked again at once."""

    def __init__(
        self, base: float, cap: float, *, floor: float = 0.0, random_source: random.Random | None = None
    ) -> None:
        if base <= 0 or cap < base:
            raise ValueError(f"back-off needs 0 < base <= cap, not base={base} cap={cap}")
        self.base = base
        self.cap = cap
        self.floor = min(floor, cap)
        self._random = random_source or random.Random()
        self.failures = 0

    @property
    def bound(self) -> float:
        """The longest the next wait can be."""
        # 2^60 seconds is beyond any cap; bounding the exponent keeps the float finite.
        return float(min(self.cap, self.base * 2.0 ** min(self.failures, 60)))

    def next(self) -> float:
        """Count a failure and give the wait before the next try."""
        bound = self.bound
        self.failures += 1
        return max(self.floor, self._random.uniform(0.0, bound))

    def reset(self) -> None:
        self.failures = 0
