"""The reconcilers as they are wired, on an API server in memory and by a virtual clock: hours pass in no time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "operator_status"))
sys.path.insert(0, str(Path(__file__).parent.parent / "operator_core"))
sys.path.insert(0, str(Path(__file__).parent))

from flow_world import World
from virtual_loop import VirtualLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What waits is due at once; a test that waits for what will never be fails at once."""
    return {"virtual": VirtualLoop}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An operator at work in an empty namespace ``ns``."""
    made = World()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
