"""Partitions of a day (UTC): which exist, making one, retiring old ones.

A partition is made as a table of its own and then attached, because attaching takes a weaker lock than CREATE ...
PARTITION OF: writers are not held up. There is no default partition: a row without one is an error that somebody sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import asyncpg

DAY_NS = 86_400_000_000_000
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table partitioned by day."""

    name: str
    column: str
    kind: str
    """timestamptz | date."""

    def partition(self, day: int) -> str:
        return f"{self.name}_{show(day):%Y%m%d}"

    def bound(self, day: int) -> str:
        """SQL literal of the begin of a day."""
        return f"'{show(day):%Y-%m-%d}'" if self.kind == "date" else f"'{show(day):%Y-%m-%d} 00:00:00+00'"


TRADES = Partitioned("trades", "time", "timestamptz")
TICKERS = Partitioned("tickers", "day", "date")
BOOKS = Partitioned("book_snapshots", "time", "timestamptz")
ALL = (TRADES, TICKERS, BOOKS)


def show(day: int) -> date:
    """The date of a day number (days since 1970-01-01)."""
    return EPOCH + timedelta(days=day)


def day_of(moment: datetime) -> int:
    return (moment.astimezone(UTC).date() - EPOCH).days


def oldest_day(now_ns: int, retention_ns: int) -> int:
    """The oldest day that is kept: an earlier one ended longer than the retention ago."""
    return (now_ns - retention_ns) // DAY_NS


def parse_day(table: Partitioned, name: str) -> int | None:
    match = re.fullmatch(rf"{table.name}_(\d{{4}})(\d{{2}})(\d{{2}})", name)
    if match is None:
        return None
    try:
        return (date(int(match[1]), int(match[2]), int(match[3])) - EPOCH).days
    except ValueError:
        return None


async def existing(connection: asyncpg.Connection, table: Partitioned) -> set[int]:
    """Days that have an attached partition."""
    rows = await connection.fetch(
        "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid"
        " WHERE inhparent = $1::text::regclass AND NOT inhdetachpending",
        table.name,
    )
    return {day for row in rows if (day := parse_day(table, row["relname"])) is not None}


async def ensure(connection: asyncpg.Connection, table: Partitioned, day: int) -> bool:
    """Make the partition of a day unless it is there; True when it was made (or attached again).

    Runs its own transaction. Raises asyncpg errors, among them LockNotAvailableError after 5 s.
    """
    name, low, high = table.partition(day), table.bound(day), table.bound(day + 1)
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"feedmill partition {name}")
        if day in await existing(connection, table):
            return False
        if await connection.fetchval("SELECT to_regclass($1)", name) is None:
            await connection.execute(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING ALL)")
        # A check equal to the bounds spares ATTACH the scan of a table that holds rows already.
        check = f"CHECK ({table.column} IS NOT NULL AND {table.column} >= {low} AND {table.column} < {high})"
        await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {name}_bounds")
        await connection.execute(f"ALTER TABLE {name} ADD CONSTRAINT {name}_bounds {check}")
        await connection.execute(
            f"ALTER TABLE {table.name} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
        )
        await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT {name}_bounds")
    return True


async def retire(connection: asyncpg.Connection, table: Partitioned, before: int) -> list[int]:
    """Detach and drop the partitions of days before ``before``; finishes what an interrupted run began.

    Not within a transaction. Raises asyncpg errors: LockNotAvailableError when a table is in use for longer than 2 s.
    Returns the days dropped.
    """
    await connection.execute("SET lock_timeout = '2s'")
    try:
        await _finalize(connection, table)
        dropped: list[int] = []
        attached = await existing(connection, table)
        for day in sorted(await with_tables(connection, table)):
            if day >= before:
                continue
            name = table.partition(day)
            if day in attached:
                await connection.execute(f"ALTER TABLE {table.name} DETACH PARTITION {name} CONCURRENTLY", timeout=120)
            await connection.execute(f"DROP TABLE {name}")
            dropped.append(day)
        return dropped
    finally:
        if not connection.is_closed():
            await connection.execute("RESET lock_timeout")


async def _finalize(connection: asyncpg.Connection, table: Partitioned) -> None:
    """DETACH CONCURRENTLY that was cut short leaves the partition half attached."""
    pending = await connection.fetch(
        "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid"
        " WHERE inhparent = $1::text::regclass AND inhdetachpending",
        table.name,
    )
    for row in pending:
        if parse_day(table, row["relname"]) is not None:
            await connection.execute(f"ALTER TABLE {table.name} DETACH PARTITION {row['relname']} FINALIZE")


async def with_tables(connection: asyncpg.Connection, table: Partitioned) -> set[int]:
    """Days that have a table, attached or not."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE $1"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = $2::text::regclass)",
        f"{table.name}\\_%",
        table.name,
    )
    return {day for row in rows if (day := parse_day(table, row["relname"])) is not None}


def window(days: set[int], around: int) -> tuple[int, int]:
    """The longest run of existing days that holds ``around``, as ns bounds [from, to); empty when it is not there."""
    if around not in days:
        return (0, 0)
    low = high = around
    while low - 1 in days:
        low -= 1
    while high + 1 in days:
        high += 1
    return low * DAY_NS, (high + 1) * DAY_NS
