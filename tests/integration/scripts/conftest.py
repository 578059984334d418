"""One server for the examples of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feedmill.local.embedded import EmbeddedRedis

from .servers import Server


@pytest.fixture
def server(redis_server: EmbeddedRedis) -> Iterator[Server]:
    made = Server(redis_server.url)
    yield made
    made.close()
