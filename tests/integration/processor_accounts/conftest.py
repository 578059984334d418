"""A database with the schema."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from feedmill.cli.migrate import migrate_sync

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "processor")]


@pytest.fixture
def migrated(database_url: str) -> str:
    migrate_sync(database_url)
    return database_url
