"""Partitions made ahead, and old ones dropped.

Processors make partitions themselves when one is missing, so nothing waits for this; it only keeps them from having to.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from feedmill.general.maintenance.report import Report
from feedmill.shared import partitions, postgres
from feedmill.shared.partitions import DAY_NS

AHEAD = 3
"""Days."""


async def make_ahead(connection: asyncpg.Connection, now: int, report: Report) -> None:
    """Make the partitions of today and the next days. ``now``: ns. Raises asyncpg errors."""
    today = now // DAY_NS
    for table in partitions.ALL:
        there = await partitions.existing(connection, table)
        for day in range(today, today + AHEAD + 1):
            if day not in there and (report.dry_run or await partitions.ensure(connection, table, day)):
                report.made.setdefault(table.name, []).append(str(partitions.show(day)))


async def retire(connection: asyncpg.Connection, retention_ns: Mapping[str, int], now: int, report: Report) -> None:
    """Drop the partitions older than the retention. Raises asyncpg errors; a table that is in use is put off, and so
    are all of them while a dump runs."""
    oldest = {table.name: partitions.oldest_day(now, retention_ns[table.name]) for table in partitions.ALL}
    due: dict[partitions.Partitioned, list[int]] = {}
    for table in partitions.ALL:
        days = sorted(day for day in await partitions.with_tables(connection, table) if day < oldest[table.name])
        if days:
            due[table] = days
    if report.dry_run:
        report.dropped = {table.name: [str(partitions.show(day)) for day in days] for table, days in due.items()}
        return
    if not due:
        return
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", postgres.DUMP_LOCK):
        report.put_off = {table.name: "a dump is running" for table in due}
        return
    try:
        for table in due:
            try:
                days = await partitions.retire(connection, table, oldest[table.name])
            except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, TimeoutError) as error:
                report.put_off[table.name] = postgres.describe(error)
                continue
            if days:
                report.dropped[table.name] = [str(partitions.show(day)) for day in days]
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", postgres.DUMP_LOCK)
