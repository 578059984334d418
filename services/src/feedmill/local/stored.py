"""What is in the database: exact counts where they come quickly, estimates (and told so) where not."""

from __future__ import annotations

from dataclasses import dataclass, field

import asyncpg

from feedmill.shared import postgres

TABLES = ("trades", "tickers", "book_snapshots", "candles", "orders", "fills", "gaps", "dead_letters")
COUNT_TIMEOUT = 5.0
"""Seconds an exact count may take."""

_OPEN = "SELECT count(*) FROM gaps WHERE state = 'open' AND (channel, cause) <> ('Account', 'shutdown')"


@dataclass(slots=True)
class Stored:
    """Rows by table. ``estimated``: tables whose number is PostgreSQL's own estimate."""

    rows: dict[str, int] = field(default_factory=dict)
    estimated: set[str] = field(default_factory=set)
    open_gaps: int | None = None
    """Without those that begin with our own end: of accounts, which are asked what they missed at the next start."""

    def since(self, before: Stored | None, table: str) -> int | None:
        """Rows added since ``before``; None when one of the two is not exact."""
        if before is None or table not in self.rows or table not in before.rows:
            return None
        if table in self.estimated or table in before.estimated:
            return None
        return self.rows[table] - before.rows[table]


async def count(database_url: str) -> Stored | None:
    """Count; None when the database cannot be reached or has no tables yet."""
    try:
        connection = await postgres.connect(database_url, name="feedmill-count", command_timeout=COUNT_TIMEOUT)
    except Exception as error:
        if not postgres.is_retryable(error):
            raise
        return None
    found = Stored()
    try:
        for table in TABLES:
            await _count(connection, table, found)
        found.open_gaps = int(await connection.fetchval(_OPEN))
    except Exception as error:
        if not postgres.is_retryable(error):
            raise
        return found if found.rows else None
    finally:
        await postgres.close(connection)
    return found


async def _count(connection: asyncpg.Connection, table: str, found: Stored) -> None:
    try:
        found.rows[table] = int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608 (from TABLES)
    except (TimeoutError, asyncpg.QueryCanceledError):
        estimate = await connection.fetchval(
            """SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c
               WHERE c.oid = $1::regclass
                  OR c.oid IN (SELECT relid FROM pg_partition_tree($1::regclass) WHERE isleaf)""",
            table,
        )
        found.rows[table] = int(estimate)
        found.estimated.add(table)
