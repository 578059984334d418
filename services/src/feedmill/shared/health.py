"""Health of one process: liveness, readiness, detail and metrics over a small aiohttp server.

``/healthz`` answers as long as the event loop turns (it never asks Redis or PostgreSQL); ``/readyz`` is 200 when every
registered condition holds; ``/health`` gives the detail; ``/metrics`` the Prometheus text, or OpenMetrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from feedmill.shared.log import get_logger

Detail = Callable[[], Mapping[str, Any]]
Condition = Callable[[], tuple[bool, str]]
"""(holds, why not or what is)."""


class Health:
    """Register conditions and details; read them as one document."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._conditions: dict[str, Condition] = {}
        self._details: dict[str, Detail] = {}
        self._faulty: set[str] = set()
        """Sections whose reading has failed, told once."""

    def condition(self, name: str, check: Condition) -> None:
        """Add a readiness condition. It must be quick and must not do I/O."""
        self._conditions[name] = check

    def detail(self, name: str, read: Detail) -> None:
        """Add a section to ``/health`` (redis, postgres, lag, freshness, breaker, ...). No I/O, no secrets."""
        self._details[name] = read

    def ready(self) -> tuple[bool, dict[str, str]]:
        whys: dict[str, str] = {}
        for name, check in self._conditions.items():
            holds, why = check()
            if not holds:
                whys[name] = why
        return not whys, whys

    def document(self) -> dict[str, Any]:
        ready, whys = self.ready()
        document: dict[str, Any] = {"service": self.service, "ready": ready, "waitingFor": whys}
        for name, read in self._details.items():
            try:
                document[name] = dict(read())
            except Exception as error:
                # A fault in one section must not take the others from those who look for what is wrong.
                document[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
                if name not in self._faulty:
                    self._faulty.add(name)
                    get_logger().exception("health.section_failed", section=name)
        return document


class HealthServer:
    """Serves a :class:`Health` on ``host``:``port`` (0 = any free port; see ``port`` after start)."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        self.health = health
        self._host = host
        self.port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready, whys = self.health.ready()
        body = "ready\n" if ready else "".join(f"{name}: {why}\n" for name, why in whys.items())
        return web.Response(text=body, status=200 if ready else 503)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.health.document()), content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        # OpenMetrics, which has the exemplars, where it is asked for (Prometheus does).
        render, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=render(REGISTRY), headers={"Content-Type": content_type})
