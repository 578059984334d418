"""Flow control: reading rests while the process's memory is used up, and connections end when that lasts too long.

A venue cuts a client that does not read for about a minute, and what waits in the kernel is stale by then. So after
``pause_limit`` seconds every connection is closed with a Disconnected record (cause ``backpressure``: the distributor
makes gaps of it) and none is made until there is room again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from feedmill.receiver import metrics
from feedmill.receiver.link import Link
from feedmill.shared.budget import ByteBudget
from feedmill.shared.clock import monotonic

CAUSE = "backpressure"


class Flow:
    def __init__(self, budget: ByteBudget, pause_limit: float, log: Any) -> None:
        self._budget = budget
        self._limit = pause_limit
        self._log = log
        self.links: set[Link] = set()
        self.room = asyncio.Event()
        """Set while connections may be made."""
        self._changed = asyncio.Event()
        self._full_since = 0.0
        self.closed_for_room = False
        if not budget.full:
            self.room.set()
        budget.listen(self._on_budget)

    @property
    def held_for(self) -> float:
        """Seconds reading has been resting, 0 when it is not."""
        return monotonic() - self._full_since if self._budget.full else 0.0

    def add(self, link: Link) -> None:
        self.links.add(link)
        link.connection.hold(self._budget.full)

    def remove(self, link: Link) -> None:
        self.links.discard(link)

    def _on_budget(self, full: bool) -> None:
        if full:
            self._full_since = monotonic()
            self.room.clear()
        else:
            metrics.paused_seconds.inc(monotonic() - self._full_since)
            self.closed_for_room = False
            self.room.set()
        for link in self.links:
            link.connection.hold(full)
        self._changed.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._changed.clear()
            if not self._budget.full or self.closed_for_room:
                await self._changed.wait()
                continue
            left = self._limit - self.held_for
            if left > 0:
                try:
                    async with asyncio.timeout(left + 0.001):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            self.closed_for_room = True
            self._log.error(
                "backpressure.disconnect", paused_seconds=round(self.held_for, 1), held_bytes=self._budget.used,
                budget_bytes=self._budget.limit, effect="connections are closed until Redis takes data again",
            )  # fmt: skip
            await asyncio.gather(
                *(link.close(CAUSE, f"memory used up for {self._limit:g} s") for link in tuple(self.links))
            )

    def stop(self) -> None:
        self._budget.unlisten(self._on_budget)
