"""Statistics of partitioned tables: autovacuum makes those of the partitions, and never those of the whole."""

from __future__ import annotations

import asyncpg

from feedmill.general.maintenance.figures import Table
from feedmill.general.maintenance.report import Report
from feedmill.shared import partitions

EVERY = 86_400.0
"""Seconds."""
LONGEST = 100.0
"""Seconds one table may take; it is sampled, so its size matters little."""


def due(tables: list[Table]) -> list[str]:
    """Our partitioned tables that hold rows and were not looked at for a day. Pure."""
    ours = {table.name for table in partitions.ALL}
    filled = {table.parent for table in tables if table.live or table.rows > 0}
    return [
        table.name
        for table in tables
        if table.name in ours & filled and (table.analyzed is None or table.analyzed >= EVERY)
    ]


async def analyze(connection: asyncpg.Connection, tables: list[Table], report: Report) -> None:
    """Raises asyncpg errors, among them LockNotAvailableError after 2 s, and TimeoutError. Writers are not held up."""
    wanted = due(tables)
    if report.dry_run:
        report.analyzed = wanted
        return
    await connection.execute("SET lock_timeout = '2s'")
    try:
        for name in wanted:
            await connection.execute(f"ANALYZE {name}", timeout=LONGEST)
            report.analyzed.append(name)
    finally:
        if not connection.is_closed():
            await connection.execute("RESET lock_timeout")
