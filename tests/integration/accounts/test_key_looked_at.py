"""``feedmill accounts add`` and ``rotate-key`` ask the exchange what a key may do before they store it."""

from __future__ import annotations

import asyncio
import base64
import secrets as random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from feedmill.cli.main import app
from feedmill.cli.migrate import migrate_sync
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

SPOT = "binance/Spot"
Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def sim(tmp_path: Path) -> AsyncIterator[Any]:
    made = VenueConfig(SPOT, limits=default_limits(SPOT), rate=1, accounts=1, account_rate=0.0)
    async with Simulator(SimulatorConfig((made,), ledger=tmp_path / "ledger", id_base=1000)) as running:
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path, sim: Any) -> Run:
    migrate_sync(database_url)
    kek = tmp_path / "kek"
    kek.write_text(f"k1 {base64.b64encode(random.token_bytes(32)).decode()}\n")
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("FEEDMILL_KEK_FILE", str(kek))

    async def invoke(*arguments: str, given: str, code: int = 0) -> str:
        command = ["accounts", *arguments, "--secret-file", "-"]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, input=given)
        assert result.exit_code == code, result.output
        assert "planted" not in result.output
        return str(result.output)

    return invoke


def at(sim: Any) -> tuple[str, ...]:
    return ("--exchange", "binance", "--market", "Spot", "--rest-endpoint", sim.endpoints[SPOT][1])


def key_of(sim: Any) -> dict[str, str]:
    key: dict[str, str] = sim.venues[SPOT].private.keys.written(0)[0]
    return key


def text(key: dict[str, str]) -> str:
    return f"apiKey={key['apiKey']}\napiSecret={key['apiSecret']}\n"


async def rows(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def test_a_good_key_is_stored_with_what_is_known_of_it(run: Run, sim: Any, database_url: str) -> None:
    said = await run("add", "main", *at(sim), given=text(key_of(sim)))
    assert "added default/main" in said
    assert "the key works from any address" in said
    assert await rows(database_url, "SELECT verdict, checked_at IS NOT NULL FROM accounts") == [("warning", True)]
    actions = await rows(database_url, "SELECT action FROM audit_log ORDER BY id")
    assert actions == [("add",), ("store-key",), ("check-key",)]


async def test_a_key_that_is_wrong_or_may_withdraw_is_not_stored(run: Run, sim: Any, database_url: str) -> None:
    good = key_of(sim)
    said = await run("add", "main", *at(sim), given=text(good | {"apiSecret": "plantedWrong"}), code=2)
    assert "default/main: nothing is stored" in said or "main: nothing is stored" in said
    account = next(iter(sim.venues[SPOT].private.accounts))
    sim.venues[SPOT].private.change_key(account, {"withdraw": True})
    said = await run("add", "main", *at(sim), given=text(good), code=2)
    assert "the key may withdraw: take that right away at the exchange" in said
    assert "--no-check" in said
    assert await rows(database_url, "SELECT name FROM accounts") == []
    assert await rows(database_url, "SELECT action FROM audit_log") == []
    said = await run("add", "main", *at(sim), "--allow-withdraw", given=text(good))
    assert "allowed by your policy" in said
    assert await rows(database_url, "SELECT verdict FROM accounts") == [("warning",)]


async def test_a_wrong_new_key_does_not_take_the_place_of_the_old_one(run: Run, sim: Any, database_url: str) -> None:
    good = key_of(sim)
    await run("add", "main", *at(sim), given=text(good))
    before = await rows(database_url, "SELECT field, version, ciphertext FROM credentials ORDER BY field")
    await run("rotate-key", "main", given=text(good | {"apiSecret": "plantedWrong"}), code=2)
    assert await rows(database_url, "SELECT field, version, ciphertext FROM credentials ORDER BY field") == before
    assert "version 2" in await run("rotate-key", "main", given=text(good))


async def test_an_exchange_that_does_not_answer_keeps_no_key_out(run: Run, sim: Any, database_url: str) -> None:
    sim.fault("rest_500", count=20)
    said = await run("add", "main", *at(sim), given=text(key_of(sim)))
    assert "the key was not looked at" in said
    assert "before its first use" in said
    assert await rows(database_url, "SELECT verdict, checked_at FROM accounts") == [("unknown", None)]
