"""Batches kept until the server has confirmed them: unconfirmed, in flight and unsent ones, in order.

The newest are in memory. While Redis is away or full the older ones are on disk (``spill``), and come from there in the
same order; it is all the same to who sends them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from feedmill.receiver.traces import BatchTrace
from feedmill.shared import control

MUCH = 8 * 1024 * 1024
"""Bytes held in memory from which on confirming is urgent."""


@dataclass(slots=True)
class Kept:
    """A sealed batch: its bytes never change while it carries this session and number."""

    n: int
    payload: bytes
    frames: int
    controls: list[control.Control]
    at_ns: int = 0
    """Receive time of the last record."""
    trace: BatchTrace | None = None
    """Where it is traced, until Redis has it."""


class OnDisk(Protocol):
    """What a backlog needs of the part that is on disk: batches without holes, up to the first one in memory."""

    @property
    def first(self) -> int: ...
    def __bool__(self) -> bool: ...
    def take(self, n: int) -> Kept | None:
        """Batch ``n``; None = it is being read, and whoever sends is told when it is there."""

    def release(self, n: int) -> None: ...
    def bytes_from(self, n: int) -> int: ...


class Backlog:
    """Batches ``first``..``last`` of one session: up to ``base`` on disk (or gone), the rest in memory.

    Pointers: everything up to ``confirmed`` is safe elsewhere, up to ``acked`` the server said it has,
    from ``next`` on nothing was sent since the last rewind.
    """

    def __init__(self, disk: OnDisk | None = None) -> None:
        self._kept: deque[Kept] = deque()
        self.disk = disk
        self.base = 0
        self.confirmed = 0
        self.acked = 0
        self.next = 1
        self.last = 0
        self.bytes = 0
        """Of batches in memory."""
        self.unsent_bytes = 0
        """The same of those not yet sent."""
        self.acked_more = asyncio.Event()
        """Set when ``acked`` moved; the confirmer clears it."""
        self.hurry = asyncio.Event()
        """Set when confirming has become urgent; the confirmer clears it."""

    @classmethod
    def of_disk(cls, disk: OnDisk, base: int, end: Kept, *, acked: int, like: Backlog) -> Backlog:
        """What is on disk of a session that is over, and ``end`` after it. Events are those of ``like``."""
        backlog = cls(disk)
        backlog.acked_more, backlog.hurry = like.acked_more, like.hurry
        backlog.base = backlog.last = base
        backlog.confirmed = backlog.acked = acked
        backlog.next = acked + 1
        backlog.add(end)
        return backlog

    @property
    def first(self) -> int:
        """The oldest batch held (``last + 1`` when none is)."""
        return self.disk.first if self.disk else self.confirmed + 1

    @property
    def unsent(self) -> int:
        return self.last - self.next + 1

    @property
    def unsent_on_disk(self) -> bool:
        """What is to be sent next comes from disk."""
        return self.next <= self.base

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
        """The next batch to send; None when all are sent, or when it must be read from disk first."""
        if self.next > self.last:
            return None
        index = self.next - self.base - 1
        if index < 0:
            found = self.disk.take(self.next) if self.disk is not None else None
            if found is not None:
                self.next += 1
            return found
        kept = self._kept[index]
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
        self.confirmed = min(self.confirmed, n - 1)
        self._move_next(n)

    def confirm(self, n: int) -> list[Kept]:
        """Let go of everything up to ``n``; gives what was let go of memory, in order. Never more than is
        acknowledged. On disk a segment stays until all of it is confirmed."""
        n = min(n, self.acked)
        gone: list[Kept] = []
        while self.base < n:
            kept = self._kept.popleft()
            self.bytes -= len(kept.payload)
            self.base = kept.n
            gone.append(kept)
        self.confirmed = max(self.confirmed, n)
        if self.disk is not None:
            self.disk.release(n)
        return gone

    def waiting(self, most: int) -> list[Kept]:
        """The oldest batches in memory, at least one if there is any, of about ``most`` bytes together."""
        found: list[Kept] = []
        size = 0
        for kept in self._kept:
            size += len(kept.payload)
            if found and size > most:
                break
            found.append(kept)
        return found

    def spilled(self, n: int) -> list[Kept]:
        """Batches up to ``n`` are on disk now: gives those that left memory."""
        gone: list[Kept] = []
        while self._kept and self._kept[0].n <= n:
            kept = self._kept.popleft()
            self.bytes -= len(kept.payload)
            if kept.n >= self.next:
                self.unsent_bytes -= len(kept.payload)
            self.base = kept.n
            gone.append(kept)
        return gone

    def take_all(self) -> list[Kept]:
        """Everything in memory, in order, for another session; this backlog starts anew."""
        held = list(self._kept)
        self._kept.clear()
        self.base, self.confirmed, self.acked, self.next, self.last, self.bytes, self.unsent_bytes = 0, 0, 0, 1, 0, 0, 0
        return held

    def _move_next(self, n: int) -> None:
        low, high, sign = (n, self.next, 1) if n < self.next else (self.next, n, -1)
        for index in range(max(0, low - self.base - 1), high - self.base - 1):
            self.unsent_bytes += sign * len(self._kept[index].payload)
        self.next = n
