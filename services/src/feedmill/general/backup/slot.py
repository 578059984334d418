"""What the server must allow for a continuous backup, and the replication slot that makes it keep its log.

The slot is moved on by us, and only past what lies at the destination: a spool that is lost, or a file that was not
uploaded, is asked for again. ``pg_receivewal`` itself reads without a slot: it would move one on with its own disk.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import asyncpg

from feedmill.general.backup.wal_plan import Segment, parse_lsn, segment_at, show_lsn
from feedmill.resources.backup_policy import Backup

_LOOK = """
SELECT (SELECT system_identifier FROM pg_control_system())::text AS system,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS segment_bytes,
       pg_walfile_name(pg_current_wal_lsn()) AS file,
       pg_current_wal_lsn()::text AS written,
       slot.restart_lsn::text AS kept_from, slot.wal_status,
       (SELECT max(write_lsn)::text FROM pg_stat_replication WHERE application_name = $1) AS received
FROM (SELECT 1) AS one LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = $1"""
_ALLOWED = """
SELECT pg_is_in_recovery() AS standby, current_user AS role,
       (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) AS may,
       current_setting('wal_level') AS level, current_setting('max_wal_senders')::int AS senders,
       current_setting('max_replication_slots')::int AS slots"""


SERVER_KEEPS = 2
"""The server keeps so many times the spool's size at most, what waits in the spool included."""


def most_kept(spec: Backup | None) -> int:
    """Bytes of its log that the server may keep for a continuous backup; 0: there is to be none."""
    return SERVER_KEEPS * spec.continuous.spool.size.bytes if spec is not None and spec.continuous.enabled else 0


class NotAllowed(Exception):
    """The server allows no continuous backup; the message says why and what to change."""


class LogLost(Exception):
    """The server no longer has the log from where the stored one ends: a new base backup is needed."""


@dataclass(frozen=True, slots=True)
class Server:
    """What was seen of the server."""

    system: str
    """PostgreSQL's system identifier."""
    timeline: int
    segment_bytes: int
    written: int
    """Position up to which its log is written."""
    kept_from: int | None
    """Position from which on the slot makes it keep the log; None: there is no slot."""
    lost: bool
    """The server gave up what the slot was to keep (max_slot_wal_keep_size)."""
    received: int | None
    """Position up to which the log was received, as last told; None: nobody receives it."""

    @property
    def next(self) -> Segment:
        """The first segment that is still to be uploaded."""
        assert self.kept_from is not None
        return segment_at(self.kept_from, self.timeline, self.segment_bytes)

    @property
    def kept_bytes(self) -> int:
        """How much log it keeps for us."""
        return 0 if self.kept_from is None else max(0, self.written - self.kept_from)


def slot_name(namespace: str, pipeline: str) -> str:
    """Of a pipeline: PostgreSQL takes lower-case letters, digits and underscores, 63 at most."""
    text = re.sub("[^a-z0-9]", "_", f"{namespace}_{pipeline}")[:40]
    return f"feedmill_{text}_{_digest(namespace, pipeline)[:8]}"


def lock_key(namespace: str, pipeline: str) -> int:
    """Advisory lock of whoever receives a pipeline's log: one at a time."""
    return int(_digest(namespace, pipeline)[:16], 16) - (1 << 63)


def _digest(namespace: str, pipeline: str) -> str:
    return hashlib.sha256(f"feedmill-wal\0{namespace}\0{pipeline}".encode()).hexdigest()


async def require_allowed(connection: asyncpg.Connection) -> None:
    """Raises NotAllowed. What pg_hba.conf says is seen only when a replication connection is made."""
    row = await connection.fetchrow(_ALLOWED)
    assert row is not None
    if row["standby"]:
        raise NotAllowed("the database URL leads to a standby: let it lead to the primary")
    if row["level"] == "minimal":
        raise NotAllowed("the server's wal_level is minimal: set it to replica, and restart the server")
    if not row["senders"] or not row["slots"]:
        setting = "max_replication_slots" if row["senders"] else "max_wal_senders"
        raise NotAllowed(f"the server's {setting} is 0: set it to 10, and restart the server")
    if not row["may"]:
        raise NotAllowed(f'the role {row["role"]} may not replicate: ALTER ROLE "{row["role"]}" REPLICATION')


async def look(connection: asyncpg.Connection, slot: str) -> Server:
    """The server and the slot as they are now. Raises asyncpg errors."""
    row = await connection.fetchrow(_LOOK, slot)
    assert row is not None
    return Server(
        system=row["system"],
        timeline=int(row["file"][:8], 16),
        segment_bytes=row["segment_bytes"],
        written=parse_lsn(row["written"]),
        kept_from=None if row["kept_from"] is None else parse_lsn(row["kept_from"]),
        lost=row["wal_status"] == "lost",
        received=None if row["received"] is None else parse_lsn(row["received"]),
    )


async def create(connection: asyncpg.Connection, slot: str) -> None:
    """Make the server keep its log from now on. Raises NotAllowed where it has no slot left, asyncpg errors."""
    try:
        await connection.execute("SELECT pg_create_physical_replication_slot($1, true)", slot)
        # It begins at the last checkpoint, which may be a gigabyte ago; a base backup begins with one of its own.
        await connection.execute("SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", slot)
    except asyncpg.ConfigurationLimitExceededError as error:
        raise NotAllowed(
            f"the server has no replication slot left ({error}): raise max_replication_slots, or drop one that nobody "
            "uses (pg_drop_replication_slot)"
        ) from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotAllowed(f"the server refuses a replication slot ({error}): give the role REPLICATION") from None


async def drop(connection: asyncpg.Connection, slot: str) -> None:
    """Let the server have its disk back; nothing where there is no such slot. Raises asyncpg errors."""
    await connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", slot
    )


async def release(connection: asyncpg.Connection, slot: str, most_bytes: int, *, dry_run: bool = False) -> int | None:
    """Drop the slot where it keeps more than ``most_bytes``, or there is to be none (0); how much it kept, None where
    it stays or is not there. Raises asyncpg errors."""
    kept = await connection.fetchval(
        "SELECT greatest(0, pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots "
        "WHERE slot_name = $1 AND NOT active",
        slot,
    )
    if kept is None or (most_bytes and kept <= most_bytes):
        return None
    if not dry_run:
        await drop(connection, slot)
    return int(kept)


async def advance(connection: asyncpg.Connection, slot: str, position: int) -> None:
    """Let the server forget its log before ``position``; nothing when it may already. Raises asyncpg errors."""
    await connection.execute(
        "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots "
        "WHERE slot_name = $1 AND restart_lsn < $2::text::pg_lsn",
        slot,
        show_lsn(position),
    )
