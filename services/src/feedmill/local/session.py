"""One run of local mode from start to end: manager, API, display, signals. ``up`` and ``demo`` are made of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from feedmill.local.account_figures import PoolSeen
from feedmill.local.drain import DrainReport
from feedmill.local.errors import ManagerError
from feedmill.local.figures import Collector, FeedFigures
from feedmill.local.manager import ServiceManager
from feedmill.local.notices import Notices
from feedmill.local.stored import Stored, count
from feedmill.local.view import Display
from feedmill.resources.feed import ExchangeFeed

if TYPE_CHECKING:
    from feedmill.local.api import ApiServer

REFRESH = 0.5
API_PORT = 8321
"""Wanted first; any free one where it is taken."""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    drain: DrainReport = field(default_factory=DrainReport)
    before: Stored | None = None
    after: Stored | None = None
    figures: list[FeedFigures] = field(default_factory=list)
    """The last ones while it was running."""
    interrupted: bool = False
    seconds: float = 0.0
    database: str = ""
    """Address of the user's own database, empty where it is the embedded one."""


During = Callable[["LocalSession"], Awaitable[None]]
AtEnd = Callable[[], Awaitable[None]]


class LocalSession:
    """``stop`` set = drain and end; set twice (``stop_now``) = end without draining."""

    def __init__(
        self,
        manager: ServiceManager,
        feeds: Sequence[ExchangeFeed],
        display: Display,
        *,
        api_port: int | None,
        accounts: PoolSeen | None = None,
    ) -> None:
        """``api_port``: 0 = any free one, None = :data:`API_PORT` or any free one. ``accounts``: kept up to date."""
        self.manager = manager
        self.feeds = list(feeds)
        self.display = display
        self.stop = asyncio.Event()
        self.outcome = Outcome()
        self.api_url = ""
        self._api_port = api_port
        self._accounts = accounts
        self._starting: asyncio.Task[None] | None = None

    # signals
    def interrupt(self) -> None:
        """First time: an orderly end. Second time: now."""
        if not self.stop.is_set():
            self.outcome.interrupted = True
            self.stop.set()
            if self._starting is not None:
                self._starting.cancel()
            self.display.say("stopping in order (once more = now)")
        else:
            self.display.say("stopping now")
            self.manager.force()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.interrupt)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    # life
    async def run(self, during: During, at_end: AtEnd | None = None) -> Outcome:
        """Start, await ``during`` (cancelled when stop is asked for), drain, stop; always leaves nothing running.

        ``at_end`` is awaited when all services have ended and PostgreSQL still runs.
        Raises what the start raises (ManagerError, EmbeddedError, ...); an interrupted start just ends.
        """
        manager = self.manager
        collector: Collector | None = None
        api: ApiServer | None = None
        watch: asyncio.Task[None] | None = None
        self.display.start()
        try:
            with self._signals():
                if not await self._start():
                    return self.outcome
                try:
                    api = await self._start_api()
                    collector = Collector(self.feeds, lambda: manager.servers.database_url)
                    watch = asyncio.create_task(self._watch(collector), name="watch")
                    await self._during(during)
                finally:
                    self.stop.set()
                    self.outcome.drain = await manager.stop(before_servers=lambda: self._finish(at_end))
                    self.outcome.seconds = manager.status().uptime_seconds
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            if collector is not None:
                await collector.close()
            if api is not None:
                await api.stop()
            self.display.stop()
        return self.outcome

    async def _start(self) -> bool:
        self._starting = asyncio.create_task(self.manager.start(before_services=self._count_before))
        try:
            await self._starting
        except asyncio.CancelledError:
            if not self.outcome.interrupted:
                self._starting.cancel()
                await asyncio.gather(self._starting, return_exceptions=True)
                raise
            return False
        finally:
            self._starting = None
        return True

    async def _start_api(self) -> ApiServer:
        # Imported here: it takes as long as all the rest together, and the servers are starting meanwhile.
        from feedmill.local.api import ApiServer

        api = ApiServer(self.manager, port=API_PORT if self._api_port is None else self._api_port)
        try:
            await api.start()
        except ManagerError:
            if self._api_port is not None:
                raise
            api = ApiServer(self.manager, port=0)
            await api.start()
        self.api_url = api.url
        return api

    async def _during(self, during: During) -> None:
        work = asyncio.ensure_future(during(self))
        asked = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            for task in (work, asked):
                task.cancel()
            await asyncio.gather(work, asked, return_exceptions=True)

    async def _count_before(self) -> None:
        self.outcome.before = await count(self.manager.servers.database_url)

    async def _finish(self, at_end: AtEnd | None) -> None:
        self.outcome.database = self.manager.servers.database_address
        self.outcome.after = await count(self.manager.servers.database_url)
        if at_end is not None:
            await at_end()

    async def _watch(self, collector: Collector) -> None:
        notices = Notices()
        while True:
            status = self.manager.status()
            if status.phase == "stopped":
                return
            for line in notices.look(status):
                self.display.say(line)
            figures = await collector.look(status)
            if status.phase == "running":
                self.outcome.figures = _with_latencies(figures, self.outcome.figures)
            if self._accounts is not None:
                self._accounts.figures = collector.accounts(status)
            self.display.show(status, figures)
            await asyncio.sleep(REFRESH)


def _with_latencies(figures: Sequence[FeedFigures], before: Sequence[FeedFigures]) -> list[FeedFigures]:
    """A service that was too busy to answer the last look has told before how fast it was."""
    known = {item.feed: item for item in before}
    return [
        replace(item, p50_ms=old.p50_ms, p99_ms=old.p99_ms, latency_since=old.latency_since)
        if item.p99_ms is None and (old := known.get(item.feed)) is not None
        else item
        for item in figures
    ]
