"""One run, part by part. A part that fails leaves the others their work; a lost database ends the run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import asyncpg

from feedmill.general.backup import slot
from feedmill.general.maintenance import aging, checks, days, record, statistics
from feedmill.general.maintenance.figures import look
from feedmill.general.maintenance.report import Report
from feedmill.general.maintenance.settings import Settings
from feedmill.general.maintenance.streams import Cleaner
from feedmill.resources.collection import Key
from feedmill.shared import postgres
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import WireError, connect

COMMAND_TIMEOUT = 130.0
"""Seconds a statement may take: detaching a partition waits for readers for up to 120."""
REDIS_LONGEST = 60.0
"""Seconds for the streams: a shared server may have many keys to look through."""


async def run_once(
    connection: asyncpg.Connection, redis_url: RedisUrl | None, settings: Settings, now: int, *, patience: float
) -> Report:
    """One run, written down in ``maintenance_runs``. ``now``: ns. ``patience``: seconds to wait for another run's end;
    ``redis_url``: None = Redis does not run.

    Raises record.Busy, and asyncpg errors when the database is lost.
    """
    run = await record.begin(connection, patience)
    try:
        report = await carry_out(connection, redis_url, settings, now)
    except Exception as error:
        if not connection.is_closed():
            await record.end(connection, run, Report(errors={"run": postgres.describe(error)}), failed=True)
        raise
    await record.end(connection, run, report)
    return report


async def carry_out(
    connection: asyncpg.Connection, redis_url: RedisUrl | None, settings: Settings, now: int, *, dry_run: bool = False
) -> Report:
    """All parts. ``dry_run``: change nothing, tell what would be done. Raises asyncpg errors: the database is lost."""
    report = Report(dry_run=dry_run)

    async def part(name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except (*postgres.RETRYABLE, WireError) as error:
            if connection.is_closed():
                raise
            report.errors[name] = postgres.describe(error)

    await part("partitions", days.make_ahead(connection, now, report))
    await part("retention", days.retire(connection, settings.partitions_ns, now, report))
    await part("aging", aging.age(connection, settings, now, report))
    await part("log", _log(connection, settings, report))
    if redis_url is not None:
        await part("streams", _streams(connection, redis_url, settings, now, report))
    await part("checks", _checks(connection, report))
    return report


async def forget(
    connection: asyncpg.Connection, redis_url: RedisUrl, settings: Settings, now: int, feed: Key, *, dry_run: bool
) -> Report:
    """Remove the streams of one feed, also what was not stored. Raises asyncpg errors, OSError, WireError."""
    report = Report(dry_run=dry_run)
    await _streams(connection, redis_url, settings, now, report, feed)
    return report


async def _streams(
    connection: asyncpg.Connection,
    redis_url: RedisUrl,
    settings: Settings,
    now: int,
    report: Report,
    forgotten: Key | None = None,
) -> None:
    wire = await connect(redis_url, name="feedmill-maintenance")
    try:
        async with asyncio.timeout(REDIS_LONGEST):
            cleaner = Cleaner(wire, connection, settings, now, report)
            await (cleaner.run() if forgotten is None else cleaner.forget(forgotten))
    finally:
        wire.abort()


async def _log(connection: asyncpg.Connection, settings: Settings, report: Report) -> None:
    """The server must not fill its disk for a backup that is not made any more."""
    name = slot.slot_name(*settings.pipeline)
    kept = await slot.release(connection, name, settings.log_kept_bytes, dry_run=report.dry_run)
    if kept is not None:
        report.released[name] = kept


async def _checks(connection: asyncpg.Connection, report: Report) -> None:
    figures = await look(connection)
    report.tables = checks.summed(figures.tables)
    before = next((run.report for run in await record.last_runs(connection, 2) if run.ended_ns is not None), None)
    report.findings, report.suspects = checks.confirmed(checks.judge(figures), before)
    report.findings += checks.of_report(report)
    await statistics.analyze(connection, figures.tables, report)
