"""The process: a run at the start and every ten minutes, or a single one for a CronJob."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from feedmill.general.maintenance import measures
from feedmill.general.maintenance.record import Busy
from feedmill.general.maintenance.report import Report
from feedmill.general.maintenance.run import COMMAND_TIMEOUT, run_once
from feedmill.general.maintenance.settings import Settings, settings_of
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.lease import sleep_or
from feedmill.shared.partitions import DAY_NS
from feedmill.shared.reload import same_pipeline
from feedmill.shared.service import ServiceContext

EVERY = 600.0
"""Seconds between two runs."""
FRESH = 3 * EVERY
"""Seconds after which a last good run is too long ago to be ready."""
BUSY = 100.0
"""Seconds to wait for another run on the same database (of another pipeline, or of a command)."""
PATIENCE = 3.0
"""Seconds a run has to come to its end when the service is asked to stop; the next one does what is left."""

_FAILURES = (*postgres.RETRYABLE, postgres.SchemaBehind, Busy)


@dataclass(slots=True)
class _State:
    settings: Settings
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
        return {"lastSuccess": self.last_success or None, "lastError": self.error, **self.report.document()}


async def main(context: ServiceContext, pipeline: FeedPipeline, resources: Resources) -> None:
    """Run until ``context.stop`` is set."""
    state = _State(settings_of(pipeline, resources))

    async def reconfigure(newer: Resources) -> None:
        state.settings = settings_of(same_pipeline(newer, pipeline.key), newer)

    context.reconfigure = reconfigure
    context.health.condition("maintenance", state.ready)
    context.health.detail("maintenance", state.document)
    context.health.detail("postgres", lambda: {"reachable": state.reachable, "lastError": state.error})
    backoff = Backoff(1.0, 60.0)
    while not context.stop.is_set():
        wait = EVERY
        try:
            await _until_stop(context, state)
            backoff.reset()
        except _FAILURES as error:
            wait = 0.2 + backoff.next()
            state.reachable = isinstance(error, (asyncpg.PostgresError, postgres.SchemaBehind, Busy))
            state.error = _told(error)
            measures.runs.labels("failed").inc()
            context.log.warning("maintenance.failed", error=state.error, retry_in=round(wait, 1))
        await sleep_or(context.stop, wait)


class MaintenanceFailed(RuntimeError):
    """A single run did not come about, or not wholly; the message says why."""


async def once(context: ServiceContext, pipeline: FeedPipeline, resources: Resources) -> None:
    """One run. Raises MaintenanceFailed, also when it was asked to stop before its end."""
    state = _State(settings_of(pipeline, resources))
    try:
        if not await _until_stop(context, state):
            raise MaintenanceFailed("asked to stop before the run was over")
    except _FAILURES as error:
        measures.runs.labels("failed").inc()
        raise MaintenanceFailed(_told(error)) from None
    if state.report.errors:
        raise MaintenanceFailed("; ".join(f"{part}: {why}" for part, why in state.report.errors.items()))


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, Busy) else postgres.describe(error)


async def _until_stop(context: ServiceContext, state: _State) -> bool:
    """One run; False when it was cut short because the service has to stop. Raises what the run raises."""
    run = asyncio.create_task(_run(context, state), name="maintain")
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


async def _run(context: ServiceContext, state: _State) -> None:
    began = monotonic()
    state.connection = connection = await postgres.connect(
        context.database_url, name="feedmill maintenance", command_timeout=COMMAND_TIMEOUT
    )
    try:
        await postgres.require_schema(connection)
        report = await run_once(connection, context.redis_url, state.settings, now_ns(), patience=BUSY)
    finally:
        await postgres.close(connection)
    _tell(context, state, report, monotonic() - began)


def _tell(context: ServiceContext, state: _State, report: Report, seconds: float) -> None:
    state.reachable, state.report = True, report
    state.error = "; ".join(f"{part}: {why}" for part, why in report.errors.items())
    if not report.errors:
        state.last_success = time.time()
    measures.count(report, seconds)
    say = context.log.warning if report.errors else context.log.info
    say(
        "maintenance.done",
        seconds=round(seconds, 2),
        made={table: len(found) for table, found in report.made.items()},
        dropped={table: len(found) for table, found in report.dropped.items()},
        put_off=report.put_off,
        aged=report.aged,
        streams_removed=report.removed,
        slots_dropped=report.released,
        findings=dict(Counter(finding.kind for finding in report.findings)),
        errors=report.errors,
        kept_days={table: ns // DAY_NS for table, ns in state.settings.partitions_ns.items()},
    )
