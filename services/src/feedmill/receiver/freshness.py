"""How old each topic's last data is, without a cost on the hot path.

Once per read of the socket at most ``SAMPLED`` of its data frames are looked at (evenly spread, the phase moves on
from read to read), and of each only where the topic's name stands. So ages are exact while a read holds few frames,
and the age of a quiet topic amid a flood may be that of an earlier frame: an upper bound, never too young.
"""

from __future__ import annotations

from collections.abc import Iterable

SAMPLED = 32
HEAD = 192
"""Bytes at a frame's start in which the topic's name is looked for."""


class Freshness:
    """Last sampled data per topic of one connection (monotonic seconds)."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.seen: dict[bytes, float] = {name.encode(): 0.0 for name in topics}
        self._lead = b"\x00"
        self._phase = 0
        self.exact = False
        """Look at every frame: somebody wants to know whether a topic is silent or only drowned."""
        self.unknown = 0
        """Sampled frames in which no known topic was found."""

    def add(self, topics: Iterable[str]) -> None:
        for name in topics:
            self.seen.setdefault(name.encode(), 0.0)

    def remove(self, topics: Iterable[str]) -> None:
        for name in topics:
            self.seen.pop(name.encode(), None)

    def has_seen(self, topic: str) -> bool:
        """Whether data of the topic was ever sampled."""
        return self.seen.get(topic.encode(), 0.0) > 0

    def sample(self, frames: list[bytes], now: float) -> None:
        stride = 1 if self.exact else len(frames) // SAMPLED + 1
        if stride > 1:
            self._phase = (self._phase + 1) % stride
            frames = frames[self._phase :: stride]
        lead = self._lead
        start = len(lead)
        seen = self.seen
        for frame in frames:
            if frame.startswith(lead):
                name = frame[start : frame.find(b'"', start)]
                if name in seen:
                    seen[name] = now
                    continue
            self._search(frame, now)

    def _search(self, frame: bytes, now: float) -> None:
        """Find a quoted topic name anywhere in the head and learn what stands before it."""
        at = 0
        for part in frame[:HEAD].split(b'"'):
            if part in self.seen:
                self.seen[part] = now
                self._lead = frame[:at]
                return
            at += len(part) + 1
        self.unknown += 1

    def ages(self, now: float) -> dict[str, float | None]:
        """Topic -> seconds since its last sampled data; None = none yet."""
        return {name.decode(): round(now - at, 3) if at else None for name, at in self.seen.items()}
