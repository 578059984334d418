"""Fixtures every test may use: real servers on 127.0.0.1, fresh data, all stopped at the end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, settings
from redis.asyncio.connection import AbstractConnection

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis, files
from feedmill.shared import log
from feedmill.shared.tracing import TRACES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from feedmill.shared.otlp import Sender

# No example is judged by its speed: a busy machine is slow now and then. A change is judged (.ci/run) by the same
# examples each time, so that it is not refused for what another one brought; every other run draws new ones.
settings.register_profile(
    "feedmill",
    deadline=None,
    derandomize="FEEDMILL_JUDGED" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("feedmill")


# A machine may stand still for longer than the 5 s that redis-py waits where nothing is said. The product's clients set
# their own time, so only those of the tests themselves are meant.
inspect.unwrap(AbstractConnection.__init__).__kwdefaults__["socket_timeout"] = 60


# What nobody set up a log for is printed where pytest gathers it, not among what a command in this process says.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.__stderr__))


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The log that a test sets up for its process (a service's command within it does) ends with the test, and so do
    the secrets it made known: no other one reads its lines among its own."""
    root, quiet = logging.getLogger(), log._threshold
    handlers, level, form = root.handlers, root.level, structlog.get_config()
    finishes: list[Callable[[], None]] = []
    set_up = log.configure

    def configure(*args: Any, **kwargs: Any) -> Callable[[], None]:
        finishes.append(set_up(*args, **kwargs))
        return finishes[-1]

    monkeypatch.setattr(log, "configure", configure)
    monkeypatch.setattr(log, "_secrets", log._secrets.copy())
    yield
    log._threshold = quiet
    root.setLevel(level)
    for finish in finishes:
        finish()
    if finishes:
        root.handlers = handlers
        structlog.configure(**form)
        structlog.contextvars.clear_contextvars()


def own_ports() -> tuple[int, int]:
    """Of several processes that run tests each has ports of its own: a server that a test stops and starts again finds
    its port as it left it."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first, last = files._PORTS
    share = (last - first) // count
    return first + number * share, first + (number + 1) * share


files._PORTS = own_ports()


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
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from feedmill.shared.otlp import Sender

    monkeypatch.setattr("feedmill.shared.otlp.TIMEOUT", 60.0)  # All are wanted, however busy the machine is.
    exporter = InMemorySpanExporter()
    sender = Sender("http://127.0.0.1:1", "feedmill-test", "test", exporter=exporter)
    TRACES.use(sender, 100)
    try:
        yield Traced(sender, exporter)
    finally:
        TRACES.use(None, 0)
        sender.close()


@dataclass(frozen=True)
class SentSpan:
    """A span as the collector got it. Ids are hexadecimal, times ns."""

    service: str
    instance: str
    name: str
    trace: str
    id: str
    parent: str
    """Empty: it begins the trace."""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    error: str
    """Empty: it did not fail."""


class Collector:
    """An OTLP collector over HTTP that keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    bodies.append(body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Once and for all; a second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def spans(self) -> list[SentSpan]:
        """All it was sent until now."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found: list[SentSpan] = []
        for body in list(self.bodies):
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _attributes(each.resource.attributes)
                names = resource["service.name"], resource["service.instance.id"]
                for span in (span for scope in each.scope_spans for span in scope.spans):
                    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                    times = span.start_time_unix_nano, span.end_time_unix_nano
                    events = [(event.name, event.time_unix_nano) for event in span.events]
                    error = (
                        (span.status.message or "failed") if span.status.code == span.status.STATUS_CODE_ERROR else ""
                    )
                    found.append(SentSpan(*names, span.name, *ids, *times, _attributes(span.attributes), events, error))
        return found


def _attributes(pairs: Any) -> dict[str, Any]:
    def value(of: Any) -> Any:
        kind = of.WhichOneof("value")
        return [value(item) for item in of.array_value.values] if kind == "array_value" else getattr(of, kind)

    return {pair.key: value(pair.value) for pair in pairs}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    try:
        yield made
    finally:
        made.stop()


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
