"""Rows that nobody needs any more: dead letters, the audit log, notifications, old runs.

A few thousand rows a statement, so that no lock is held for long; what is left when the time is over the next run does.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from feedmill.accounts import audit
from feedmill.general.maintenance.report import Report
from feedmill.general.maintenance.settings import Settings
from feedmill.general.notify.notices import KEPT as NOTIFICATIONS
from feedmill.shared.clock import iso, monotonic
from feedmill.shared.partitions import DAY_NS

BATCH = 5_000
"""Rows a statement."""
LONGEST = 60.0
"""Seconds for one table."""
HISTORY = 90 * DAY_NS
"""How long runs of maintenance are kept."""


@dataclass(frozen=True, slots=True)
class Aged:
    """A table, what identifies a row, and which rows are too old ($1: ns since the epoch)."""

    table: str
    key: str
    old: str
    kept_ns: int

    @property
    def delete(self) -> str:
        """$2: rows at most."""
        return (
            f"DELETE FROM {self.table} WHERE ({self.key}) IN"  # noqa: S608 (from the list below)
            f" (SELECT {self.key} FROM {self.table} WHERE {self.old} LIMIT $2)"
        )

    @property
    def count(self) -> str:
        return f"SELECT count(*) FROM {self.table} WHERE {self.old}"  # noqa: S608 (from the list below)


_AUDIT = "audit_log"


def aged_tables(settings: Settings) -> tuple[Aged, ...]:
    return (
        Aged("dead_letters", "shard, session, batch, idx", "receive_ns < $1", settings.dead_letters_ns),
        # The table's own guard goes by the server's clock.
        Aged(_AUDIT, "id", "at < least(to_timestamp($1::bigint / 1e9), now() - interval '30 days')", settings.audit_ns),
        Aged("notifications", "id", "at_ns < $1", NOTIFICATIONS),
        Aged("maintenance_runs", "id", "outcome <> 'running' AND started_ns < $1", HISTORY),
    )


async def age(connection: asyncpg.Connection, settings: Settings, now: int, report: Report) -> None:
    """Remove what is older than it is kept. ``now``: ns. Raises asyncpg errors."""
    for table in aged_tables(settings):
        before = now - table.kept_ns
        if report.dry_run:
            rows = int(await connection.fetchval(table.count, before))
        else:
            rows = await _remove(connection, table, before)
        if rows:
            report.aged[table.table] = rows


async def _remove(connection: asyncpg.Connection, table: Aged, before: int) -> int:
    until = monotonic() + LONGEST
    removed = 0
    while True:
        async with connection.transaction():
            if table.table == _AUDIT:
                await connection.execute("SET LOCAL feedmill.ages_audit = 'on'")
            status = await connection.execute(table.delete, before, BATCH)
            rows = int(status.rpartition(" ")[2])
            if rows and table.table == _AUDIT:
                detail = {"rows": rows, "before": iso(before)}
                await audit.write(connection, audit.Who.here("maintenance"), "age", detail=detail)
        removed += rows
        if rows < BATCH or monotonic() >= until:
            return removed
