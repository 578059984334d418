"""The rows of ``maintenance_runs``: a run is written down when it begins and when it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass

import asyncpg

from feedmill.general.maintenance.report import Report, read_report
from feedmill.shared.clock import now_ns

LOCK = 0x6665_6564_6D61_696E
"""Advisory lock ("feedmain") of the run under way."""
CUT_OFF = "it was cut off: the process ended, or lost the database"


class Busy(RuntimeError):
    """Another run is under way on this database."""

    def __init__(self) -> None:
        super().__init__("another run of maintenance is under way on this database: it does the same, wait for its end")


async def begin(connection: asyncpg.Connection, patience: float) -> int:
    """Take the lock for this session, waiting ``patience`` seconds, and write the row. Returns its id.

    Raises Busy, asyncpg errors.
    """
    try:
        await connection.execute(f"SET lock_timeout = {max(1, round(patience * 1000)):d}")
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    except asyncpg.LockNotAvailableError:
        raise Busy from None
    finally:
        if not connection.is_closed():
            await connection.execute("RESET lock_timeout")
    # Who has the lock is the only one that runs.
    await connection.execute(
        "UPDATE maintenance_runs SET outcome = 'failed', ended_ns = $1, report = $2 WHERE outcome = 'running'",
        *(now_ns(), json.dumps({"errors": {"run": CUT_OFF}})),
    )
    found = await connection.fetchval("INSERT INTO maintenance_runs (started_ns) VALUES ($1) RETURNING id", now_ns())
    return int(found)


async def end(connection: asyncpg.Connection, run: int, report: Report, *, failed: bool = False) -> None:
    """Raises asyncpg errors."""
    await connection.execute(
        "UPDATE maintenance_runs SET outcome = $2, ended_ns = $3, report = $4 WHERE id = $1",
        *(run, "failed" if failed else report.outcome, now_ns(), json.dumps(report.document())),
    )
    await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


@dataclass(frozen=True, slots=True)
class Run:
    """A row. Times in ns since the epoch; ``ended_ns``: None = under way, or cut off and not noticed yet."""

    id: int
    started_ns: int
    ended_ns: int | None
    outcome: str
    report: Report


async def last_runs(connection: asyncpg.Connection, most: int) -> list[Run]:
    """The newest first. Raises asyncpg errors."""
    rows = await connection.fetch(
        "SELECT id, started_ns, ended_ns, outcome, report FROM maintenance_runs"
        " ORDER BY started_ns DESC, id DESC LIMIT $1",
        most,
    )
    return [
        Run(row["id"], row["started_ns"], row["ended_ns"], row["outcome"], read_report(json.loads(row["report"])))
        for row in rows
    ]
