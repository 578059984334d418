"""Dead letters as they stand in PostgreSQL: finding, counting, changing and removing them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from feedmill.processor.rows import STRANGER

EVENT_SESSION = f"{STRANGER}:"
"""What the session of a letter begins with that the processor wrote: an event that PostgreSQL refused."""


class BadId(ValueError):
    """Not the id of a dead letter; the message says what one looks like."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The primary key. As text ``SHARD/SESSION/BATCH/INDEX``."""

    shard: str
    session: str
    batch: int
    index: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.session}/{self.batch}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises BadId."""
        found = re.fullmatch(r"([^/]+)/(.+)/(\d{1,18})/(\d{1,9})", text)
        if found is None:
            raise BadId(
                f"{text!r} is not the id of a dead letter: write SHARD/SESSION/BATCH/INDEX as feedmill dlq list shows"
            )
        return cls(found[1], found[2], int(found[3]), int(found[4]))


@dataclass(frozen=True, slots=True)
class Letter:
    """One row."""

    key: Key
    conn: int
    receive_ns: int
    reason: str
    detail: str
    code_version: str
    payload: bytes

    @classmethod
    def of(cls, row: asyncpg.Record) -> Letter:
        key = Key(row["shard"], row["session"], row["batch"], row["idx"])
        return cls(
            key, row["conn"], row["receive_ns"], row["reason"], row["detail"], row["code_version"], row["payload"]
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters. Everything given must hold; nothing given = all of them."""

    keys: tuple[Key, ...] = ()
    shard: str | None = None
    reason: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def where(self) -> tuple[str, list[Any]]:
        """(SQL condition, its values)."""
        tests: list[str] = []
        values: list[Any] = []

        def test(sql: str, *given: Any) -> None:
            numbers = range(len(values) + 1, len(values) + len(given) + 1)
            values.extend(given)
            tests.append(sql.format(*(f"${number}" for number in numbers)))

        if self.keys:
            test(
                "(shard, session, batch, idx) IN"
                " (SELECT * FROM unnest({}::text[], {}::text[], {}::bigint[], {}::int[]))",
                [key.shard for key in self.keys],
                [key.session for key in self.keys],
                [key.batch for key in self.keys],
                [key.index for key in self.keys],
            )
        if self.shard is not None:
            test("shard = {}::text", self.shard)
        if self.reason is not None:
            test("reason = {}::text", self.reason)
        if self.since_ns is not None:
            test("receive_ns >= {}::bigint", self.since_ns)
        if self.until_ns is not None:
            test("receive_ns < {}::bigint", self.until_ns)
        return " AND ".join(tests) or "true", values


_COLUMNS = "shard, session, batch, idx, conn, receive_ns, reason, detail, code_version"
_ORDER = "ORDER BY receive_ns, shard, session, batch, idx"
_KEY = "shard = $1 AND session = $2 AND batch = $3 AND idx = $4"


async def find(connection: asyncpg.Connection, wanted: Filter, limit: int) -> list[tuple[Letter, int]]:
    """The oldest that match, each with its payload's first bytes and the size of the whole."""
    where, values = wanted.where()
    statement = (
        f"SELECT {_COLUMNS}, substring(payload FOR 256) AS payload, length(payload) AS size"  # noqa: S608
        f" FROM dead_letters WHERE {where} {_ORDER} LIMIT {limit:d}"
    )
    return [(Letter.of(row), row["size"]) for row in await connection.fetch(statement, *values)]


async def keys(connection: asyncpg.Connection, wanted: Filter) -> list[Key]:
    """Those of all that match, oldest first."""
    where, values = wanted.where()
    statement = f"SELECT shard, session, batch, idx FROM dead_letters WHERE {where} {_ORDER}"  # noqa: S608
    return [Key(*row) for row in await connection.fetch(statement, *values)]


@dataclass(frozen=True, slots=True)
class Group:
    """Letters of one shard with the same reason."""

    shard: str
    reason: str
    letters: int
    first_ns: int
    last_ns: int
    versions: Sequence[str]


async def groups(connection: asyncpg.Connection, wanted: Filter) -> list[Group]:
    """All that match, counted by shard and reason, the most first."""
    where, values = wanted.where()
    statement = (
        "SELECT shard, reason, count(*), min(receive_ns), max(receive_ns),"  # noqa: S608
        f" array_agg(DISTINCT code_version ORDER BY code_version) FROM dead_letters WHERE {where}"
        " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
    )
    return [Group(*row) for row in await connection.fetch(statement, *values)]


async def take(connection: asyncpg.Connection, key: Key) -> Letter | None:
    """The letter, locked for this transaction; None when it is gone or somebody else is driving it."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, payload FROM dead_letters WHERE {_KEY} FOR UPDATE SKIP LOCKED",  # noqa: S608
        *(key.shard, key.session, key.batch, key.index),
    )
    return Letter.of(row) if row is not None else None


async def read(connection: asyncpg.Connection, key: Key) -> Letter | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, payload FROM dead_letters WHERE {_KEY}",  # noqa: S608
        *(key.shard, key.session, key.batch, key.index),
    )
    return Letter.of(row) if row is not None else None


async def remove(connection: asyncpg.Connection, key: Key) -> None:
    await connection.execute(
        f"DELETE FROM dead_letters WHERE {_KEY}",  # noqa: S608
        *(key.shard, key.session, key.batch, key.index),
    )


async def mark(connection: asyncpg.Connection, key: Key, reason: str, detail: str, version: str) -> None:
    """It failed again: why, and by which code."""
    await connection.execute(
        f"UPDATE dead_letters SET reason = $5, detail = $6, code_version = $7 WHERE {_KEY}",  # noqa: S608
        *(key.shard, key.session, key.batch, key.index),
        *(text.replace("\x00", "\\x00") for text in (reason, detail, version)),
    )


async def drop(connection: asyncpg.Connection, wanted: Filter) -> int:
    """Remove all that match; answers how many."""
    where, values = wanted.where()
    status = await connection.execute(f"DELETE FROM dead_letters WHERE {where}", *values)  # noqa: S608
    return int(status.rpartition(" ")[2])
