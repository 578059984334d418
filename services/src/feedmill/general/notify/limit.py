"""How many messages a chat is sent: at most so many in any minute, one a second. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

MINUTE = 61.0
"""Seconds; one more than a minute, for a message may be quicker on its way than the one before it was."""
SPACE = 1.0
"""Seconds between two messages: Telegram asks for no more than one a second to a chat."""


class Window:
    """Counts what was sent in the last minute."""

    def __init__(self, per_minute: int, sent: Iterable[float] = ()) -> None:
        """``sent``: times of what an earlier process sent."""
        self.per_minute = per_minute
        self._sent = deque(sorted(sent), maxlen=60)
        """The limit is 60 at most."""

    def wait(self, now: float) -> float:
        """Seconds until the next message may be sent; 0 = now."""
        if not self._sent:
            return 0.0
        wait = self._sent[-1] + SPACE - now
        if len(self._sent) >= self.per_minute:
            wait = max(wait, self._sent[-self.per_minute] + MINUTE - now)
        return max(0.0, wait)

    def count(self, now: float) -> None:
        """A message goes out now. It counts whatever becomes of it."""
        self._sent.append(now)
