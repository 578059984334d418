"""The schema: up, down and up again, from code and by ``feedmill migrate``; keys and comments are what is meant."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from feedmill.cli.main import app
from feedmill.cli.migrate import MigrateError, migrate_sync, revisions, statements, upgrade
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.shared import postgres

CATALOG = """
SELECT 'column', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull
       || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || coalesce(col_description(c.oid, a.attnum), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'table', c.relname, c.relkind::text || ' ' || coalesce(obj_description(c.oid), '')
    FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
ORDER BY 1, 2
"""


async def ask(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def catalog(url: str) -> dict[tuple[str, str], str]:
    return {row[:2]: row[2] for row in asyncio.run(ask(url, CATALOG))}


def tables(url: str) -> set[str]:
    found = asyncio.run(ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
    return {row[0] for row in found}


def test_every_revision_up_down_and_up_again(database_url: str) -> None:
    known = revisions()
    assert known == sorted(known)
    assert known[-1] >= postgres.HEAD
    assert postgres.HEAD in known
    seen: list[dict[tuple[str, str], str]] = [catalog(database_url)]
    for revision in known:
        migrate_sync(database_url, to=revision)
        seen.append(catalog(database_url))
    for revision, wanted in zip(["base", *known[:-1]][::-1], seen[-2::-1], strict=True):
        migrate_sync(database_url, to=revision, down=True)
        left = {key: text for key, text in catalog(database_url).items() if "alembic" not in key[1]}
        assert left == {key: text for key, text in wanted.items() if "alembic" not in key[1]}
    assert tables(database_url) == {"alembic_version"}
    migrate_sync(database_url)
    assert catalog(database_url) == seen[-1]


def test_every_table_and_column_of_time_or_meaning_is_explained(database_url: str) -> None:
    migrate_sync(database_url)
    found = catalog(database_url)
    unexplained = [
        key[1]
        for key, text in found.items()
        if key[0] == "table" and key[1] != "alembic_version" and not text[2:].strip()
    ]
    assert unexplained == []
    columns = {name: text for (kind, name), text in found.items() if kind == "column"}
    assert [name for name, text in columns.items() if text.startswith("timestamp") and "UTC" not in text] == []
    assert [name for name, text in columns.items() if name.endswith("_ns") and "ns since" not in text] == []


def test_the_keys_are_made_of_exchange_content(database_url: str) -> None:
    migrate_sync(database_url)
    found = catalog(database_url)
    constraints = {name.split(".")[0]: text for (_, name), text in found.items() if text.startswith("PRIMARY KEY")}
    assert constraints == {
        "accounts": "PRIMARY KEY (id)",
        "alembic_version": "PRIMARY KEY (version_num)",
        "applied": "PRIMARY KEY (shard)",
        "audit_log": "PRIMARY KEY (id)",
        "backups": "PRIMARY KEY (id)",
        "balance_changes": "PRIMARY KEY (id)",
        "balance_history": "PRIMARY KEY (id)",
        "balances": "PRIMARY KEY (account_id, asset)",
        "book_snapshots": 'PRIMARY KEY (instrument_id, "time")',
        "candles": 'PRIMARY KEY (instrument_id, "interval", open_time)',
        "credentials": "PRIMARY KEY (account_id, field)",
        "dead_letters": "PRIMARY KEY (shard, session, batch, idx)",
        "fills": "PRIMARY KEY (account_id, instrument_id, trade_id, order_id)",
        "gaps": "PRIMARY KEY (id)",
        "imports": "PRIMARY KEY (file, part, mapping)",
        "instrument_versions": "PRIMARY KEY (instrument_id, valid_from)",
        "instruments": "PRIMARY KEY (id)",
        "maintenance_runs": "PRIMARY KEY (id)",
        "notifications": "PRIMARY KEY (id)",
        "notify_state": "PRIMARY KEY (name)",
        "order_history": "PRIMARY KEY (id)",
        "orders": "PRIMARY KEY (account_id, instrument_id, order_id)",
        "positions": "PRIMARY KEY (account_id, instrument_id, position_side)",
        "restores": "PRIMARY KEY (id)",
        "result_fees": "PRIMARY KEY (account_id, instrument_id, asset)",
        "results": "PRIMARY KEY (account_id, instrument_id, position_side)",
        "tickers": "PRIMARY KEY (instrument_id, seq, day)",
        "trades": 'PRIMARY KEY (instrument_id, "time", trade_id)',
        "venue_candles": 'PRIMARY KEY (instrument_id, "interval", open_time)',
    }


def test_states_are_once_by_their_content(database_url: str) -> None:
    migrate_sync(database_url)
    found = catalog(database_url)
    unique = {name: text for (kind, name), text in found.items() if kind == "constraint" and text.startswith("UNIQUE")}
    assert unique["order_history.order_history_state"] == (
        "UNIQUE NULLS NOT DISTINCT "
        "(account_id, instrument_id, order_id, venue_ns, filled, terminal, status, price, size)"
    )
    assert unique["balance_history.balance_history_state"] == (
        "UNIQUE NULLS NOT DISTINCT (account_id, asset, venue_ns, total, free, locked, equity)"
    )


async def test_the_audit_log_is_only_added_to(database_url: str) -> None:
    await upgrade(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("INSERT INTO audit_log (actor, place, action) VALUES ('me', 'here', 'use')")
        for change in ("UPDATE audit_log SET actor = 'you'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="is not changed"):
                await connection.execute(change)
        assert await connection.fetchval("SELECT actor FROM audit_log") == "me"
    finally:
        await connection.close()


async def test_the_audit_log_is_aged_only_by_who_says_so_and_only_what_is_old(database_url: str) -> None:
    await upgrade(database_url)
    connection = await asyncpg.connect(database_url)

    async def aging(statement: str) -> str:
        async with connection.transaction():
            await connection.execute("SET LOCAL feedmill.ages_audit = 'on'")
            return str(await connection.execute(statement))

    try:
        for days in (31, 29):
            await connection.execute(
                "INSERT INTO audit_log (at, actor, place, action)"
                " VALUES (now() - $1::int * interval '1 day', $2, 'here', 'use')",
                days,
                f"of {days} days ago",
            )
        old = "DELETE FROM audit_log WHERE actor = 'of 31 days ago'"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="is not changed"):
            await connection.execute(old)
        assert await aging(old) == "DELETE 1"
        for change in ("DELETE FROM audit_log", "UPDATE audit_log SET actor = 'you'", "TRUNCATE audit_log"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="is not changed"):
                await aging(change)
        assert [row["actor"] for row in await connection.fetch("SELECT actor FROM audit_log")] == ["of 29 days ago"]
    finally:
        await connection.close()


async def test_several_starters_at_once(database_url: str) -> None:
    """Processes: each pod of a first start may migrate."""
    command = [sys.executable, "-m", "feedmill.cli.main", "migrate"]
    environment = os.environ | {"DATABASE_URL": database_url}
    starters = [
        await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    answers = await asyncio.gather(*(starter.communicate() for starter in starters))
    assert [(out.decode(), error.decode()) for out, error in answers] == [(f"database: {revisions()[-1]}\n", "")] * 4


async def test_two_databases_of_one_process_at_once(postgres_server: EmbeddedPostgres, database_url: str) -> None:
    """Each is migrated itself, although alembic keeps its context in globals."""
    others = [f"{database_url.rpartition('/')[2]}_{n}" for n in range(3)]
    admin = await asyncpg.connect(database_url)
    try:
        for name in others:
            await admin.execute(f'CREATE DATABASE "{name}"')
        urls = [database_url, *map(postgres_server.url_for, others)]
        await asyncio.gather(*(upgrade(url) for url in urls))
        for url in urls:
            assert await ask(url, "SELECT version_num FROM alembic_version") == [(revisions()[-1],)]
    finally:
        for name in others:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await admin.close()


async def test_services_refuse_a_schema_that_is_behind(database_url: str) -> None:
    connection = await postgres.connect(database_url, name="test")
    try:
        assert await postgres.revision(connection) == ""
        with pytest.raises(postgres.SchemaBehind, match=f"revision none, this code needs {postgres.HEAD}"):
            await postgres.require_schema(connection)
        await upgrade(database_url)
        assert await postgres.require_schema(connection) == revisions()[-1]
        # A later one is fine: expand first, contract a release later.
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        assert await postgres.require_schema(connection) == "9999"
    finally:
        await postgres.close(connection)


def test_a_revision_that_is_not_known(database_url: str) -> None:
    with pytest.raises(MigrateError, match=r"revision '4711': .*Known are 0001.*, head, base"):
        migrate_sync(database_url, to="4711")


def test_the_sql_is_printed_without_a_database() -> None:
    text = statements()
    assert "CREATE TABLE trades" in text
    assert text.index("CREATE TABLE instruments") < text.index("INSERT INTO alembic_version")
    assert "DROP TABLE trades" in statements("base", down=True)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Any:
    monkeypatch.setenv("DATABASE_URL", database_url)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, ["migrate", *arguments])


def test_the_command(cli: Any, database_url: str) -> None:
    last = revisions()[-1]
    behind = cli("--status")
    assert behind.exit_code == 1
    assert behind.output.split() == ["database:", "none", "known:", last, "pending:", *", ".join(revisions()).split()]
    up = cli()
    assert (up.exit_code, up.output) == (0, f"database: {last}\n")
    assert cli("--status").exit_code == 0
    down = cli("--down", "base")
    assert (down.exit_code, down.output) == (0, "database: none\n")
    assert tables(database_url) == {"alembic_version"}
    assert cli("--to", "4711").exit_code == 2
    assert "CREATE TABLE trades" in cli("--sql").output


def test_the_command_names_what_is_wrong_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    monkeypatch.delenv("DATABASE_URL", raising=False)
    nothing = runner.invoke(app, ["migrate"])
    assert nothing.exit_code == 2
    assert "set DATABASE_URL" in nothing.output
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:planted-secret@127.0.0.1:1/none")
    away = runner.invoke(app, ["migrate"])
    assert away.exit_code == 2
    assert "refused" in away.output or "failed" in away.output
    assert "planted-secret" not in away.output
