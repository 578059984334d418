"""What the process says that uploads the database's log (``/health``, section ``backup``). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feedmill_operator.reconcile.reading import mapping, words


@dataclass(frozen=True, slots=True)
class LogSaid:
    """Equal ones are no news."""

    allowed: bool | None = None
    """False: the server lets no replication connection in; None = it has not tried."""
    problem: str = ""
    """What is wrong; empty = nothing."""
    uploaded_to: str = ""
    """The moment up to which the log is at the destination, RFC 3339, to the minute; empty = not known."""


def read_log(section: Any) -> LogSaid | None:
    """None when there is no such section."""
    told = mapping(section)
    if not told:
        return None
    allowed = told.get("allowed")
    known = allowed if isinstance(allowed, bool) else None
    return LogSaid(known, words(told.get("problem")), _minute(told.get("uploadedToNs")))


def _minute(at_ns: Any) -> str:
    if not isinstance(at_ns, int) or at_ns <= 0:
        return ""
    try:
        return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:00Z")
    except (OverflowError, ValueError, OSError):
        return ""
