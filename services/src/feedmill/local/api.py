"""The manager's HTTP API on loopback: health, readiness, metrics and status. Read only; no secret is in any answer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from feedmill import __version__
from feedmill.local import exposition, health, targets
from feedmill.local.embedded.files import write_private
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager
from feedmill.local.status import ServiceStatus

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FAMILIES: tuple[tuple[str, str, str, Callable[[ServiceStatus], int | None]], ...] = (
    ("up", "gauge", "1 when the service's process runs.", lambda item: item.state == "running"),
    ("ready", "gauge", "1 when the service says it is ready.", lambda item: item.ready),
    ("restarts_total", "counter", "Times it was started again.", lambda item: item.restarts),
    ("rss_bytes", "gauge", "Resident memory.", lambda item: item.rss_bytes),
)
"""What ``/metrics`` tells of each service: feedmill_local_service_<first>, type, help, its value."""


def make_app(manager: ServiceManager) -> FastAPI:
    """The application over one manager."""
    app = FastAPI(title="Feedmill local mode", version=__version__)
    # A page in the user's browser must not reach us under a name of its own (DNS rebinding).
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.get("/healthz")
    async def healthz() -> Response:
        """200 as long as the event loop turns."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        """200 when every service is ready, else 503 with what is waited for, one a line."""
        status = manager.status()
        if status.ready:
            return Response("ready\n", media_type="text/plain")
        lines = [f"{status.phase}{': ' + status.step if status.step else ''}"]
        for item in status.services:
            if not item.ready:
                why = "; ".join(f"{name}: {text}" for name, text in item.waiting_for.items()) or item.last_error
                lines.append(f"{item.name}: {item.state}{' (' + why + ')' if why else ''}")
        return Response("".join(f"{line}\n" for line in lines), status_code=503, media_type="text/plain")

    @app.get("/health")
    async def aggregated() -> dict[str, Any]:
        """Everything, asked at once with time-outs; null = did not answer."""
        return await health.document(manager)

    @app.get("/status")
    async def status() -> dict[str, Any]:
        """``ServiceManager.status()``."""
        return dataclasses.asdict(manager.status())

    @app.get("/targets")
    async def scrape() -> list[dict[str, Any]]:
        """The services, for Prometheus' HTTP service discovery, with the labels they have on a cluster."""
        return targets.targets("127.0.0.1", manager.scraped())

    @app.get("/metrics")
    async def metrics() -> Response:
        """The metrics of all services, each sample with its ``process``, and the manager's own."""
        ports = manager.ports()
        texts = await manager.prober.metrics(ports.values()) if manager.phase != "waiting" else {}
        found = {name: text for name, port in ports.items() if (text := texts.get(port)) is not None}
        return Response(own_metrics(manager) + exposition.join(found), media_type=METRICS_TYPE)

    return app


def own_metrics(manager: ServiceManager) -> str:
    """What the manager knows of its services, as Prometheus text."""
    services = manager.status().services
    lines: list[str] = []
    for what, kind, text, read in FAMILIES:
        name = f"feedmill_local_service_{what}"
        known = [(item.name, value) for item in services if (value := read(item)) is not None]
        if known:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f'{name}{{process="{exposition.escape(service)}"}} {int(value)}' for service, value in known]
    return "".join(f"{line}\n" for line in lines)


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: they belong to the command."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


class ApiServer:
    """Serves the API from the running event loop. ``port`` is known after ``start``; ``run/api.port`` holds it."""

    def __init__(self, manager: ServiceManager, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self.manager = manager
        self.host = host
        self.port = port
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._port_file: Path = manager.run_dir / "api.port"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Bind and serve; raises ManagerError when the port is taken."""
        listener = socket.socket()
        if self.port:
            # Of a free one the system would give two programs the same, as neither listens yet.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
            listener.listen()
        except OSError as error:
            listener.close()
            raise ManagerError(
                f"--api-port {self.port}: {error.strerror}: choose another, or 0 for any free one"
            ) from error
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(self.manager), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="api")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 (uvicorn offers no event for it)
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task
        write_private(self._port_file, f"{self.port}\n")

    async def stop(self) -> None:
        """Bounded: open requests get one second."""
        if self._task is None or self._server is None:
            return
        self._port_file.unlink(missing_ok=True)
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._task}, timeout=3.0)
        if not done:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
