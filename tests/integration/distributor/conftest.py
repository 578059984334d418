"""A shard on a real server, with a receiver's stand-in and distributors of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from feedmill.local.embedded import EmbeddedRedis

from .stage import Proxy, Stage


@pytest.fixture
async def stage(redis_server: EmbeddedRedis) -> AsyncIterator[Stage]:
    made = Stage(redis_server)
    yield made
    await made.close()


@pytest.fixture
async def proxy(redis_server: EmbeddedRedis) -> AsyncIterator[Proxy]:
    made = Proxy(redis_server)
    await made.start()
    yield made
    await made.close()
