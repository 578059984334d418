"""When a backup is overdue: its schedule against what the database knows of. Pure, and apart from the metrics.

Other services read the processor's settings, and must not have the processor's metrics for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from feedmill.resources.types import Schedule
from feedmill.shared.clock import SECOND

DRILL = "drill"
"""Stands beside the kinds of backups (logical, base): restores that were tried."""


@dataclass(frozen=True, slots=True)
class Done:
    """The newest good backup of a kind, or drill. Times are Unix ns."""

    started_ns: int
    ended_ns: int
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What one look found."""

    size_bytes: int
    good: Mapping[str, Done]
    """By kind of backup, and ``DRILL``."""
    failed: Mapping[str, bool]
    """Whether the newest of the kind that ended failed."""
    maintained_ns: int | None
    findings: Mapping[str, int]
    """Of the last run of maintenance, by kind."""
    open_gaps: Mapping[str, int]
    dead_letters: int
    since_ns: int | None
    """When the database first heard of an instrument: before that no backup was due."""


@dataclass(slots=True)
class Plan:
    """When backups are due. ``schedules``: by kind, and ``DRILL``; empty = none are made."""

    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    time_zone: str = "UTC"

    def tells(self, kind: str) -> bool:
        """Whether a failure of the kind is still news: where no more backups of it are made, no success can end it.
        Drills may be made by hand of whatever backups there are."""
        return kind in self.schedules or (kind == DRILL and bool(self.schedules))

    def overdue(self, kind: str, found: Found, now: int) -> float | None:
        """Seconds since one is due; 0 = none is; None = there is no schedule, or nothing to back up yet."""
        schedule, done = self.schedules.get(kind), found.good.get(kind)
        after = done.started_ns if done is not None else found.since_ns
        if schedule is None or after is None:
            return None
        due = schedule.next_after(after, self.time_zone)
        return max(0.0, (now - due) / SECOND) if due is not None else 0.0
