"""Batches kept until the server has confirmed them: unconfirmed, in flight and unsent ones, in order.

This is the seam for the spill: while Redis is away for long, a backlog on disk takes the place of this one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from feedmill.shared import control

MUCH = 8 * 1024 * 1024
"""Bytes held from which on confirming is urgent."""


@dataclass(slots=True)
class Kept:
    """A sealed batch: its bytes never change while it carries this session and number."""

    n: int
    payload: bytes
    frames: int
    controls: list[control.Control]


class Backlog:
    """Batches ``first``..``last`` of one session, all in memory.

    Pointers: everything up to ``confirmed`` is gone from here, up to ``acked`` the server said it has,
    from ``next`` on nothing was sent since the last rewind.
    """

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self.confirmed = 0
        self.acked = 0
        self.next = 1
        self.last = 0
        self.bytes = 0
        self.unsent_bytes = 0
        self.acked_more = asyncio.Event()
        """Set when ``acked`` moved; the confirmer clears it."""
        self.hurry = asyncio.Event()
        """Set when confirming has become urgent; the confirmer clears it."""

    @property
    def first(self) -> int:
        """The oldest batch held (``last + 1`` when none is)."""
        return self.confirmed + 1

    @property
    def unsent(self) -> int:
        return self.last - self.next + 1

    @property
    def settled(self) -> bool:
        """The server said it has everything."""
        return self.acked == self.last

    @property
    def holds_much(self) -> bool:
        return self.bytes >= MUCH

    def add(self, kept: Kept) -> None:
        if kept.n != self.last + 1:
            raise ValueError(f"batch {kept.n} cannot follow batch {self.last}")
        self._kept.append(kept)
        self.last = kept.n
        self.bytes += len(kept.payload)
        self.unsent_bytes += len(kept.payload)

    def take_next(self) -> Kept | None:
        """The next batch to send, None when all are sent."""
        if self.next > self.last:
            return None
        kept = self._kept[self.next - self.first]
        self.next += 1
        self.unsent_bytes -= len(kept.payload)
        return kept

    def acknowledge(self, n: int) -> None:
        """The server has everything up to ``n`` (it may have more than was asked: an answer was lost)."""
        n = min(n, self.last)
        if n > self.acked:
            self.acked = n
            self.acked_more.set()
            if self.bytes >= MUCH:
                self.hurry.set()
        if n >= self.next:
            self._move_next(n + 1)

    def can_rewind(self, n: int) -> bool:
        """Whether batch ``n`` is held or is the one to come."""
        return self.first <= n <= self.last + 1

    def rewind(self, n: int) -> None:
        """Send from ``n`` on again: the server forgot what came after, or it is not known whether it has it."""
        if not self.can_rewind(n):
            raise ValueError(f"batch {n} is not held (only {self.first}..{self.last})")
        self.acked = min(self.acked, n - 1)
        self._move_next(n)

    def confirm(self, n: int) -> list[Kept]:
        """Let go of everything up to ``n``; gives what was let go, in order. Never more than is acknowledged."""
        n = min(n, self.acked)
        gone: list[Kept] = []
        while self.confirmed < n:
            kept = self._kept.popleft()
            self.bytes -= len(kept.payload)
            self.confirmed = kept.n
            gone.append(kept)
        return gone

    def take_all(self) -> list[Kept]:
        """Everything held, in order, for another session; this backlog starts anew."""
        held = list(self._kept)
        self._kept.clear()
        self.confirmed, self.acked, self.next, self.last, self.bytes, self.unsent_bytes = 0, 0, 1, 0, 0, 0
        return held

    def _move_next(self, n: int) -> None:
        low, high, sign = (n, self.next, 1) if n < self.next else (self.next, n, -1)
        for index in range(low - self.first, high - self.first):
            self.unsent_bytes += sign * len(self._kept[index].payload)
        self.next = n
