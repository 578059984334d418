"""Places where services run and are stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig

from .places import BlackHole, Place


@pytest.fixture
def migrated(database_url: str) -> str:
    migrate_sync(database_url)
    return database_url


@pytest.fixture
async def place(
    tmp_path: Path, redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, migrated: str
) -> AsyncIterator[Place]:
    made = Place(tmp_path, redis_server, postgres_server, migrated)
    yield made
    await made.close()


@pytest.fixture
async def hole() -> AsyncIterator[BlackHole]:
    async with BlackHole() as made:
        yield made


@pytest.fixture
async def exchange(place: Place) -> AsyncIterator[Simulator]:
    """A simulated exchange that the place's manifests name."""
    config = SimulatorConfig((VenueConfig("binance/Spot", rate=200),), ledger=place.folder / "ledger")
    async with Simulator(config) as simulator:
        place.stream, place.rest = simulator.endpoints["binance/Spot"]
        yield simulator
