"""What a key may do, asked of the simulator over the network."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from feedmill.accounts.asking import KeyRefused, NotTold, RightsReader
from feedmill.accounts.hygiene import KeyReader, Level, Permissions, judge
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
Start = Callable[[str], AbstractAsyncContextManager[tuple[Any, Mapping[str, str], dict[str, SecretStr], KeyReader]]]


@pytest.fixture
def venue(tmp_path: Path) -> Start:
    """(simulator, endpoints, secrets of its first account, reader)."""

    @asynccontextmanager
    async def start(name: str) -> AsyncIterator[Any]:
        made = VenueConfig(name, limits=default_limits(name), rate=1, accounts=1, account_rate=0.0)
        async with Simulator(SimulatorConfig((made,), ledger=tmp_path / "ledger", id_base=1000)) as sim:
            key = sim.venues[name].private.keys.written(0)[0]
            secrets = {field: SecretStr(key[field]) for field in ("apiKey", "apiSecret")}
            reader: KeyReader = RightsReader(*name.split("/"))
            yield sim, {"rest": sim.endpoints[name][1]}, secrets, reader

    return start


@pytest.mark.parametrize("name", VENUES)
async def test_rights_are_read_and_judged(venue: Start, name: str) -> None:
    async with venue(name) as (sim, endpoints, secrets, read):
        found = await read(endpoints, "Production", secrets)
        assert (found.read, found.trade, found.withdraw) == (True, False, False)
        account = next(iter(sim.venues[name].private.accounts))
        sim.venues[name].private.change_key(account, {"withdraw": True, "seconds": 3600})
        found = await read(endpoints, "Production", secrets)
        assert found.withdraw is True
        verdict = judge(found, allow_withdraw=False, now_ns=time.time_ns())
        assert verdict.level is Level.REFUSED
        assert "may withdraw" in str(verdict)


@pytest.mark.parametrize("name", VENUES)
async def test_a_clock_that_is_wrong_is_no_wrong_key(venue: Start, name: str) -> None:
    async with venue(name) as (sim, endpoints, secrets, read):
        sim.fault("skew", seconds=-120)
        assert (await read(endpoints, "Production", secrets)).read is True
        for wrong in ({"apiSecret": SecretStr("PlantedWrongSecret")}, {"apiKey": SecretStr("PlantedWrongKey")}):
            with pytest.raises(KeyRefused) as refused:
                await read(endpoints, "Production", secrets | wrong)
            assert refused.value.verdict.level is Level.REFUSED
            assert "Planted" not in str(refused.value)
            assert "rotate-key" in str(refused.value)


@pytest.mark.parametrize("name", VENUES)
async def test_a_venue_that_is_away_says_nothing_of_the_key(venue: Start, name: str) -> None:
    async with venue(name) as (sim, endpoints, secrets, read):
        sim.fault("rest_429", count=1, seconds=3)
        with pytest.raises(NotTold, match="too many requests"):
            await read(endpoints, "Production", secrets)
        sim.fault("rest_500", count=1)
        with pytest.raises(NotTold):
            await read(endpoints, "Production", secrets)
    with pytest.raises(NotTold) as away:
        await read(endpoints, "Production", secrets)
    assert "ConnectorError" in str(away.value) or "Disconnected" in str(away.value)
    for secret in secrets.values():
        assert secret.get_secret_value() not in str(away.value)
    assert away.value.__cause__ is None


async def test_a_market_that_does_not_answer_the_question(venue: Start) -> None:
    async with venue("binance/Spot") as (_, endpoints, secrets, read):
        assert isinstance(read, RightsReader)
        asks = read._accounts.ask_rights
        read._accounts = replace(
            read._accounts,
            ask_rights=lambda *args: replace(
                asks(*args), url=SecretStr(endpoints["rest"] + "/sapi/v1/account/nothingOfTheKind")
            ),
        )
        assert await read(endpoints, "Production", secrets) == Permissions()


def test_an_unknown_market_is_said_at_once() -> None:
    with pytest.raises(LookupError, match="binance/Nope"):
        RightsReader("binance", "Nope")
