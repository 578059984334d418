"""What happens in the tables is in the outbox in the same transaction, once, for those who asked for it."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from feedmill.shared.clock import SECOND, now_ns

SETUP = """
INSERT INTO instruments (exchange, market, symbol, native) VALUES ('binance', 'Spot', 'BTC-USDT', 'BTCUSDT');
INSERT INTO accounts (namespace, name, exchange, market, environment, origin)
VALUES ('desk', 'main', 'binance', 'Spot', 'Production', 'store');
"""
FILL = """
INSERT INTO fills (account_id, instrument_id, trade_id, order_id, side, price, size, quote, fee, fee_asset, time,
                   exchange_ns, receive_ns, flags)
SELECT 1, 1, t, 'o1', 2, 100.50, 0.1000, 10.05, -0.00010, 'BNB', 'epoch'::timestamptz + ($2::bigint / 1000) * interval
       '1 microsecond', $2, $2, $3
FROM unnest($1::text[]) AS t ON CONFLICT DO NOTHING
"""
GAP = """
INSERT INTO gaps (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, from_ns, to_ns, repaired_by,
                  revision, detected_ns)
VALUES ($1, $2, 1, $3, 'disconnected', $4, 1, 2, 10, 20, $5, 1, 30)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, repaired_by = excluded.repaired_by, revision = gaps.revision + 1
"""
BACKUP = """
INSERT INTO backups (id, kind, state, destination, object, started_ns, ended_ns, schema_version, error)
VALUES ($1, 'logical', $2, 'folder', 'o', 1, $3, '0003', $4)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_ns = excluded.ended_ns, error = excluded.error
"""


async def fill(connection: asyncpg.Connection, *trades: str, at: int | None = None, flags: int = 0) -> None:
    await connection.execute(FILL, list(trades), now_ns() if at is None else at, flags)


async def told(connection: asyncpg.Connection) -> list[tuple[str, str, str]]:
    rows = await connection.fetch("SELECT pipeline, kind, subject FROM notifications ORDER BY id")
    return [tuple(row) for row in rows]


async def body(connection: asyncpg.Connection) -> dict[str, Any]:
    return json.loads(await connection.fetchval("SELECT body FROM notifications ORDER BY id DESC LIMIT 1"))


async def test_without_a_notifier_nothing_is_kept(desk: Any) -> None:
    async with desk.session() as connection:
        await connection.execute(SETUP)
        await fill(connection, "1")
        await connection.execute(GAP, "g", "default.spot.0", "Ticker", "closed", "")
        await connection.execute(BACKUP, "b", "failed", 2, "no room")
        await desk.letters(1)
        assert await told(connection) == []


async def test_fills_are_told_once_as_they_are_and_only_new_ones(desk: Any) -> None:
    await desk.register("Fill")
    async with desk.session() as connection:
        await connection.execute(SETUP)
        await fill(connection, "1", "2")
        await fill(connection, "1", "2")  # The stream and REST tell the same.
        assert await told(connection) == [("default/main", "Fill", "desk/main")] * 2
        found = await body(connection)
        assert (found["price"], found["size"], found["fee"], found["fee_asset"]) == (
            "100.50",
            "0.1000",
            "-0.00010",
            "BNB",
        )
        assert (found["symbol"], found["side"], found["order"]) == ("BTC-USDT", 2, "o1")
        await fill(connection, "3", flags=4)  # feedmill import
        await fill(connection, "4", at=now_ns() - 3600 * SECOND)  # before the account was added
        await desk.letters(1)  # Not asked for.
        assert len(await told(connection)) == 2
        # What is rolled back was never told.
        transaction = connection.transaction()
        await transaction.start()
        await fill(connection, "5")
        await transaction.rollback()
        assert len(await told(connection)) == 2


async def test_orders_and_transfers(desk: Any) -> None:
    await desk.register("Order", "Transfer")
    async with desk.session() as connection:
        await connection.execute(SETUP)
        at = now_ns()
        await connection.execute(
            "INSERT INTO order_history (account_id, instrument_id, order_id, side, type, price, size, filled, status, "
            "terminal, time, venue_ns, receive_ns) "
            "VALUES (1, 1, 'o9', 1, 'limit', 5.0, 2, 0, 'new', false, now(), $1, $1)",
            at,
        )
        assert (await body(connection))["price"] == "5.0"
        await connection.execute(
            "INSERT INTO balance_changes (account_id, asset, change, cause, time, venue_ns, receive_ns) "
            "SELECT 1, 'USDT', -5.50, c, now(), $1, $1 FROM unnest($2::text[]) AS c",
            at, ["funding", "withdrawal"],
        )  # fmt: skip
        assert [kind for _, kind, _ in await told(connection)] == ["Order", "Transfer"]
        assert (await body(connection))["change"] == "-5.50"


async def test_letters_are_counted_by_shard_and_reason(desk: Any) -> None:
    await desk.register("DeadLetters")
    async with desk.session() as connection:
        await connection.execute(
            "INSERT INTO dead_letters (shard, session, batch, idx, conn, receive_ns, reason, detail, code_version, "
            "payload) SELECT s, 'x', n, 0, 1, n, 'bad_json', 'd' || n, '1', '' FROM generate_series(1, 3) AS n, "
            "unnest(ARRAY['default.spot.0', 'default.@main.0', 'default.elsewhere.0']) AS s"
        )
        # A feed of another pipeline is not ours to tell.
        assert sorted(subject for _, _, subject in await told(connection)) == ["default/@main", "default/spot"]
        assert (await body(connection))["letters"] == 3


@pytest.mark.parametrize(
    ("steps", "tells"),
    [
        ([("open", ""), ("closed", "")], 1),
        ([("closed", "")], 1),
        ([("open", ""), ("open", "")], 0),
        ([("open", ""), ("closed", "backfill:1")], 0),
        ([("open", ""), ("closed", ""), ("closed", "")], 1),
    ],
)
async def test_a_gap_is_lost_when_it_ends_unrepaired(desk: Any, steps: list[tuple[str, str]], tells: int) -> None:
    await desk.register("DataLost")
    async with desk.session() as connection:
        await connection.execute(SETUP)
        for state, repaired_by in steps:
            await connection.execute(GAP, "g", "default.spot.0", "Ticker", state, repaired_by)
        assert await told(connection) == [("default/main", "DataLost", "default/spot")] * tells
        if tells:
            assert (await body(connection))["symbols"] == ["BTC-USDT"]


async def test_backups_and_drills_are_told_when_they_end(desk: Any) -> None:
    await desk.register("BackupFailed", "BackupDone", "DrillFailed", "RestoreFailed")
    async with desk.session() as connection:
        await connection.execute(BACKUP, "b1", "running", None, "")
        await connection.execute(BACKUP, "b1", "failed", 2, "no room")
        await connection.execute(BACKUP, "b1", "failed", 2, "no room")
        await connection.execute(BACKUP, "b2", "running", None, "")
        await connection.execute(BACKUP, "b2", "succeeded", 3, "")
        for mode in ("verify", "restore"):
            await connection.execute(
                "INSERT INTO restores (id, backup_id, mode, state, started_ns, ended_ns, error) "
                "VALUES ($1, 'b2', $1, 'failed', 1, 2, 'wrong key')", mode,
            )  # fmt: skip
        kinds = [kind for _, kind, _ in await told(connection)]
        assert kinds == ["BackupFailed", "BackupDone", "DrillFailed", "RestoreFailed"]
        severities = await connection.fetch("SELECT severity FROM notifications ORDER BY id")
        assert [row["severity"] for row in severities] == ["Critical", "Info", "Critical", "Critical"]
        assert (await body(connection))["error"] == "wrong key"


async def test_each_pipeline_is_told_its_own_and_one_that_is_gone_nothing(desk: Any) -> None:
    await desk.register("BackupFailed")
    await desk.register("BackupFailed", pipeline="default/second")
    async with desk.session() as connection:
        await connection.execute(BACKUP, "b1", "failed", 2, "no room")
        assert sorted(pipeline for pipeline, _, _ in await told(connection)) == ["default/main", "default/second"]
        week = 8 * 86_400 * SECOND
        await connection.execute(
            "UPDATE notify_state SET updated_ns = updated_ns - $1 WHERE name = 'default/main'", week
        )
        await connection.execute(BACKUP, "b2", "failed", 2, "no room")
        assert [pipeline for pipeline, _, _ in await told(connection)][2:] == ["default/second"]
