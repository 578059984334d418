"""Memory and loop lag of every service while faults go on, whatever process it is at the time."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

import aiohttp

from feedmill.local.manager import ServiceManager
from feedmill.local.usage import rss_bytes

EVERY = 0.1
LAG_EVERY = 5.0
"""Seconds; the services' own gauge says the worst of the last minute."""
_LAG = "feedmill_process_loop_lag_max_seconds "


class Watch:
    """Samples from ``async with`` to its end."""

    def __init__(self, manager: ServiceManager, http: aiohttp.ClientSession, every: float = EVERY) -> None:
        self._manager = manager
        self._http = http
        self._every = every
        self._tasks: list[asyncio.Task[None]] = []
        self.peak: dict[str, int] = {}
        """Service -> bytes."""
        self.now: dict[str, int] = {}
        self.lag: dict[str, float] = {}
        """Service -> the most that its event loop was late, seconds."""

    def of_roles(self, of_services: dict[str, int]) -> dict[str, int]:
        """Role -> the most of its services."""
        found: dict[str, int] = {}
        for item in self._manager.status().services:
            if item.name in of_services:
                found[item.role] = max(found.get(item.role, 0), of_services[item.name])
        return found

    def lag_ms(self) -> dict[str, int]:
        """Role -> milliseconds."""
        return self.of_roles({name: round(1000 * value) for name, value in self.lag.items()})

    async def _memory(self) -> None:
        names = [item.name for item in self._manager.status().services]
        while True:
            for name in names:
                size = rss_bytes(self._manager.service(name).pid)
                if size is not None:
                    self.now[name] = size
                    self.peak[name] = max(self.peak.get(name, 0), size)
            await asyncio.sleep(self._every)

    async def look_at_lag(self) -> None:
        """Once, at all that answer."""
        for name, port in self._manager.ports().items():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
                timeout = aiohttp.ClientTimeout(total=1.0)
                async with self._http.get(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as answer:
                    for line in (await answer.text()).splitlines():
                        if line.startswith(_LAG):
                            self.lag[name] = max(self.lag.get(name, 0.0), float(line.removeprefix(_LAG)))

    async def _lag(self) -> None:
        while True:
            await asyncio.sleep(LAG_EVERY)
            await self.look_at_lag()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._memory()), asyncio.create_task(self._lag())]
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
