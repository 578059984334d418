"""Memory of every service while faults go on, whatever process it is at the time."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from feedmill.local.manager import ServiceManager
from feedmill.local.usage import rss_bytes

EVERY = 0.1


class Watch:
    """Samples from ``async with`` to its end."""

    def __init__(self, manager: ServiceManager, every: float = EVERY) -> None:
        self._manager = manager
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self.peak: dict[str, int] = {}
        """Service -> bytes."""

    def peak_of_roles(self) -> dict[str, int]:
        """Role -> the most that one of its services took, bytes."""
        found: dict[str, int] = {}
        for item in self._manager.status().services:
            if item.name in self.peak:
                found[item.role] = max(found.get(item.role, 0), self.peak[item.name])
        return found

    async def _run(self) -> None:
        names = [item.name for item in self._manager.status().services]
        while True:
            for name in names:
                size = rss_bytes(self._manager.service(name).pid)
                if size is not None:
                    self.peak[name] = max(self.peak.get(name, 0), size)
            await asyncio.sleep(self._every)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
