"""Partitions made ahead and retired, without holding up anybody."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from feedmill.general.maintenance import days
from feedmill.general.maintenance.report import Report
from feedmill.shared import partitions, postgres
from feedmill.shared.partitions import BOOKS, DAY_NS, TICKERS, TRADES

NOW = 20_000 * DAY_NS + DAY_NS // 3
RETENTION = {"trades": 30 * DAY_NS, "tickers": 3 * DAY_NS, "book_snapshots": 7 * DAY_NS}


async def run_once(connection: asyncpg.Connection, now: int = NOW, *, dry_run: bool = False) -> Report:
    report = Report(dry_run=dry_run)
    await days.make_ahead(connection, now, report)
    await days.retire(connection, RETENTION, now, report)
    return report


async def insert(connection: asyncpg.Connection, day: int) -> None:
    await connection.execute(
        "INSERT INTO trades (instrument_id, trade_id, time, price, size, side, exchange_ns, receive_ns, flags,"
        " first_id, last_id) VALUES (1, $1, $2, 1, 1, 1, 1, 1, 0, 0, 0)",
        day,
        datetime.fromtimestamp(day * 86400, UTC),
    )


async def stored(connection: asyncpg.Connection) -> list[int]:
    return [row[0] for row in await connection.fetch("SELECT trade_id FROM trades ORDER BY 1")]


async def test_a_run_makes_days_ahead_and_drops_old_ones(connection: asyncpg.Connection) -> None:
    for day in (19_960, 19_969, 19_970, 19_999):
        await partitions.ensure(connection, TRADES, day)
        await insert(connection, day)
    report = await run_once(connection)
    ahead = [str(partitions.show(day)) for day in range(20_000, 20_004)]
    assert report.made == {"trades": ahead, "tickers": ahead, "book_snapshots": ahead}
    assert report.dropped == {"trades": [str(partitions.show(day)) for day in (19_960, 19_969)]}
    assert report.put_off == {}
    assert await stored(connection) == [19_970, 19_999]
    assert await partitions.existing(connection, TRADES) == {19_970, 19_999, *range(20_000, 20_004)}
    would = await run_once(connection, NOW + 5 * DAY_NS, dry_run=True)
    old = [str(partitions.show(day)) for day in (20_000, 20_001)]
    assert would.dropped == {"trades": [str(partitions.show(19_970))], "tickers": old}
    assert would.made["trades"] == [str(partitions.show(day)) for day in range(20_005, 20_009)]
    again = await run_once(connection)
    assert (again.made, again.dropped, again.put_off) == ({}, {}, {})
    later = await run_once(connection, NOW + 5 * DAY_NS)
    assert (later.made["trades"], later.dropped) == (would.made["trades"], would.dropped)


async def test_nothing_is_retired_while_a_dump_runs(connection: asyncpg.Connection, migrated: str) -> None:
    await partitions.ensure(connection, TRADES, 19_000)
    dump = await postgres.connect(migrated, name="dump")
    await dump.execute("SELECT pg_advisory_lock_shared($1)", postgres.DUMP_LOCK)
    report = await run_once(connection)
    # Of the others nothing is old.
    assert report.put_off == {"trades": "a dump is running"}
    assert report.made
    assert 19_000 in await partitions.existing(connection, TRADES)
    # Not by its end, which a busy server may notice a little later.
    await dump.execute("SELECT pg_advisory_unlock_shared($1)", postgres.DUMP_LOCK)
    await postgres.close(dump)
    assert (await run_once(connection)).dropped


async def test_a_table_in_use_is_put_off_and_done_next_time(connection: asyncpg.Connection, migrated: str) -> None:
    await partitions.ensure(connection, TRADES, 19_000)
    await insert(connection, 19_000)
    reader = await postgres.connect(migrated, name="reader")
    transaction = reader.transaction()
    await transaction.start()
    assert await stored(reader) == [19_000]
    report = await run_once(connection)
    assert "LockNotAvailable" in report.put_off["trades"]
    assert await connection.fetchval("SHOW lock_timeout") == "0"
    await transaction.rollback()
    await postgres.close(reader)
    # Detaching had begun and is finished now.
    report = await run_once(connection)
    assert report.put_off == {}
    assert await connection.fetchval("SELECT to_regclass('trades_20220108')") is None
    assert await stored(connection) == []


async def test_making_a_day_does_not_wait_for_writers(connection: asyncpg.Connection, migrated: str) -> None:
    await partitions.ensure(connection, TRADES, 19_999)
    writer = await postgres.connect(migrated, name="writer")
    transaction = writer.transaction()
    await transaction.start()
    await insert(writer, 19_999)
    async with asyncio.timeout(60):  # It would wait for ever.
        assert await partitions.ensure(connection, TRADES, 20_000)
        await insert(connection, 20_000)
    await transaction.commit()
    await postgres.close(writer)
    assert await stored(connection) == [19_999, 20_000]


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
    assert await stored(connection) == []
    assert await partitions.ensure(connection, TRADES, 20_000)
    assert await stored(connection) == [20_000]
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
