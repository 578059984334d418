"""PostgreSQL: how connections are made, which schema is expected, and what an error means."""

from __future__ import annotations

import asyncio
import re
import weakref
from enum import Enum

import asyncpg

from feedmill.shared.database_url import DatabaseUrl

HEAD = "0003"
"""The migration this code was written for. Revisions are in text order; a later one is fine (expand, then contract)."""

DUMP_LOCK = 0x6665_6564_6475_6D70
"""Advisory lock: a dump holds it shared, retiring partitions takes it exclusively or waits for its next run."""

RESTORING = "feedmill_restoring"
"""A table that is there while a restore is under way, or was cut off: until it is gone the database is nobody's."""

SETTINGS = {
    "jit": "off",
    "timezone": "UTC",
    "plan_cache_mode": "force_generic_plan",
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""Sessions of services. JIT costs more than it saves on statements that run in ms."""


class Trouble(Enum):
    """What an error asks of the caller."""

    DATA = "data"
    """A value or a combination of values is refused: it will be refused again. Find the row."""
    PARTITION = "partition"
    """There is no partition for a row (any more): look again which exist."""
    SCHEMA = "schema"
    """The schema is not the one expected: wait for the migration."""
    AWAY = "away"
    """The server is away, busy, stopping or slow: try again."""


def trouble(error: BaseException) -> Trouble:
    """Judge an error of asyncpg, by SQLSTATE class where it has one."""
    if isinstance(error, asyncpg.CheckViolationError) and "no partition" in str(error):
        return Trouble.PARTITION
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        if state[:2] in ("22", "23", "44") or state in ("54000", "54001"):
            return Trouble.DATA
        if state[:2] in ("42", "3D", "3F", "0A"):
            return Trouble.SCHEMA
        return Trouble.AWAY
    if isinstance(error, asyncpg.DataError):
        return Trouble.DATA
    return Trouble.AWAY


RETRYABLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What a statement gets whose connection ended between two messages of it: "cannot switch to state ...".
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    EOFError,
)
"""What connections and statements raise: errors a service waits out."""


def is_retryable(error: BaseException) -> bool:
    """Whether ``error`` is one of the errors a service waits out (never a fault of the code)."""
    return isinstance(error, RETRYABLE)


def describe(error: BaseException) -> str:
    """One line for logs and health: kind, SQLSTATE and message, without the statement's values."""
    state = getattr(error, "sqlstate", None)
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}{f' ({state})' if state else ''}: {text}"[:300]


_REMEDIES = {
    "25006": "the server is read-only (a standby, or default_transaction_read_only): let the URL lead to the primary",
    "53300": "all connections are taken: raise max_connections, or end what holds them (pg_stat_activity)",
    "53100": "its disk is full: make room",
    "28P01": "the password in the Secret is not the user's: correct it, running processes take it up",
    "3D000": "the database of the URL does not exist: create it, or correct the URL",
}


def remedy_of(text: str) -> str:
    """What to do about an error as :func:`describe` tells it."""
    state = re.search(r" \(([0-9A-Z]{5})\): ", text)
    known = _REMEDIES.get(state[1]) if state else None
    return known or "check that it runs, its URL, and what lies between"


Url = str | DatabaseUrl

_open: weakref.WeakKeyDictionary[asyncpg.Connection, tuple[DatabaseUrl, int]] = weakref.WeakKeyDictionary()
"""Connections made by :func:`connect`, with the URL (the object) and which life of it."""


def made_before(url: DatabaseUrl) -> list[asyncpg.Connection]:
    """Open connections made with ``url`` before it last became another."""
    return [
        connection
        for connection, (holder, life) in list(_open.items())
        if holder is url and life != url.life and not connection.is_closed()
    ]


def recycle(url: DatabaseUrl) -> int:
    """Cut what :func:`made_before` names; answers how many. A transaction under way is rolled back or its answer lost:
    their owners are written for that, the position tells what was stored."""
    found = made_before(url)
    for connection in found:
        connection.terminate()
    return len(found)


async def connect(
    database_url: Url, *, name: str, timeout: float = 5.0, command_timeout: float | None = 30.0
) -> asyncpg.Connection:
    """Open a session; ``name`` appears in pg_stat_activity. Raises asyncpg errors, OSError or TimeoutError.

    ``command_timeout`` (seconds) bounds every statement: a server that hangs is a server that is away.
    """
    holder = database_url if isinstance(database_url, DatabaseUrl) else None
    life = holder.life if holder is not None else 0
    async with asyncio.timeout(timeout):
        connection = await asyncpg.connect(
            database_url.get() if isinstance(database_url, DatabaseUrl) else database_url,
            timeout=timeout,
            command_timeout=command_timeout,
            server_settings={**SETTINGS, "application_name": name},
        )
    if holder is not None:
        if life != holder.life:
            connection.terminate()
            raise ConnectionError("the database URL changed while connecting")
        _open[connection] = (holder, life)
    return connection


async def close(connection: asyncpg.Connection | None, *, timeout: float = 1.0) -> None:
    """Close a session whatever state it is in; a server that hangs is not waited for."""
    if connection is None or connection.is_closed():
        return
    try:
        async with asyncio.timeout(timeout):
            await connection.close()
    except RETRYABLE:
        pass
    finally:
        connection.terminate()


async def revision(connection: asyncpg.Connection) -> str:
    """The schema's revision; empty when nothing was migrated yet."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return ""
    return str(await connection.fetchval("SELECT max(version_num) FROM alembic_version") or "")


class SchemaBehind(RuntimeError):
    """The database is not at the revision this code needs."""

    sqlstate = "3F000"

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database is at revision {found or 'none'}, this code needs {HEAD} or later: run feedmill migrate"
        )


class RestoreUnfinished(SchemaBehind):
    """A restore of the database is under way, or was cut off."""

    def __init__(self) -> None:
        RuntimeError.__init__(
            self,
            "a restore of this database is not finished: wait for it, or, if it was cut off, run feedmill backup "
            "restore again, which begins anew",
        )


async def is_restoring(connection: asyncpg.Connection) -> bool:
    """Whether a restore is under way, or was cut off."""
    return await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", RESTORING) is True


async def require_schema(connection: asyncpg.Connection) -> str:
    """The schema's revision; raises SchemaBehind when it is older than :data:`HEAD`, RestoreUnfinished."""
    if await is_restoring(connection):
        raise RestoreUnfinished
    found = await revision(connection)
    if found < HEAD:
        raise SchemaBehind(found)
    return found
