"""What the live view asks PostgreSQL of accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.local import account_figures
from feedmill.local.account_figures import SHOWN, of, read


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    await asyncio.to_thread(migrate_sync, database_url)
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def add(connection: asyncpg.Connection, *names: str) -> list[int]:
    rows = await connection.fetch(
        """INSERT INTO accounts (namespace, name, exchange, market, environment, origin)
        SELECT 'default', name, 'binance', 'Spot', 'Production', 'store' FROM unnest($1::text[]) AS name
        RETURNING id""",
        list(names),
    )
    return [row["id"] for row in rows]


async def fill(connection: asyncpg.Connection, account: int, count: int) -> None:
    instrument = await connection.fetchval(
        "INSERT INTO instruments (exchange, market, symbol, native) VALUES ('binance', 'Spot', 'BTC-USDT', 'BTCUSDT') "
        "ON CONFLICT (exchange, market, symbol) DO UPDATE SET native = excluded.native RETURNING id"
    )
    await connection.execute(
        """INSERT INTO fills (account_id, instrument_id, trade_id, order_id, side, price, size, time, exchange_ns,
        receive_ns) SELECT $1, $2, n::text, 'o', 1, 1, 1, now(), n, n FROM generate_series(1, $3) AS n""",
        *(account, instrument, count),
    )
    await connection.execute(
        """INSERT INTO orders (account_id, instrument_id, order_id, side, type, filled, status, terminal, time,
        venue_ns, receive_ns)
        SELECT $1, $2, n::text, 1, 'limit', 0, 'new', n > 3, now(), n, n FROM generate_series(1, 5) AS n""",
        *(account, instrument),
    )


async def test_there_may_be_no_accounts(database: asyncpg.Connection) -> None:
    assert await read(database) == []


async def test_orders_fills_and_counts(database: asyncpg.Connection) -> None:
    first, second, gone = await add(database, "a", "b", "c")
    await database.execute("UPDATE accounts SET enabled = false, removed_at = now() WHERE id = $1", gone)
    await database.execute("UPDATE accounts SET enabled = false WHERE id = $1", second)
    await fill(database, first, 7)
    rows = await read(database)
    assert [
        (row["account"], row["enabled"], row["orders_open"], row["fills"], row["last_fill_ns"]) for row in rows
    ] == [
        ("default/a", True, 3, 7, 7),
        ("default/b", False, 0, 0, None),
    ]
    found = of([None], rows)
    assert (found.accounts, found.enabled) == (2, 1)


async def test_of_many_the_first_are_shown_and_all_are_counted(database: asyncpg.Connection) -> None:
    ids = await add(database, *(f"x{number:03}" for number in range(500)))
    await database.execute("UPDATE accounts SET enabled = false WHERE id = $1", ids[-1])
    await fill(database, ids[0], account_figures.MANY + 500)
    rows = await read(database)
    assert [row["account"] for row in rows] == [f"default/x{number:03}" for number in range(SHOWN)]
    assert {(row["accounts"], row["all_enabled"]) for row in rows} == {(500, 499)}
    assert rows[0]["fills"] == account_figures.MANY + 1
