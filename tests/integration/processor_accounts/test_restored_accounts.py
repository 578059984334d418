"""Accounts of a database that was restored from a backup: their distributor forgets, so all is told again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from account_stage import Running, Stream, add_account, until

from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.rejoin import Restore, rejoin
from feedmill.local.embedded import EmbeddedRedis
from feedmill.processor.settings import ProcessorSettings
from feedmill.shared.account_events import AccountGap, Reconciled
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import account_ref

ONE = "default/one"
REF = account_ref(ONE)
MANIFEST = Manifest(
    id="20261126T030000Z-logical-000001", kind="logical", namespace="default", pipeline="main", object="a/b/data",
    size_bytes=1, sha256="", plain_bytes=1, key_id="k", started_ns=1, ended_ns=2, snapshot_ns=1, schema_version="0003",
    feedmill_version="0", server_version="18",
)  # fmt: skip


@pytest.fixture
async def db(migrated: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated)
    yield connection
    connection.terminate()


async def rows(db: asyncpg.Connection) -> dict[str, tuple[Any, ...]]:
    found = await db.fetch("SELECT cause, state, repaired_by <> '', from_ns FROM gaps WHERE channel = 'Account'")
    return {row[0]: tuple(row)[1:] for row in found}


async def test_an_account_begins_anew_and_its_row_ends_with_the_reconciliation(
    redis_server: EmbeddedRedis, migrated: str, db: asyncpg.Connection
) -> None:
    await add_account(db, "one")
    stream = Stream(redis_server, ONE)
    await stream.commit(gaps=[AccountGap("g1", "disconnected", "open", 50, 0, 1, 60)])
    running = Running(redis_server.url, migrated, (ONE,))

    async def stored() -> bool:
        return bool(await db.fetchval("SELECT commit_id = $1 FROM applied WHERE shard = $2", stream.id, str(REF)))

    await until(stored)
    await running.end()
    await rejoin(db, Restore("r1", MANIFEST, "folder", 1, 100), ProcessorSettings(shards=()))
    assert await rows(db) == {"disconnected": ("closed", False, 50), "restore": ("open", False, 50)}
    # A commit that is gone from the tables, a memory of it, and what receivers had captured.
    await stream.commit(reconciled=[reconciled("", now_ns() - 10**9)])
    await stream.client.hset(REF.checkpoint, "id", "x")
    await stream.client.xadd(REF.raw, {"b": b"x"})
    await stream.client.hset(REF.sessions, "r0-1", 7)

    running = Running(redis_server.url, migrated, (ONE,))

    async def begun() -> bool:
        return not await stream.client.exists(REF.checkpoint, REF.raw, REF.sessions)

    await until(begun)
    await until(stored)
    assert (await rows(db))["restore"][0] == "open", "what was reconciled before that does not count"
    # The distributor begins a new chain, and reconciles.
    stream.n, stream.id = 0, ""
    started = now_ns()
    await stream.commit(gaps=[AccountGap("g2", "first", "open", 0, 0, 1, started)])
    await stream.commit(reconciled=[reconciled("g2", started)])

    async def closed() -> bool:
        return (await rows(db))["restore"][0] == "closed"

    await until(closed)
    await until(stored)
    await running.end()
    assert await db.fetchval("SELECT count(*) FROM gaps WHERE state = 'open'") == 0

    running = Running(redis_server.url, migrated, (ONE,))
    await stream.client.hset(REF.checkpoint, "id", "y")
    await stream.commit(gaps=[])
    await until(stored)
    assert await stream.client.hget(REF.checkpoint, "id") == b"y", "once is enough"
    await running.end()


async def test_what_was_told_before_and_is_gone_is_told_by_the_same_reconciliation(
    redis_server: EmbeddedRedis, migrated: str, db: asyncpg.Connection
) -> None:
    """Which may begin before anybody here has seen that it is gone."""
    await add_account(db, "one")
    stream = Stream(redis_server, ONE)

    async def stored() -> bool:
        return bool(await db.fetchval("SELECT commit_id = $1 FROM applied WHERE shard = $2", stream.id, str(REF)))

    await stream.commit()
    running = Running(redis_server.url, migrated, (ONE,))
    await until(stored)
    await running.end()
    await rejoin(db, Restore("r1", MANIFEST, "folder", 1, 100), ProcessorSettings(shards=()))
    # Three commits since the backup, of which the stream has the last one.
    for _ in range(3):
        await stream.commit()
    await stream.client.xtrim(stream.key, maxlen=1, approximate=False)
    running = Running(redis_server.url, migrated, (ONE,))
    await until(stored)
    lost = await db.fetchrow("SELECT from_seq, to_seq, state FROM gaps WHERE cause = 'redis_lost'")
    assert tuple(lost) == (2, 3, "open")
    began = await db.fetchval("SELECT detected_ns FROM gaps WHERE cause = 'restore'")
    stream.n, stream.id = 0, ""
    await stream.commit(gaps=[AccountGap("g2", "first", "open", 0, 0, 1, began + 1)])
    await stream.commit(reconciled=[reconciled("g2", began + 1)])
    await until(stored)
    assert await db.fetch("SELECT id FROM gaps WHERE state = 'open'") == []
    await running.end()


def reconciled(gap: str, started_ns: int) -> Any:
    return Reconciled(gap, started_ns, started_ns + 1, 1, 1, [], [])
