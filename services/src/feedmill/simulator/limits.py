"""The venues' limits as small clocks-in, verdicts-out objects. Times are seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from feedmill.simulator.config import Limits


class Window:
    """At most ``limit`` events in any ``seconds``."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        times = self._times
        while times and times[0] <= now - self.seconds:
            times.popleft()
        if len(times) >= self.limit:
            return False
        times.append(now)
        return True

    def wait(self, now: float) -> float:
        """Seconds until the next event is allowed."""
        return max(0.0, self._times[0] + self.seconds - now) if len(self._times) >= self.limit else 0.0


@dataclass(frozen=True, slots=True)
class WeightVerdict:
    status: int
    """200, 429 or 418."""
    used: int
    retry_after: float = 0.0


class Weights:
    """Binance's request weight of one address: windows aligned to the wall clock, 429, then 418."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._window = -1
        self._used = 0
        self.peak = 0
        """The most that any window has seen."""
        self._refused = 0
        self._banned_until = 0.0

    def take(self, weight: int, now: float) -> WeightVerdict:
        limits = self._limits
        window = int(now // limits.weight_window)
        if window != self._window:
            self._window, self._used, self._refused = window, 0, 0
        if now < self._banned_until:
            return WeightVerdict(418, self._used, self._banned_until - now)
        self._used += weight
        self.peak = max(self.peak, self._used)
        if self._used <= limits.weight:
            return WeightVerdict(200, self._used)
        self._refused += 1
        if self._refused > limits.ban_after:
            self._banned_until = now + limits.ban_seconds
            return WeightVerdict(418, self._used, limits.ban_seconds)
        return WeightVerdict(429, self._used, (window + 1) * limits.weight_window - now)


class Credits:
    """One of Deribit's credit pools."""

    def __init__(self, cost: int, pool: int, refill: int) -> None:
        self.cost = cost
        self.pool = pool
        self.refill = refill
        self._left = float(pool)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        if self._at is not None:
            self._left = min(self.pool, self._left + (now - self._at) * self.refill)
        self._at = now
        if self._left < self.cost:
            return False
        self._left -= self.cost
        return True


class DeribitCredits:
    """The pools of one address (or account): subscribe, get_instruments and everything else."""

    def __init__(self) -> None:
        self._subscribe = Credits(3_000, 30_000, 10_000)
        self._instruments = Credits(10_000, 500_000, 10_000)
        self._other = Credits(500, 50_000, 10_000)

    def take(self, method: str, now: float) -> bool:
        if method in ("public/subscribe", "private/subscribe"):
            return self._subscribe.take(now)
        if method == "public/get_instruments":
            return self._instruments.take(now)
        return self._other.take(now)
