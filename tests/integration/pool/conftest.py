"""A pool of account receivers in this process, on real servers and a simulated exchange."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from feedmill.local.embedded import EmbeddedRedis

sys.path.insert(0, str(Path(__file__).parent))
from pool_stage import Bed, bedded

Start = Callable[..., Awaitable[Bed]]


@pytest.fixture
async def start_bed(redis_server: EmbeddedRedis, database_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    """``await start_bed("binance/Spot", ...)`` -> a :class:`Bed` whose accounts are in no list yet."""
    async with AsyncExitStack() as stack:

        async def start(*venues: str, accounts: int = 2, limited: bool = False) -> Bed:
            return await stack.enter_async_context(
                bedded(venues, accounts, redis_server, database_url, tmp_path, limited=limited)
            )

        yield start
