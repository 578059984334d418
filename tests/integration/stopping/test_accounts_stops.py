"""SIGTERM to a member of the pool of account receivers, whatever it is doing and whoever does not answer."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.store import Name, NewAccount
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig

from .places import BlackHole, Place, Service, frozen, until

pytestmark = pytest.mark.slow
VENUE = "binance/UsdM"


@dataclass
class Accounts:
    """Two of a simulated exchange, in the credential store."""

    place: Place
    simulator: Simulator
    kek: Path

    @property
    def side(self) -> Any:
        return self.simulator.venues[VENUE].private

    async def member(self, **urls: str) -> Service:
        return await self.place.start("accounts", "--kek-file", str(self.kek), **urls)

    async def listened(self) -> Service:
        service = await self.member()
        await service.shows(lambda found: found["accounts"]["listening"] == 2)
        return service

    async def step(self, count: int) -> None:
        self.side.step(count)
        await self.simulator.drained()


@pytest.fixture
async def accounts(place: Place) -> AsyncIterator[Accounts]:
    kek = place.folder / "kek"
    kek.touch(0o600)
    kek.write_text(f"test {base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    made = VenueConfig(VENUE, rate=1, accounts=2, account_rate=0.0)
    async with Simulator(SimulatorConfig((made,), ledger=place.folder / "ledger")) as simulator:
        stream, rest = simulator.endpoints[VENUE]
        connection = await asyncpg.connect(place.database_url)
        side = simulator.venues[VENUE].private
        for account in side.accounts:
            key = next(key for key in side.keys.of(account) if key.kind == "hmac")
            given = {"apiKey": SecretStr(key.id), "apiSecret": SecretStr(key.secret)}
            new = NewAccount(Name.parse(account), "binance", "UsdM", endpoints={"stream": stream, "rest": rest})
            await store.add(connection, KeyFile(kek).ring(), new, given, Who.here("test"))
        await connection.close()
        yield Accounts(place, simulator, kek)


@pytest.mark.parametrize("server", ["redis", "postgres", "both"])
async def test_while_connecting_to_a_server_that_says_nothing(accounts: Accounts, hole: BlackHole, server: str) -> None:
    place = accounts.place
    urls = {}
    if server != "postgres":
        urls["redis_url"] = place.redis_at(hole.address)
    if server != "redis":
        urls["database_url"] = place.database_at(hole.address)
    service = await accounts.member(**urls)
    await service.said("accounts.start")
    assert await service.end() == 0, service.text
    service.assert_clean()


@pytest.mark.parametrize("server", ["redis", "postgres", "both"])
async def test_while_a_server_does_not_answer(accounts: Accounts, server: str) -> None:
    service = await accounts.listened()
    await accounts.step(30)
    with ExitStack() as stack:
        if server != "postgres":
            stack.enter_context(frozen(accounts.place.redis))
        if server != "redis":
            stack.enter_context(frozen(accounts.place.postgres))
        await accounts.step(30)
        assert await service.end() == 0, service.text
    service.assert_clean()
    # The next one has it all.
    await _next_has_all(accounts)


async def _next_has_all(accounts: Accounts) -> None:
    ledger = accounts.place.folder / "ledger" / "binance-UsdM.fills.tsv"
    emitted = len(ledger.read_text().splitlines())
    assert emitted > 10
    service = await accounts.member()
    query = "SELECT count(*) FROM fills"

    async def all_there() -> bool:
        return bool((await accounts.place.fetch(query))[0] == emitted)

    await service.shows(lambda found: found["accounts"]["listening"] == 2)
    await until(all_there)
    assert await service.end() == 0, service.text
    service.assert_clean()


async def test_while_much_is_under_way_all_that_was_heard_is_stored(accounts: Accounts) -> None:
    service = await accounts.listened()
    await accounts.step(300)
    assert await service.end() == 0, service.text
    service.assert_clean()
    assert "accounts.not_drained" not in service.events()
    ledger = accounts.place.folder / "ledger" / "binance-UsdM.fills.tsv"
    [stored] = await accounts.place.fetch("SELECT count(*) FROM fills")
    assert stored == len(ledger.read_text().splitlines()) > 50
