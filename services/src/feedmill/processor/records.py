"""What the database tells of itself, as metrics: backups, drills, maintenance, open gaps, its size.

Backups and maintenance run as Jobs on a cluster, gone before a Prometheus comes for their metrics; their rows stay, and
a processor is always there. Looked at every 15 s on a connection of its own; every replica tells the same.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import asyncpg

from feedmill.processor.due import DRILL, Done, Found, Plan
from feedmill.shared import postgres
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import SECOND, monotonic, now_ns
from feedmill.shared.lease import sleep_or
from feedmill.shared.metrics import Gauge

FORGET = 8.0
"""Looks that may fail in a row until nothing is told any more: what is not known is not shown."""
COUNTED = 10_000
"""Dead letters are counted up to here: more says nothing more."""

size_bytes = Gauge("feedmill_database_size_bytes", "Size of the database.")
open_gaps = Gauge("feedmill_database_open_gaps", "Gap rows that are open.", ["channel"])
dead_letters = Gauge("feedmill_database_dead_letters", f"Dead letters kept, counted up to {COUNTED}.")
backup_succeeded = Gauge(
    "feedmill_database_backup_succeeded_timestamp_seconds",
    "When the newest good backup (or drill) began; not there while there is none.",
    ["kind"],
)
backup_failed = Gauge(
    "feedmill_database_backup_failed",
    "1 while the newest backup (or drill) that ended is a failed one, of kinds that are still made.",
    ["kind"],
)
backup_overdue = Gauge(
    "feedmill_database_backup_overdue_seconds",
    "Since when a backup (or drill) of the schedule is due that is not there; 0 = none is.",
    ["kind"],
)
backup_size = Gauge("feedmill_database_backup_size_bytes", "Sealed size of the newest good backup.", ["kind"])
backup_took = Gauge("feedmill_database_backup_took_seconds", "Time the newest good backup (or drill) took.", ["kind"])
maintained = Gauge(
    "feedmill_database_maintained_timestamp_seconds",
    "When the last good run of maintenance ended; NaN before one.",
)
maintained.set(math.nan)
findings = Gauge("feedmill_database_findings", "What the last run of maintenance found to be mended.", ["kind"])
_LABELLED = (open_gaps, findings, backup_succeeded, backup_failed, backup_overdue, backup_size, backup_took)

GOOD = """
SELECT DISTINCT ON (kind) kind, started_ns, ended_ns, size_bytes FROM backups WHERE state = 'succeeded'
ORDER BY kind, started_ns DESC
"""
LAST = "SELECT DISTINCT ON (kind) kind, state FROM backups WHERE state <> 'running' ORDER BY kind, started_ns DESC"
GOOD_DRILL = """
SELECT started_ns, ended_ns FROM restores WHERE mode = 'verify' AND state = 'succeeded' ORDER BY started_ns DESC LIMIT 1
"""
LAST_DRILL = "SELECT state FROM restores WHERE mode = 'verify' AND state <> 'running' ORDER BY started_ns DESC LIMIT 1"
MAINTAINED = "SELECT max(ended_ns) FROM maintenance_runs WHERE outcome IN ('succeeded', 'partly')"
FINDINGS = """
SELECT found ->> 'kind' AS kind, count(*) FROM (
    SELECT report FROM maintenance_runs WHERE outcome <> 'running' ORDER BY started_ns DESC LIMIT 1
) AS last, jsonb_array_elements(report -> 'findings') AS found GROUP BY 1
"""
OPEN = "SELECT channel, count(*) FROM gaps WHERE state = 'open' GROUP BY channel"
LETTERS = "SELECT count(*) FROM (SELECT FROM dead_letters LIMIT $1) AS letters"
FIRST = "SELECT (extract(epoch FROM min(created_at)) * 1000000000)::bigint FROM instruments"


async def read(connection: asyncpg.Connection) -> Found:
    """One look. Raises asyncpg errors."""
    rows = await connection.fetch(GOOD)
    good = {row["kind"]: Done(row["started_ns"], row["ended_ns"], row["size_bytes"]) for row in rows}
    failed = {row["kind"]: row["state"] == "failed" for row in await connection.fetch(LAST)}
    if (drill := await connection.fetchrow(GOOD_DRILL)) is not None:
        good[DRILL] = Done(drill["started_ns"], drill["ended_ns"])
    if (state := await connection.fetchval(LAST_DRILL)) is not None:
        failed[DRILL] = state == "failed"
    return Found(
        await connection.fetchval("SELECT pg_database_size(current_database())"),
        good,
        failed,
        await connection.fetchval(MAINTAINED),
        {row["kind"]: row["count"] for row in await connection.fetch(FINDINGS)},
        {row["channel"]: row["count"] for row in await connection.fetch(OPEN)},
        await connection.fetchval(LETTERS, COUNTED),
        await connection.fetchval(FIRST),
    )


def show(found: Found, plan: Plan, now: int) -> None:
    """Set the gauges. ``now``: Unix ns. Series of what is not there are taken away."""
    for gauge in _LABELLED:
        gauge.clear()
    size_bytes.set(found.size_bytes)
    dead_letters.set(found.dead_letters)
    for channel, count in found.open_gaps.items():
        open_gaps.labels(channel).set(count)
    for kind, count in found.findings.items():
        findings.labels(kind).set(count)
    for kind, done in found.good.items():
        backup_succeeded.labels(kind).set(done.started_ns / SECOND)
        backup_took.labels(kind).set((done.ended_ns - done.started_ns) / SECOND)
        if done.size_bytes is not None:
            backup_size.labels(kind).set(done.size_bytes)
    for kind, bad in found.failed.items():
        if plan.tells(kind):
            backup_failed.labels(kind).set(bad)
    for kind in plan.schedules:
        if (seconds := plan.overdue(kind, found, now)) is not None:
            backup_overdue.labels(kind).set(seconds)
    maintained.set(found.maintained_ns / SECOND if found.maintained_ns else float("nan"))


def forget() -> None:
    """Nothing is known any more."""
    for gauge in _LABELLED:
        gauge.clear()
    for plain in (size_bytes, dead_letters, maintained):
        plain.set(float("nan"))


class Records:
    """One per processor process."""

    def __init__(
        self, database_url: postgres.Url, plan: Plan, *, database: Breaker, every: float, timeout: float, log: Any
    ) -> None:
        """``plan`` may be replaced at any time; ``every``: seconds between two looks."""
        self.plan = plan
        self._database_url = database_url
        self._breaker = database
        self._every = every
        self._timeout = timeout
        self._log = log
        self._seen = monotonic()
        self._error = ""
        forget()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``. A fault here must not stop the storing of trades."""
        while not stop.is_set():
            try:
                # While the server is away for the shards nobody asks; a look says nothing to their breaker.
                if self._breaker.state == "closed":
                    await self.look()
                    self._error = ""
            except Exception as error:
                if not (postgres.is_retryable(error) or isinstance(error, postgres.SchemaBehind)):
                    self._log.exception("records.fault")
                elif (why := postgres.describe(error)) != self._error:
                    self._error = why
                    self._log.warning(
                        "records.not_read", error=why, effect="what backups and gaps there are is not told"
                    )
            if monotonic() - self._seen > FORGET * self._every:
                forget()
            await sleep_or(stop, self._every)

    async def look(self) -> None:
        """Read and show once. Raises asyncpg errors, OSError, TimeoutError, SchemaBehind."""
        connection = await postgres.connect(
            self._database_url, name="feedmill processor records", command_timeout=self._timeout
        )
        try:
            await postgres.require_schema(connection)
            found = await read(connection)
        finally:
            await postgres.close(connection)
        show(found, self.plan, now_ns())
        self._seen = monotonic()
