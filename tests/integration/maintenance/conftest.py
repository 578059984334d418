"""A database with our tables, and a session on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.shared import postgres


@pytest.fixture
def migrated(database_url: str) -> str:
    migrate_sync(database_url)
    return database_url


@pytest.fixture
async def connection(migrated: str) -> AsyncIterator[asyncpg.Connection]:
    made = await postgres.connect(migrated, name="test")
    yield made
    made.terminate()
