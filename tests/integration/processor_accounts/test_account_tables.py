"""feedmill balances, orders, fills: what is stored, filtered, as table and as JSON."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg
import pytest
from account_stage import add_account
from typer.testing import CliRunner

from feedmill.cli.main import app
from feedmill.processor.accounts.store import AccountStore, Batch
from feedmill.shared.account_events import AccountBlock, Balance, Fill, OrderUpdate

HOUR = 3_600_000_000_000


def order(number: int, symbol: str, status: str, at: int) -> OrderUpdate:
    return OrderUpdate(
        symbol, f"o{number}", f"c{number}", 1, "limit", "gtc", "", None, "100.50", "", "2", "0", "", "", status,
        status != "new", "", at, at, at,
    )  # fmt: skip


def fill(number: int, symbol: str, at: int) -> Fill:
    return Fill(symbol, str(number), f"o{number}", "", 2, "", "100.50", "1", "", "-0.01", "USDT", True, "", at, at)


@pytest.fixture
def ask(migrated: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    async def fill_tables() -> None:
        now = time.time_ns()  # Not of the module: a run's tests are collected long before the last of them begins.
        db = await asyncpg.connect(migrated)
        try:
            await add_account(db, "main")
            await add_account(db, "other")
            for account in ("main", "other"):
                store = AccountStore(f"default/{account}")
                await store.load(db)
                batch = Batch()
                batch.add(
                    (1, "c"),
                    AccountBlock(
                        orders=[order(1, "BTC-USDT", "new", now), order(2, "ETH-USDT", "filled", now - 5 * HOUR)],
                        fills=[fill(1, "BTC-USDT", now), fill(2, "ETH-USDT", now - 5 * HOUR)],
                        balances=[
                            Balance("BTC", "1.50", "1", "0.50", "", now, now),
                            Balance("ETH", "0", "0", "0", "", now, now),
                        ],
                    ),
                )
                batch.stand(1, "c", "1-0")
                await store.commit(db, batch)
        finally:
            await db.close()

    asyncio.run(fill_tables())
    monkeypatch.setenv("DATABASE_URL", migrated)

    def run(*arguments: str) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, [*arguments, "-o", "json"])
        assert result.exit_code == 0, result.output
        return list(json.loads(result.stdout))

    return run


def test_what_is_stored_is_shown_and_filtered(ask: Any) -> None:
    assert [(row["account"], row["asset"], row["total"], row["locked"]) for row in ask("balances")] == [
        ("main", "BTC", "1.50", "0.50"), ("other", "BTC", "1.50", "0.50"),
    ]  # fmt: skip
    assert [row["asset"] for row in ask("balances", "--empty", "-a", "default/main")] == ["BTC", "ETH"]
    assert len(ask("orders")) == 4
    assert [(row["order_id"], row["price"], row["side"]) for row in ask("orders", "--open", "-a", "main")] == [
        ("o1", "100.50", "buy")
    ]
    assert [row["symbol"] for row in ask("orders", "-a", "main", "--since", "1h")] == ["BTC-USDT"]
    assert [row["symbol"] for row in ask("fills", "-a", "main")] == ["BTC-USDT", "ETH-USDT"], "latest first"
    assert [(row["trade_id"], row["fee"], row["role"]) for row in ask("fills", "-a", "main", "-i", "ETH-USDT")] == [
        ("2", "-0.01", "maker")
    ]
    assert [row["trade_id"] for row in ask("fills", "--order", "o2", "-a", "other")] == ["2"]
    assert [row["asset"] for row in ask("balances", "--asset", "btc", "-a", "main")] == ["BTC"]
    assert [row["order_id"] for row in ask("orders", "-i", "btc-usdt", "-a", "main")] == ["o1"]
    assert len(ask("fills", "-n", "3")) == 3


@pytest.mark.parametrize("command", ["balances", "orders", "fills"])
def test_an_account_that_is_not_there_is_told(ask: Any, command: str) -> None:
    result = CliRunner().invoke(app, [command, "-a", "nobody"])
    assert result.exit_code == 2
    assert "--account nobody: there is none of that name: feedmill accounts list" in result.output


def test_where_there_are_no_accounts_that_is_told(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated)
    result = CliRunner().invoke(app, ["orders", "-o", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == []
    assert result.stderr == "no accounts: feedmill accounts add makes one\n"


@pytest.mark.parametrize(("columns", "ids"), [("80", False), ("130", True)])
@pytest.mark.parametrize("command", ["balances", "orders", "fills"])
def test_a_row_is_a_line_whatever_the_width(
    ask: Any, monkeypatch: pytest.MonkeyPatch, command: str, columns: str, ids: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = CliRunner().invoke(app, [command, "-a", "main", "-o", "table"])
    assert result.exit_code == 0, result.output
    head, _, *rows, count = result.stdout.splitlines()
    assert max(map(len, (head, *rows))) <= int(columns)
    assert count == f"{len(rows)} row{'s' * (len(rows) != 1)}"
    assert ("order_id" in head) == (ids and command != "balances")


def test_a_table_says_that_there_is_more(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, ["fills", "-n", "1", "-o", "table"])
    assert result.exit_code == 0, result.output
    assert "BTC-USDT" in result.stdout
    assert "-0.01 USDT" in result.stdout
    assert "--limit shows more" in result.stdout


def test_a_duration_that_is_none_is_refused(ask: Any) -> None:
    result = CliRunner().invoke(app, ["orders", "--since", "yesterday"])
    assert result.exit_code == 2
    assert "60s, 5m or 1h" in result.output
