"""Maintenance of PostgreSQL: partitions ahead of time, old ones dropped.

Every ten minutes and at the start. Processors make partitions themselves when one is missing, so nothing waits for
this; it only keeps them from having to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from prometheus_client import Counter

from feedmill.processor.settings import retention_of
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared import partitions, postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import now_ns
from feedmill.shared.metrics import Gauge
from feedmill.shared.partitions import DAY_NS
from feedmill.shared.reload import same_pipeline
from feedmill.shared.service import ServiceContext

EVERY = 600.0
"""Seconds between two runs."""
AHEAD = 3
"""Days."""
FRESH = 3 * EVERY
"""Seconds after which a last good run is too long ago to be ready."""
PATIENCE = 3.0
"""Seconds a run has to come to its end when the service is asked to stop; the next one does what is left."""

runs = Counter("feedmill_maintenance_runs_total", "Runs.", ["outcome"])
made = Counter("feedmill_maintenance_partitions_made_total", "Partitions made.", ["table"])
dropped = Counter("feedmill_maintenance_partitions_dropped_total", "Partitions dropped.", ["table"])
last_run = Gauge("feedmill_maintenance_last_success_timestamp_seconds", "When a run last succeeded.")


@dataclass(slots=True)
class Report:
    """What one run did. Days are written as dates."""

    made: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    put_off: dict[str, str] = field(default_factory=dict)
    """Table -> why its old partitions stay until the next run."""


async def run_once(connection: asyncpg.Connection, retention_ns: Mapping[str, int], now: int) -> Report:
    """Make the partitions of today and the next days, drop those older than the retention. ``now``: ns.

    Raises asyncpg errors; a table that is in use is put off, not an error.
    """
    report = Report()
    today = now // DAY_NS
    for table in partitions.ALL:
        for day in range(today, today + AHEAD + 1):
            if await partitions.ensure(connection, table, day):
                report.made.setdefault(table.name, []).append(str(partitions.show(day)))
                made.labels(table.name).inc()
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", postgres.DUMP_LOCK):
        report.put_off = {table.name: "a dump is running" for table in partitions.ALL}
        return report
    try:
        for table in partitions.ALL:
            oldest = partitions.oldest_day(now, retention_ns[table.name])
            try:
                days = await partitions.retire(connection, table, oldest)
            except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, TimeoutError) as error:
                report.put_off[table.name] = postgres.describe(error)
                continue
            if days:
                report.dropped[table.name] = [str(partitions.show(day)) for day in days]
                dropped.labels(table.name).inc(len(days))
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", postgres.DUMP_LOCK)
    return report


@dataclass(slots=True)
class _State:
    reachable: bool = False
    error: str = "not tried yet"
    last_success: float = 0.0
    report: Report = field(default_factory=Report)
    connection: asyncpg.Connection | None = None
    """Of the run under way."""

    def ready(self) -> tuple[bool, str]:
        if not self.last_success:
            return False, f"no run yet: {self.error}"
        age = time.time() - self.last_success
        return age < FRESH, f"the last good run was {age:.0f} s ago: {self.error}"

    def document(self) -> dict[str, Any]:
        return {
            "lastSuccess": self.last_success or None,
            "made": self.report.made,
            "dropped": self.report.dropped,
            "putOff": self.report.put_off,
            "lastError": self.error,
        }


async def main(context: ServiceContext, pipeline: FeedPipeline) -> None:
    """Run until ``context.stop`` is set."""
    state = _State()
    retention = retention_of(pipeline)

    async def reconfigure(resources: Resources) -> None:
        nonlocal retention
        retention = retention_of(same_pipeline(resources, pipeline.key))

    context.reconfigure = reconfigure
    context.health.condition("maintenance", state.ready)
    context.health.detail("maintenance", state.document)
    context.health.detail("postgres", lambda: {"reachable": state.reachable, "lastError": state.error})
    backoff = Backoff(1.0, 60.0)
    while not context.stop.is_set():
        wait = EVERY
        try:
            await _run_until_stop(context, retention, state)
            backoff.reset()
        except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
            wait = 0.2 + backoff.next()
            state.reachable = isinstance(error, (asyncpg.PostgresError, postgres.SchemaBehind))
            state.error = postgres.describe(error)
            runs.labels("failed").inc()
            context.log.warning("maintenance.failed", error=state.error, retry_in=round(wait, 1))
        try:
            async with asyncio.timeout(wait):
                await context.stop.wait()
        except TimeoutError:
            pass


class MaintenanceFailed(RuntimeError):
    """A single run did not come about; the message says why."""


async def once(context: ServiceContext, pipeline: FeedPipeline) -> None:
    """One run. Raises MaintenanceFailed, also when it was asked to stop before its end."""
    try:
        if not await _run_until_stop(context, retention_of(pipeline), _State()):
            raise MaintenanceFailed("asked to stop before the run was over")
    except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
        runs.labels("failed").inc()
        raise MaintenanceFailed(postgres.describe(error)) from None


async def _run_until_stop(context: ServiceContext, retention: Mapping[str, int], state: _State) -> bool:
    """One run; False when it was cut short because the service has to stop. Raises what the run raises."""
    run = asyncio.create_task(_run(context, retention, state), name="maintain")
    stop = asyncio.create_task(context.stop.wait(), name="stop maintaining")
    try:
        await asyncio.wait({run, stop}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({run}, timeout=PATIENCE)
        if run.done():
            run.result()
            return True
        context.log.warning("maintenance.cut_short", effect="the next run does what is left")
        return False
    finally:
        # The connection goes first: after a cancellation asyncpg would roll back, and wait for a server that hangs.
        if state.connection is not None:
            state.connection.terminate()
        for task in (run, stop):
            task.cancel()
        await asyncio.gather(run, stop, return_exceptions=True)


async def _run(context: ServiceContext, retention: Mapping[str, int], state: _State) -> None:
    state.connection = connection = await postgres.connect(
        context.database_url, name="feedmill maintenance", command_timeout=130.0
    )
    try:
        await postgres.require_schema(connection)
        report = await run_once(connection, retention, now_ns())
    finally:
        await postgres.close(connection)
    state.reachable, state.error, state.report, state.last_success = True, "", report, time.time()
    runs.labels("succeeded").inc()
    last_run.set_to_current_time()
    context.log.info(
        "maintenance.done",
        made={table: len(days) for table, days in report.made.items()},
        dropped={table: len(days) for table, days in report.dropped.items()},
        put_off=report.put_off,
        kept_days={table: ns // DAY_NS for table, ns in retention.items()},
    )
