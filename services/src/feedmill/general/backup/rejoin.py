"""A database that was just restored is made fit to go on: what is missing since then is told before anything starts.

Everything is one transaction, which ends the marker that keeps all others away: gap rows of every shard and account
(cause ``restore``), the rows of what was done, and an entry in the audit log, which knows nothing of the time between.

What was committed after the backup is gone from the tables, yet Redis may hold a part of it, all of it, or a
distributor's memory of it. Which one it is shows when the first commit comes (see ``processor.restored``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import asyncpg
import msgspec

from feedmill.accounts import audit
from feedmill.general.backup.manifest import Manifest
from feedmill.processor.accounts.store import CHANNEL
from feedmill.processor.restored import CAUSE, close_others, open_rows
from feedmill.processor.settings import ProcessorSettings
from feedmill.processor.statements import RESTORED
from feedmill.shared import postgres
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.keys import account_ref

Mode = Literal["verify", "restore"]

_BACKUPS_CUT_OFF = """
UPDATE backups SET state = 'failed', ended_ns = greatest(started_ns, $2::bigint),
                   error = 'it was under way when the content of this database was saved'
WHERE state = 'running' AND id <> $1
"""
_BACKUP = """
INSERT INTO backups (id, kind, state, destination, object, started_ns, ended_ns, size_bytes, sha256, row_counts,
                     schema_version, key_id, snapshot_ns, wal_from)
VALUES ($1, $2, 'succeeded', $3, $4, $5, $6, $7, $8, $9::jsonb, $10, $11, $12, $13)
ON CONFLICT (id) DO UPDATE SET
    state = 'succeeded', ended_ns = excluded.ended_ns, size_bytes = excluded.size_bytes, sha256 = excluded.sha256,
    row_counts = excluded.row_counts, key_id = excluded.key_id, snapshot_ns = excluded.snapshot_ns,
    wal_from = excluded.wal_from, error = ''
"""
_RESTORE = """
INSERT INTO restores (id, backup_id, mode, state, to_ns, started_ns, ended_ns, row_counts, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9)
"""
_ACCOUNTS = "SELECT namespace, name FROM accounts WHERE removed_at IS NULL ORDER BY 1, 2"
_ACCOUNT_GAP = """
WITH open AS (
    UPDATE gaps SET state = 'closed', to_ns = coalesce(to_ns, greatest(from_ns, $4::bigint)),
                    revision = greatest(revision + 1, $5::int)
    WHERE shard = $2 AND channel = $3 AND state = 'open' RETURNING from_ns
)
INSERT INTO gaps (id, shard, instrument_id, channel, cause, state, from_ns, revision, detected_ns)
VALUES ($1, $2, NULL, $3, $6::text, 'open', least($4::bigint, (SELECT min(from_ns) FROM open)), $5::int, $7::bigint)
ON CONFLICT DO NOTHING
"""
"""One row from the oldest thing that was open on: who was about to close that has forgotten it."""
_KEYS = "SELECT DISTINCT key_id FROM credentials ORDER BY 1"


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore. Times are ns since the epoch, UTC."""

    id: str
    backup: Manifest
    """What it was made from."""
    destination: str
    started_ns: int
    content_ns: int
    """The moment the content is of."""
    to_ns: int | None = None
    """The moment that was asked for; None = as far as there is anything."""
    row_counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejoined:
    """What the database begins with."""

    gaps: int
    accounts: int
    """That are reconciled anew."""
    key_ids: tuple[str, ...]
    """Keys without which the secrets of its accounts do not open."""
    others: tuple[str, ...] = ()
    """Shards that the database knows and the manifests do not."""


def run_id(mode: Mode, at_ns: int) -> str:
    """Of a restore or a drill: ``20261126T030000Z-verify-3f9a1c``."""
    at = datetime.fromtimestamp(at_ns // SECOND, UTC)
    return f"{at:%Y%m%dT%H%M%SZ}-{mode}-{secrets.token_hex(3)}"


async def rejoin(connection: asyncpg.Connection, restore: Restore, settings: ProcessorSettings) -> Rejoined:
    """Make the database fit, and open it to all. Raises asyncpg errors."""
    now = now_ns()
    async with connection.transaction():
        gaps = 0
        for shard in settings.shards:
            gaps += await open_rows(connection, shard, settings.retention_ns, restore.id, restore.content_ns, now)
        known = {str(shard.ref) for shard in settings.shards}
        others = tuple(await close_others(connection, known, restore.id, now))
        names = [f"{row['namespace']}/{row['name']}" for row in await connection.fetch(_ACCOUNTS)]
        for name in names:
            shard_name = str(account_ref(name))
            await connection.execute(
                _ACCOUNT_GAP, f"{shard_name}/{CAUSE}/{restore.id}", shard_name, CHANNEL, restore.content_ns, RESTORED,
                CAUSE, now,
            )  # fmt: skip
        await _record(connection, restore, now)
        detail = {"backup": restore.backup.id, "contentNs": restore.content_ns}
        await audit.write(connection, audit.Who.here("backup"), "restore", detail=detail)
        keys = tuple(row["key_id"] for row in await connection.fetch(_KEYS))
        await connection.execute(f"DROP TABLE IF EXISTS {postgres.RESTORING}")
    return Rejoined(gaps + len(others) + len(names), len(names), keys, others)


async def _record(connection: asyncpg.Connection, restore: Restore, now: int) -> None:
    backup = restore.backup
    await connection.execute(_BACKUPS_CUT_OFF, backup.id, now)
    await connection.execute(
        _BACKUP, backup.id, backup.kind, restore.destination, backup.object.rpartition("/")[0], backup.started_ns,
        backup.ended_ns, backup.size_bytes, backup.sha256, _json(backup.row_counts), backup.schema_version,
        backup.key_id, backup.snapshot_ns, backup.wal_from or None,
    )  # fmt: skip
    await write_run(connection, restore, "restore", now)


async def write_run(
    connection: asyncpg.Connection, restore: Restore, mode: Mode, ended_ns: int, error: str = ""
) -> None:
    """The row of a restore or a drill that has ended, well where there is no ``error``. Raises asyncpg errors."""
    await connection.execute(
        _RESTORE, restore.id, restore.backup.id, mode, "failed" if error else "succeeded", restore.to_ns,
        restore.started_ns, ended_ns, _json(restore.row_counts), error,
    )  # fmt: skip


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
