"""A drill: a backup is restored into a scratch server and compared with what was written down when it was made.

Compared are the rows of each table and their hashes, which were taken of the same snapshot, and the schema: every
column, constraint, index and trigger that the migrations make at its revision must be there. Then the schema is brought
up to date, as a restore would. The drill is recorded at the destination and in the database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from feedmill import __version__
from feedmill.general.backup.choice import Picked
from feedmill.general.backup.content import Content, ContentError, MomentMissing, SchemaNewer
from feedmill.general.backup.dump import AS_TEXT, quoted, tally
from feedmill.general.backup.load import load
from feedmill.general.backup.manifest import Drill, encode
from feedmill.general.backup.names import Names
from feedmill.general.backup.programs import ProgramUnfit
from feedmill.general.backup.progress import Progress, silent
from feedmill.general.backup.rejoin import Restore, run_id, write_run
from feedmill.general.backup.restore import require_equal
from feedmill.general.backup.scratch import scratch_server
from feedmill.general.backup.seal import FormatNewer, KeyMissing, WrongKey
from feedmill.general.backup.stores.base import ObjectStore, StoreAway, StoreFull, StoreRefused, put_bytes
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns

MigrateTo = Callable[[str, str], Awaitable[None]]
"""(database URL, revision or "head"): bring that database's schema there."""
_SHOWN = 5
_NOT_ITS_FAULT = (
    StoreAway,
    StoreRefused,
    StoreFull,
    KeyMissing,
    WrongKey,
    FormatNewer,
    SchemaNewer,
    MomentMissing,
    ProgramUnfit,
    EmbeddedError,
    asyncpg.InsufficientResourcesError,
    OSError,
    TimeoutError,
)

_OBJECTS = """
WITH ours AS (
    SELECT oid, relname FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
)
SELECT format('column %s.%s %s%s', relname, attname, format_type(atttypid, atttypmod),
              CASE WHEN attnotnull THEN ' not null' ELSE '' END)
FROM ours JOIN pg_attribute ON attrelid = oid WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT format('constraint %s: %s', relname, pg_get_constraintdef(c.oid))
FROM ours JOIN pg_constraint c ON conrelid = ours.oid WHERE contype IN ('p', 'u', 'f', 'c')
UNION ALL
SELECT format('index %s', pg_get_indexdef(indexrelid)) FROM ours JOIN pg_index ON indrelid = oid WHERE indisvalid
UNION ALL
SELECT format('trigger %s', pg_get_triggerdef(t.oid))
FROM ours JOIN pg_trigger t ON tgrelid = ours.oid WHERE NOT tgisinternal
"""
_COMPARED_WITH = "as_migrated"


async def verify(
    content: Content, migrate: MigrateTo, *, folder: Path | None = None, progress: Progress = silent
) -> dict[str, int]:
    """Restore and compare; the rows of each table. ``folder``: where the scratch server lies.

    Raises ContentError, ProgramError, StoreError, SealedError, EmbeddedError, asyncpg errors, OSError.
    """
    async with scratch_server(folder) as server:
        await _make_schema(server.url, content.schema)
        connection = await postgres.connect(server.url, name="feedmill drill", command_timeout=None)
        try:
            await load(content, server.url, connection.get_server_version().major)
            progress("compare", 0, 0)
            await connection.execute(AS_TEXT)
            found = await tally(connection, content.schema, hashes=bool(content.hashes))
            require_equal(content, "rows", content.row_counts, found.rows)
            require_equal(content, "contents", content.hashes, found.hashes)
            await _compare_schema(connection, content, server.url_for(_COMPARED_WITH), migrate)
            await migrate(server.url, "head")
            await postgres.require_schema(connection)
        finally:
            await postgres.close(connection)
    return found.rows


async def _make_schema(url: str, schema: str) -> None:
    if schema == "public":
        return
    connection = await postgres.connect(url, name="feedmill drill")
    try:
        await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
        await connection.execute(f"ALTER ROLE CURRENT_USER SET search_path = {quoted(schema)}")
    finally:
        await postgres.close(connection)


async def _compare_schema(connection: asyncpg.Connection, content: Content, other_url: str, migrate: MigrateTo) -> None:
    """Raises ContentError where something that the migrations make is missing. What somebody added is none of ours."""
    revision = await postgres.revision(connection)
    if revision != content.revision:
        raise ContentError(
            f"backup {content.backup.id}: the restored schema is {revision or 'none'}, its manifest says "
            f"{content.revision}"
        )
    await connection.execute(f"CREATE DATABASE {_COMPARED_WITH}")
    await _make_schema(other_url, content.schema)
    await migrate(other_url, content.revision)
    other = await postgres.connect(other_url, name="feedmill drill")
    try:
        wanted = {row[0] for row in await other.fetch(_OBJECTS)}
    finally:
        await postgres.close(other)
    missing = sorted(wanted - {row[0] for row in await connection.fetch(_OBJECTS)})
    if missing:
        raise ContentError(
            f"backup {content.backup.id}: {len(missing)} parts of schema {revision} are not in it: "
            + "; ".join(missing[:_SHOWN])
        )


@dataclass(frozen=True, slots=True)
class Drilled:
    """A drill that passed."""

    drill: Drill
    content_ns: int
    """The moment that was restored to, ns since the epoch, UTC."""


async def drill(
    picked: Picked,
    store: ObjectStore,
    names: Names,
    database_url: str | None,
    migrate: MigrateTo,
    *,
    to_ns: int | None = None,
    folder: Path | None = None,
    log: Any,
    progress: Progress = silent,
) -> Drilled:
    """Verify and record it, also where it does not pass, unless that is for want of something here: room on the disk, a
    store that answers, a key. Such a failure says nothing about the backup, which goes on to count as what it was.

    ``database_url``: None = there is none to record it in. Raises what opening and :func:`verify` raise, once that is
    recorded, and StoreError where it cannot be.
    """
    started_ns, content_ns = now_ns(), to_ns or picked.manifest.snapshot_ns
    rows: dict[str, int] = {}
    failed: Exception | None = None
    try:
        async with picked.open() as content:
            content_ns = content.content_ns
            rows = await verify(content, migrate, folder=folder, progress=progress)
    except _NOT_ITS_FAULT:
        raise
    except Exception as error:
        failed = error
    why = "" if failed is None else f"{failed}" or type(failed).__name__
    made = Drill(
        id=run_id("verify", started_ns), backup_id=picked.manifest.id, passed=failed is None, started_ns=started_ns,
        ended_ns=now_ns(), feedmill_version=__version__, to_ns=to_ns or 0, row_counts=rows, error=why,
    )  # fmt: skip
    await put_bytes(store, names.drill(made.id), encode(made))
    done = Restore(made.id, picked.manifest, store.where, started_ns, content_ns, to_ns, made.row_counts)
    if database_url is not None:
        await _record(database_url, done, made, log)
    if failed is not None:
        raise failed
    log.info("drill.passed", backup=made.backup_id, rows=sum(rows.values()), tables=len(rows))
    return Drilled(made, content_ns)


async def _record(database_url: str, done: Restore, made: Drill, log: Any) -> None:
    """Its row. That it cannot be written is no failure: the destination has it."""
    connection: asyncpg.Connection | None = None
    try:
        connection = await postgres.connect(database_url, name="feedmill drill")
        await postgres.require_schema(connection)
        await write_run(connection, done, "verify", made.ended_ns, made.error)
    except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
        log.warning("drill.not_recorded", drill=made.id, error=postgres.describe(error))
    finally:
        await postgres.close(connection)
