"""A restore into an empty database: all of it and fit to go on, or nothing at all.

A marker (a table) is put into the empty database first. While it is there services wait and migrations refuse, so a
restore that was cut off at any point is nobody's data; the next one clears what is there and begins anew. The marker
goes in the transaction that makes the database fit (see ``rejoin``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from feedmill.general.backup import locks
from feedmill.general.backup.content import Content, ContentError
from feedmill.general.backup.dump import quoted, tally
from feedmill.general.backup.ending import to_its_end
from feedmill.general.backup.load import load
from feedmill.general.backup.progress import Progress, silent
from feedmill.general.backup.rejoin import Rejoined, Restore, rejoin, run_id
from feedmill.processor.settings import ProcessorSettings
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns

_SHOWN = 5

Migrate = Callable[[str], Awaitable[None]]
"""Brings the database from the schema it has to the one asked for ("head", or "base" = no tables)."""

_RELATIONS = """
SELECT c.relname, c.relkind::text AS kind FROM pg_class c
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
ORDER BY c.relispartition DESC, c.relkind = 'S', 1
"""
_FUNCTIONS = """
SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = $1::text::regnamespace
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
ORDER BY 1
"""
_MARKER = f"""
CREATE TABLE {postgres.RESTORING} (
    backup_id text NOT NULL, started_ns bigint NOT NULL, relations text[] NOT NULL, functions text[] NOT NULL
)
"""
_DROPS = {"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW", "S": "SEQUENCE"}


class RestoreError(Exception):
    """A database cannot be restored into; the message says why, and the remedy."""


class TargetNotEmpty(RestoreError):
    """It holds something."""


async def restore(
    content: Content,
    database_url: str,
    settings: ProcessorSettings,
    *,
    destination: str,
    migrate: Migrate,
    to_ns: int | None = None,
    log: Any,
    progress: Progress = silent,
) -> tuple[Restore, Rejoined]:
    """Restore it. ``settings``: of the pipeline's processors, whose shards' gap rows are opened.

    Raises RestoreError, ContentError, ProgramError, StoreError, SealedError, asyncpg errors, OSError, TimeoutError;
    what ``migrate`` raises. The database is empty then as before, unless it went away itself: then the marker stands
    in it.
    """
    started_ns = now_ns()
    connection = await postgres.connect(database_url, name="feedmill restore", command_timeout=None)
    try:
        if not await locks.take(connection, locks.RESTORE):
            raise RestoreError("another restore into this database is under way: wait for it")
        await _empty(connection, content, migrate)
        await _mark(connection, content, started_ns)
        try:
            await _clear(connection, content.schema)
            log.info("restore.begun", backup=content.backup.id, content_ns=content.content_ns)
            await load(content, database_url, connection.get_server_version().major)
            progress("count", 0, 0)
            counts = await counted_as(connection, content)
            if content.revision < postgres.HEAD:
                # Else a migration would go on in its thread while all is cleared away.
                await to_its_end(migrate("head"))
            made = Restore(
                run_id("restore", started_ns),
                content.backup,
                destination,
                started_ns,
                content.content_ns,
                to_ns,
                counts,
            )
            rejoined = await rejoin(connection, made, settings)
        except BaseException:
            await _undo(connection, database_url, content.schema, log)
            raise
        log.info("restore.done", backup=content.backup.id, rows=sum(counts.values()), gaps=rejoined.gaps)
        progress("analyze", 0, 0)
        with contextlib.suppress(*postgres.RETRYABLE):
            await connection.execute("ANALYZE")
        return made, rejoined
    finally:
        await postgres.close(connection)


async def counted_as(connection: asyncpg.Connection, content: Content) -> dict[str, int]:
    """The rows of each table, which are as many as were backed up. Raises ContentError."""
    found = await tally(connection, content.schema, hashes=False)
    require_equal(content, "rows", content.row_counts, found.rows)
    return found.rows


def require_equal(content: Content, what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises ContentError where tables are not as the backup says. Nothing is expected of one that says nothing."""
    if not expected or dict(expected) == dict(found):
        return
    tables = sorted(set(expected) | set(found))
    differ = [each for each in tables if expected.get(each) != found.get(each)]
    shown = "; ".join(f"{each}: {expected.get(each)} backed up, {found.get(each)} restored" for each in differ[:_SHOWN])
    raise ContentError(
        f"backup {content.backup.id}: {what} differ in {len(differ)} tables: {shown}; take another backup"
    )


async def require_empty(database_url: str) -> None:
    """Before anything is made ready that takes its time: whether a restore into it would be refused for its rows.

    Raises TargetNotEmpty, asyncpg errors, OSError, TimeoutError.
    """
    connection = await postgres.connect(database_url, name="feedmill restore")
    try:
        schema = await connection.fetchval("SELECT current_schema()")
        if schema is not None and not await postgres.is_restoring(connection):
            await _without_rows(connection, schema)
    finally:
        await postgres.close(connection)


async def _tables(connection: asyncpg.Connection, schema: str) -> list[str]:
    return [row["relname"] for row in await connection.fetch(_RELATIONS, quoted(schema)) if row["kind"] in "rp"]


async def _without_rows(connection: asyncpg.Connection, schema: str) -> list[str]:
    """The tables that are there. Raises TargetNotEmpty where one has rows."""
    tables = await _tables(connection, schema)
    for table in tables:
        has_rows = f"SELECT EXISTS (SELECT FROM {quoted(schema)}.{quoted(table)})"  # noqa: S608
        if table == "alembic_version" or not await connection.fetchval(has_rows):
            continue
        shown = ", ".join(tables[:_SHOWN]) + (", ..." if len(tables) > _SHOWN else "")
        raise TargetNotEmpty(
            f"the database is not empty ({table} has rows; it holds {shown}): restore into an empty one. What it holds "
            "is left as it is; feedmill migrate --down base would remove Feedmill's tables for good"
        )
    return tables


async def _empty(connection: asyncpg.Connection, content: Content, migrate: Migrate) -> None:
    """See to it that nothing is there. One that was only migrated is taken back to nothing. Raises RestoreError."""
    schema = await connection.fetchval("SELECT current_schema()")
    if schema != content.schema:
        raise RestoreError(
            f"the backup's tables are of schema {content.schema!r}, the target's search path leads to {schema!r}: set "
            "it for the user (ALTER ROLE ... SET search_path), or create the schema"
        )
    if await postgres.is_restoring(connection):
        return
    tables = await _without_rows(connection, schema)
    if "alembic_version" in tables:
        await migrate("base")
        tables = await _tables(connection, schema)
    if taken := sorted(set(tables) & set(content.row_counts) - {"alembic_version"}):
        raise TargetNotEmpty(
            f"the database has tables of the same names ({', '.join(taken)}): restore into an empty one"
        )


async def _mark(connection: asyncpg.Connection, content: Content, started_ns: int) -> None:
    async with connection.transaction():
        # No migration begins between the look at the database and the marker.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", locks.MIGRATING)
        if await postgres.is_restoring(connection):
            await connection.execute(
                f"UPDATE {postgres.RESTORING} SET backup_id = $1, started_ns = $2",  # noqa: S608
                content.backup.id, started_ns,
            )  # fmt: skip
            return
        if await connection.fetchval("SELECT to_regclass('applied') IS NOT NULL"):
            raise TargetNotEmpty("the database was migrated a moment ago: stop what does so, and try again")
        found = await connection.fetch(_RELATIONS, quoted(content.schema))
        # alembic leaves its own table behind: it goes, as the backup brings one.
        relations = [row["relname"] for row in found if row["relname"] != "alembic_version"]
        functions = [row["name"] for row in await connection.fetch(_FUNCTIONS, quoted(content.schema))]
        await connection.execute(_MARKER)
        await connection.execute(
            f"INSERT INTO {postgres.RESTORING} VALUES ($1, $2, $3, $4)",  # noqa: S608
            content.backup.id, started_ns, relations, functions,
        )  # fmt: skip


async def _clear(connection: asyncpg.Connection, schema: str) -> None:
    """Remove what was not there when the marker was set: what a restore that was cut off has left."""
    before = await connection.fetchrow(f"SELECT relations, functions FROM {postgres.RESTORING}")  # noqa: S608
    assert before is not None
    kept = {postgres.RESTORING, *before["relations"]}
    # One by one, since each takes locks; a sequence or partition goes with its table.
    for row in await connection.fetch(_RELATIONS, quoted(schema)):
        if row["relname"] not in kept:
            name = f"{quoted(schema)}.{quoted(row['relname'])}"
            await connection.execute(f"DROP {_DROPS[row['kind']]} IF EXISTS {name} CASCADE")
    for row in await connection.fetch(_FUNCTIONS, quoted(schema)):
        if row["name"] not in before["functions"]:
            await connection.execute(f"DROP FUNCTION IF EXISTS {row['name']} CASCADE")


async def _undo(connection: asyncpg.Connection, database_url: str, schema: str, log: Any) -> None:
    """After a failure: the database is empty again. Where it is away the marker stays, and the next restore clears."""
    fresh: asyncpg.Connection | None = None
    try:
        if connection.is_closed() or connection.is_in_transaction():
            fresh = await postgres.connect(database_url, name="feedmill restore", command_timeout=None)
        working = fresh or connection
        await _clear(working, schema)
        await working.execute(f"DROP TABLE {postgres.RESTORING}")
    except postgres.RETRYABLE as error:
        log.error(
            "restore.not_undone", error=postgres.describe(error),
            effect="the database is marked as unfinished: nothing works on it until it is restored again",
        )  # fmt: skip
    finally:
        await postgres.close(fresh)
