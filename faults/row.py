"""What a row of the table is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from faults.judge import Promise
from faults.world import World


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how much. 1 = as the table says."""

    time: float
    rate: float

    def seconds(self, full: float) -> float:
        return full * self.time


Act = Callable[[World, Scale], Awaitable[int | None]]
"""Strikes and heals; answers how many dead letters it owes (None = none)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row."""

    name: str
    what: str
    act: Act
    promise: Callable[[Scale], Promise] = lambda _: Promise()
    setup: dict[str, Any] = field(default_factory=dict)
    """Fields of ``Setup`` that differ."""
    tight: bool = False
    """The receivers' memory is what the rate needs for a second or two, and no more."""
    blast: bool = False
    """The exchange sends as fast as it is read: nothing is up to date before it ends."""
    ordered: bool = False
    """Order per instrument is compared in the events stream, too: where Redis loses nothing."""
    finish: Callable[[World], Awaitable[None]] | None = None
    """After the end of the flow, before the comparison."""
