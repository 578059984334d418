"""Fixtures every test may use: real servers on 127.0.0.1, fresh data, all stopped at the end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import uvloop
from hypothesis import HealthCheck, settings

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.shared.tracing import TRACES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from feedmill.shared.otlp import Sender

# No example is judged by its speed: a busy machine is slow now and then.
settings.register_profile("feedmill", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("feedmill")


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production, for every asynchronous test: it differs in what it makes of a socket's end."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Traced:
    """Tracing that is on in this process: every batch that may begin a trace does."""

    sender: Sender
    exporter: InMemorySpanExporter

    def spans(self) -> list[ReadableSpan]:
        """All that have ended, in the order in which they did. Tracing is off from here on."""
        TRACES.use(None, 0)
        self.sender.close()
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def traced() -> Iterator[Traced]:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from feedmill.shared.otlp import Sender

    exporter = InMemorySpanExporter()
    sender = Sender("http://127.0.0.1:1", "feedmill-test", "test", exporter=exporter)
    TRACES.use(sender, 100)
    try:
        yield Traced(sender, exporter)
    finally:
        TRACES.use(None, 0)
        sender.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A running Redis with an empty append-only file: ``.url .stop() .start() .kill() .aof_dir``."""
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One running PostgreSQL for the whole test run (fsync off). Use ``database_url`` for a database of your own."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), fsync=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def _admin(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.url_for("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """URL of a fresh, empty database, dropped after the test (open connections are cut)."""
    postgres_server.start()  # Does nothing unless a test left it stopped or killed.
    name = f"test_{secrets.token_hex(6)}"
    asyncio.run(_admin(postgres_server, f'CREATE DATABASE "{name}"'))
    try:
        yield postgres_server.url_for(name)
    finally:
        postgres_server.start()
        asyncio.run(_admin(postgres_server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
