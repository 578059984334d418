"""One snapshot of a database: its dump as a stream, and of the same snapshot each table's rows, counted and hashed.

A session holds the snapshot and, shared, the lock that keeps maintenance from dropping partitions meanwhile. pg_dump
takes the snapshot over; the tables are counted in the session while it works.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from feedmill.general.backup.programs import Running, program, reach, require_major
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns

PIECE = 1 << 18
"""Bytes."""
COMPRESSION = "1"
"""gzip's level. Every build of pg_restore reads gzip; higher levels take twice the time for a tenth less."""
LOCK_WAIT = "180s"
"""Longest wait for maintenance that is dropping partitions."""

AS_TEXT = """
SET extra_float_digits = 1; SET bytea_output = 'hex'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
SET max_parallel_workers_per_gather = 0
"""
"""What a row looks like as text must be the same where it is restored."""

_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
ORDER BY 1
"""


class DumpError(Exception):
    """The database cannot be backed up; the message says why, and the remedy."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is dumped."""

    name: str
    """Of the exported snapshot."""
    taken_ns: int
    """ns since the epoch, UTC. What was committed by then is in it."""
    schema: str
    """In which the tables lie: public, unless the search path says otherwise."""
    revision: str
    server_version: str
    size_bytes: int
    """Of the database on disk: more than a dump has."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of each table, and a hash of them that does not depend on their order."""

    rows: dict[str, int]
    hashes: dict[str, str]


class Held:
    """A snapshot that is held; from :func:`hold`."""

    def __init__(self, connection: asyncpg.Connection, snapshot: Snapshot) -> None:
        self._connection = connection
        self.snapshot = snapshot

    async def tally(self) -> Tally:
        """Count and hash. Raises asyncpg errors."""
        return await tally(self._connection, self.snapshot.schema)

    async def still(self) -> None:
        """Raises DumpError when the session that held the snapshot and the lock has ended meanwhile."""
        try:
            await self._connection.fetchval("SELECT 1", timeout=30)
        except postgres.RETRYABLE as error:
            raise DumpError(
                f"the session that held the snapshot has ended: {postgres.describe(error)}: a partition may have been "
                "dropped from under the dump; make the backup again"
            ) from error


async def tally(connection: asyncpg.Connection, schema: str, *, hashes: bool = True) -> Tally:
    """Rows of the tables of ``schema`` as the transaction of ``connection`` sees them; a partitioned table is one.

    The hash of a table is the sum of its rows' hashes, comparable where :data:`AS_TEXT` was run. Raises asyncpg errors.
    """
    rows: dict[str, int] = {}
    sums: dict[str, str] = {}
    each = "sum(hashtextextended(whole_row_::text, 0))" if hashes else "0"
    for record in await connection.fetch(_TABLES, quoted(schema)):
        table = record["relname"]
        if table == postgres.RESTORING:
            continue
        found = await connection.fetchrow(
            f"SELECT count(*) AS rows, {each} AS hash FROM {quoted(schema)}.{quoted(table)} AS whole_row_",  # noqa: S608
            timeout=None,
        )
        assert found is not None
        rows[table], sums[table] = found["rows"], str(found["hash"] or 0)
    return Tally(rows, sums if hashes else {})


def quoted(name: str) -> str:
    """As an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


@contextlib.asynccontextmanager
async def hold(database_url: postgres.Url) -> AsyncGenerator[Held, None]:
    """Take a snapshot and hold it. Raises DumpError, SchemaBehind, asyncpg errors, OSError, TimeoutError."""
    connection = await postgres.connect(database_url, name="feedmill backup", command_timeout=None)
    try:
        await postgres.require_schema(connection)
        await connection.execute(AS_TEXT)
        await _lock(connection)
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        taken_ns = now_ns()
        row = await connection.fetchrow(
            "SELECT pg_export_snapshot() AS name, current_setting('server_version') AS version,"
            " pg_database_size(current_database()) AS size,"
            " (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'applied'::regclass) AS schema"
        )
        assert row is not None
        revision = await postgres.revision(connection)
        schema = row["schema"].strip('"')
        yield Held(connection, Snapshot(row["name"], taken_ns, schema, revision, row["version"], row["size"]))
    finally:
        await postgres.close(connection)


async def _lock(connection: asyncpg.Connection) -> None:
    await connection.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
    try:
        await connection.execute("SELECT pg_advisory_lock_shared($1)", postgres.DUMP_LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise DumpError(
            f"maintenance has been dropping partitions for {LOCK_WAIT}: see what holds it up (pg_stat_activity), and "
            "try again"
        ) from error
    await connection.execute("SET lock_timeout = 0")


async def dump(database_url: str, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
    """pg_dump's custom format of a snapshot that is held. Raises ProgramError."""
    path = program("pg_dump")
    await asyncio.to_thread(require_major, path, int(snapshot.server_version.partition(".")[0]))
    command: list[str | Path] = [
        path, "--format=custom", f"--compress={COMPRESSION}", f"--snapshot={snapshot.name}",
        f"--schema={quoted(snapshot.schema)}", "--no-owner", "--no-privileges", "--no-tablespaces",
        "--no-publications", "--no-subscriptions", "--no-security-labels", "--lock-wait-timeout=60s", "--no-password",
    ]  # fmt: skip
    async with reach(database_url) as environment:
        running = await Running.start(command, environment | {"PGAPPNAME": "feedmill backup"}, writes=True)
        try:
            while piece := await running.stdout.read(PIECE):
                yield piece
            await running.succeed()
        finally:
            await running.stop()
