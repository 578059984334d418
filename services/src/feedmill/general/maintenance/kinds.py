"""Kinds of findings: labels of a metric, so there are no others."""

from __future__ import annotations

AUTOVACUUM_OFF = "autovacuum_off"
DEAD_ROWS = "dead_rows"
HELD_BACK = "held_back"
WAL_KEPT = "wal_kept"
WRAPAROUND = "wraparound"
BLOAT = "bloat"
UNUSED_INDEX = "unused_index"
DUPLICATE_INDEX = "duplicate_index"
INVALID_INDEX = "invalid_index"
MISSING_INDEX = "missing_index"
STATISTICS = "statistics"
PUT_OFF = "put_off"
ORPHANED_STREAMS = "orphaned_streams"
KINDS = (
    AUTOVACUUM_OFF, DEAD_ROWS, HELD_BACK, WAL_KEPT, WRAPAROUND, BLOAT, UNUSED_INDEX, DUPLICATE_INDEX, INVALID_INDEX,
    MISSING_INDEX, STATISTICS, PUT_OFF, ORPHANED_STREAMS,
)  # fmt: skip
"""All there are."""
PASSING = frozenset((DEAD_ROWS, STATISTICS))
"""Those that may be so for a moment: much was changed just now."""
