"""Partitions made ahead and retired, without holding up anybody; the maintenance service as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from feedmill.general import maintenance
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared import partitions, postgres
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.health import Health
from feedmill.shared.log import get_logger
from feedmill.shared.partitions import BOOKS, DAY_NS, TICKERS, TRADES
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.service import ServiceContext

NOW = 20_000 * DAY_NS + DAY_NS // 3
RETENTION = {"trades": 30 * DAY_NS, "tickers": 3 * DAY_NS, "book_snapshots": 7 * DAY_NS}


@pytest.fixture
async def connection(migrated: str) -> AsyncIterator[asyncpg.Connection]:
    made = await postgres.connect(migrated, name="test")
    yield made
    made.terminate()


async def insert(connection: asyncpg.Connection, day: int) -> None:
    await connection.execute(
        "INSERT INTO trades (instrument_id, trade_id, time, price, size, side, exchange_ns, receive_ns, flags,"
        " first_id, last_id) VALUES (1, $1, $2, 1, 1, 1, 1, 1, 0, 0, 0)",
        day,
        datetime.fromtimestamp(day * 86400, UTC),
    )


async def days(connection: asyncpg.Connection) -> list[int]:
    return [row[0] for row in await connection.fetch("SELECT trade_id FROM trades ORDER BY 1")]


async def test_a_run_makes_days_ahead_and_drops_old_ones(connection: asyncpg.Connection) -> None:
    for day in (19_960, 19_969, 19_970, 19_999):
        await partitions.ensure(connection, TRADES, day)
        await insert(connection, day)
    report = await maintenance.run_once(connection, RETENTION, NOW)
    ahead = [str(partitions.show(day)) for day in range(20_000, 20_004)]
    assert report.made == {"trades": ahead, "tickers": ahead, "book_snapshots": ahead}
    assert report.dropped == {"trades": [str(partitions.show(day)) for day in (19_960, 19_969)]}
    assert report.put_off == {}
    assert await days(connection) == [19_970, 19_999]
    assert await partitions.existing(connection, TRADES) == {19_970, 19_999, *range(20_000, 20_004)}
    again = await maintenance.run_once(connection, RETENTION, NOW)
    assert (again.made, again.dropped, again.put_off) == ({}, {}, {})
    later = await maintenance.run_once(connection, RETENTION, NOW + 5 * DAY_NS)
    assert later.dropped["tickers"] == [str(partitions.show(day)) for day in (20_000, 20_001)]


async def test_nothing_is_retired_while_a_dump_runs(connection: asyncpg.Connection, migrated: str) -> None:
    await partitions.ensure(connection, TRADES, 19_000)
    dump = await postgres.connect(migrated, name="dump")
    await dump.execute("SELECT pg_advisory_lock_shared($1)", postgres.DUMP_LOCK)
    report = await maintenance.run_once(connection, RETENTION, NOW)
    assert report.put_off == dict.fromkeys(RETENTION, "a dump is running")
    assert report.made
    assert 19_000 in await partitions.existing(connection, TRADES)
    await postgres.close(dump)
    assert (await maintenance.run_once(connection, RETENTION, NOW)).dropped


async def test_a_table_in_use_is_put_off_and_done_next_time(connection: asyncpg.Connection, migrated: str) -> None:
    await partitions.ensure(connection, TRADES, 19_000)
    await insert(connection, 19_000)
    reader = await postgres.connect(migrated, name="reader")
    transaction = reader.transaction()
    await transaction.start()
    assert await days(reader) == [19_000]
    report = await maintenance.run_once(connection, RETENTION, NOW)
    assert "LockNotAvailable" in report.put_off["trades"]
    assert await connection.fetchval("SHOW lock_timeout") == "0"
    await transaction.rollback()
    await postgres.close(reader)
    # Detaching had begun and is finished now.
    report = await maintenance.run_once(connection, RETENTION, NOW)
    assert report.put_off == {}
    assert await connection.fetchval("SELECT to_regclass('trades_20220108')") is None
    assert await days(connection) == []


async def test_making_a_day_does_not_wait_for_writers(connection: asyncpg.Connection, migrated: str) -> None:
    await partitions.ensure(connection, TRADES, 19_999)
    writer = await postgres.connect(migrated, name="writer")
    transaction = writer.transaction()
    await transaction.start()
    await insert(writer, 19_999)
    async with asyncio.timeout(30):  # It would wait for ever.
        assert await partitions.ensure(connection, TRADES, 20_000)
        await insert(connection, 20_000)
    await transaction.commit()
    await postgres.close(writer)
    assert await days(connection) == [19_999, 20_000]


async def test_a_day_is_made_once_whoever_asks(connection: asyncpg.Connection, migrated: str) -> None:
    others = [await postgres.connect(migrated, name=f"other {number}") for number in range(4)]
    answers = await asyncio.gather(*(partitions.ensure(other, table, 20_000) for other in others for table in (BOOKS,)))
    assert sorted(answers) == [False, False, False, True]
    for other in others:
        await postgres.close(other)
    assert not await partitions.ensure(connection, BOOKS, 20_000)


async def test_a_detached_day_with_rows_is_attached_again(connection: asyncpg.Connection) -> None:
    await partitions.ensure(connection, TRADES, 20_000)
    await insert(connection, 20_000)
    await connection.execute(f"ALTER TABLE trades DETACH PARTITION {TRADES.partition(20_000)}")
    assert await days(connection) == []
    assert await partitions.ensure(connection, TRADES, 20_000)
    assert await days(connection) == [20_000]
    names = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname LIKE '%bounds'",
        TRADES.partition(20_000),
    )
    assert names == []


@pytest.mark.parametrize("table", partitions.ALL, ids=lambda table: table.name)
async def test_the_bounds_are_those_of_the_utc_day(
    connection: asyncpg.Connection, table: partitions.Partitioned
) -> None:
    await connection.execute("SET timezone = 'Asia/Tokyo'")
    await partitions.ensure(connection, table, 20_000)
    await connection.execute("SET timezone = 'UTC'")
    bound = await connection.fetchval(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1", table.partition(20_000)
    )
    end = " 00:00:00+00" if table.kind == "timestamptz" else ""
    assert bound == f"FOR VALUES FROM ('2024-10-04{end}') TO ('2024-10-05{end}')"


async def test_a_stranger_among_the_tables_is_left_alone(connection: asyncpg.Connection) -> None:
    await connection.execute("CREATE TABLE trades_backup (a int)")
    await connection.execute("CREATE TABLE trades_19990231 (a int)")
    await connection.execute("CREATE TABLE tickers_old20200101 (a int)")
    assert await partitions.retire(connection, TRADES, 30_000) == []
    assert await partitions.retire(connection, TICKERS, 30_000) == []
    names = ["trades_backup", "trades_19990231"]
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname = ANY($1::text[])", names) == 2


async def test_the_service_waits_for_the_schema_and_for_the_server(
    database_url: str, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feedmill.cli.migrate import upgrade

    monkeypatch.setattr(maintenance, "EVERY", 0.05)
    monkeypatch.setattr(maintenance, "Backoff", lambda *_: _NoWait())
    pipeline = FeedPipeline.model_validate({
        "apiVersion": "feedmill.dev/v1alpha1", "kind": "FeedPipeline", "metadata": {"name": "main"},
        "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}},
    })  # fmt: skip
    health = Health("maintenance")
    context = ServiceContext(
        "maintenance", health, RedisUrl.parse("redis://127.0.0.1:1/0"), DatabaseUrl(database_url), log=get_logger()
    )
    task = asyncio.create_task(maintenance.main(context, pipeline))

    async def until(ready: bool, text: str) -> None:
        async with asyncio.timeout(30):
            while health.ready()[0] is not ready or text not in str(health.document()):
                assert not task.done()
                await asyncio.sleep(0.01)

    await until(False, "run feedmill migrate")
    await upgrade(database_url)
    await until(True, "'reachable': True")
    await asyncio.to_thread(postgres_server.stop)
    await until(True, "'reachable': False")  # The last good run is recent: nothing is wrong yet.
    await asyncio.to_thread(postgres_server.start)
    await until(True, "'reachable': True")
    context.stop.set()
    async with asyncio.timeout(30):
        await task


class _NoWait:
    def next(self) -> float:
        return 0.0

    def reset(self) -> None: ...
