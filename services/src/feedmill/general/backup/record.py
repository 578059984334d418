"""Rows of the table ``backups``: what this installation did. The destination is the truth of what can be restored."""

from __future__ import annotations

import asyncpg
import msgspec

from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.names import Kind, Names, new_id
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns

_BEGIN = """
INSERT INTO backups (id, kind, state, destination, object, started_ns, schema_version)
VALUES ($1, $2, 'running', $3, $4, $5, $6)"""
_SUCCEEDED = """
UPDATE backups SET state = 'succeeded', ended_ns = $2, size_bytes = $3, sha256 = $4, row_counts = $5::jsonb,
    schema_version = $6, key_id = $7, snapshot_ns = $8, wal_from = $9, error = '' WHERE id = $1"""
_RUNNING = "SELECT id FROM backups WHERE kind = $1 AND state = 'running'"
_FAILED = "UPDATE backups SET state = 'failed', ended_ns = $2, error = $3 WHERE id = $1 AND state = 'running'"
_CUT_OFF = """
UPDATE backups SET state = 'failed', ended_ns = $2, error = 'cut off: the process ended before the backup did'
WHERE kind = $1 AND state = 'running' AND started_ns < $3"""
MAX_ERROR = 1000
"""Characters kept of a reason."""


async def begin(
    connection: asyncpg.Connection,
    backup_id: str,
    kind: Kind,
    *,
    destination: str,
    folder: str,
    started_ns: int,
    schema_version: str,
) -> None:
    """A backup is under way. Raises asyncpg errors, as all here."""
    await connection.execute(_BEGIN, backup_id, kind, destination, folder, started_ns, schema_version)


async def succeeded(connection: asyncpg.Connection, manifest: Manifest) -> None:
    """It is whole, with its manifest."""
    await connection.execute(
        _SUCCEEDED,
        manifest.id,
        manifest.ended_ns,
        manifest.size_bytes,
        manifest.sha256,
        msgspec.json.encode(manifest.row_counts).decode(),
        manifest.schema_version,
        manifest.key_id,
        manifest.snapshot_ns,
        manifest.wal_from or None,
    )


async def running(connection: asyncpg.Connection, kind: Kind) -> list[str]:
    """Ids of those that are under way, and of those whose process was killed."""
    return [row["id"] for row in await connection.fetch(_RUNNING, kind)]


async def failed(connection: asyncpg.Connection, backup_id: str, ended_ns: int, error: str) -> None:
    """It came to nothing. ``error``: a reason for people, without secrets."""
    await connection.execute(_FAILED, backup_id, ended_ns, error[:MAX_ERROR])


async def not_begun(database_url: postgres.Url, names: Names, kind: Kind, *, destination: str, error: str) -> None:
    """Nothing could be begun, since the destination does not let it: a failure all the same, which people are told."""
    connection = await postgres.connect(database_url, name="feedmill backup record")
    try:
        revision = await postgres.require_schema(connection)
        backup_id = new_id(kind, now := now_ns())
        folder = names.data(backup_id).rpartition("/")[0]
        await begin(
            connection, backup_id, kind, destination=destination, folder=folder, started_ns=now, schema_version=revision
        )
        await failed(connection, backup_id, now_ns(), error)
    finally:
        await postgres.close(connection)


async def close_cut_off(connection: asyncpg.Connection, kind: Kind, *, before_ns: int, ended_ns: int) -> None:
    """Rows of processes that were killed. Call it where no other backup of that kind can be under way."""
    await connection.execute(_CUT_OFF, kind, ended_ns, before_ns)
