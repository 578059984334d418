"""The distributor put together: the lease, the connections, what is waited out, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from feedmill.distributor import metrics, status
from feedmill.distributor.checkpoint import BadCheckpoint
from feedmill.distributor.dispatcher import Dispatcher, Mismatch
from feedmill.distributor.metrics import Figures
from feedmill.distributor.settings import DistributorSettings
from feedmill.exchanges.registry import get_venue
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, BreakerOpen, Ticket, tells
from feedmill.shared.health import Health
from feedmill.shared.lease import Lease, sleep_or
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireClosed, WireError, connect

FIRST_RESET = 1.0
"""Seconds of the breaker's first rest; it doubles up to the configured one."""
AWAY = frozenset({"OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "NOSCRIPT", "TRYAGAIN"})
"""Errors of the server that pass."""


class Distributor:
    """``run`` it once."""

    def __init__(self, settings: DistributorSettings, redis_url: RedisUrl, health: Health, log: Any) -> None:
        self.settings = settings
        self.redis_url = redis_url
        self.health = health
        self.venue = get_venue(settings.exchange, settings.market)
        self._log = log.bind(shard=str(settings.shard))
        self.figures = Figures(self.venue.name)
        self.breaker = Breaker(
            "redis",
            fail_max=settings.breaker_failures,
            reset_timeout=settings.breaker_reset,
            first_reset=FIRST_RESET,
            on_change=tells(log, "redis"),
        )
        self.lease = Lease(
            redis_url, settings.shard.lease("distributor"), name="distributor", ttl=settings.lease_ttl, log=self._log
        )
        self._over: asyncio.Event | None = None
        """Of the session there is: ends it in order."""
        self._idle = asyncio.Event()
        """Set while there is no session."""
        self._idle.set()
        status.install(self)

    async def reconfigure(self, settings: DistributorSettings) -> None:
        """Work by other settings: the commit under way is finished, then the engine is made anew from the checkpoint.

        Returns when nothing works by the old ones any more.
        """
        if settings == self.settings:
            return
        self.settings = settings
        self.breaker.limit(settings.breaker_failures, settings.breaker_reset)
        if self._over is not None:
            self._over.set()
        await self._idle.wait()
        self._log.info("distributor.reconfigured", instruments=len(settings.natives))

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch whenever the lease is held, until ``stop``; what was read by then is committed."""
        self._log.info("distributor.start", venue=self.venue.name, instruments=len(self.settings.natives))
        await self.lease.hold(stop, self._work)

    async def _work(self, ended: asyncio.Event) -> None:
        figures = self.figures
        figures.standby = False
        backoff = Backoff(0.05, 2.0)
        try:
            while not ended.is_set():
                commits = figures.commits
                wait, why = 0.0, ""
                try:
                    await self._session(ended)
                    continue
                except BreakerOpen as error:
                    wait, why = max(error.retry_in, 0.05), "breaker"
                    figures.error = str(error)[:300]
                except Mismatch as error:
                    why = "mismatch"
                    figures.error = str(error)
                except BadCheckpoint as error:
                    why = "bad_checkpoint"
                    figures.error = str(error)
                    self._log.error("checkpoint.unreadable", error=str(error))
                    wait = 5.0
                except (OSError, TimeoutError, WireError) as error:
                    why = "redis"
                    figures.error = f"{type(error).__name__}: {error}"[:300]
                finally:
                    figures.loaded = False
                if figures.commits > commits:
                    backoff.reset()
                wait += backoff.next()
                figures.reloads += 1
                metrics.reloads.labels(why).inc()
                if why != "breaker":
                    lost, figures.failed_commit = figures.failed_commit, {}
                    self._log.warning("session.ended", why=why, error=figures.error, retry_in=round(wait, 3), **lost)
                await sleep_or(ended, wait)
        finally:
            figures.stand_by()

    async def _session(self, ended: asyncio.Event) -> None:
        """Both connections and one engine, until something fails, ``ended``, or the settings are others."""
        self._over = over = asyncio.Event()
        self._idle.clear()
        passer = asyncio.create_task(_pass_on(ended, over), name="end the session")
        try:
            await self._connected_session(over, goes_on=lambda: not ended.is_set())
        finally:
            passer.cancel()
            self._over = None
            self._idle.set()

    async def _connected_session(self, over: asyncio.Event, *, goes_on: Callable[[], bool]) -> None:
        settings = self.settings
        wires: list[Wire] = []
        ticket = self.breaker.admit()
        name = f"feedmill-distributor-{settings.shard}"
        try:
            wires.append(await connect(self.redis_url, name=f"{name}-read"))
            wires.append(await connect(self.redis_url, name=f"{name}-commit"))
            ticket.success()
            reader, writer = wires
            if reader.run_id != writer.run_id:
                raise WireClosed("the server changed while connecting")
            dispatcher = Dispatcher(settings, self.venue, reader, writer, self.figures, self._log)
            await dispatcher.run(over, goes_on=goes_on)
        except (OSError, TimeoutError, WireError) as error:
            if not isinstance(error, WireError) or error.code in AWAY:
                self._count(ticket, error)
            raise
        finally:
            ticket.release()
            for wire in wires:
                wire.abort()

    def _count(self, ticket: Ticket, error: Exception) -> None:
        """A failure speaks against the server, also after it had let us connect."""
        ticket.failure(error)
        if self.figures.loaded:
            try:
                self.breaker.admit().failure(error)
            except BreakerOpen:
                pass


async def _pass_on(ended: asyncio.Event, over: asyncio.Event) -> None:
    await ended.wait()
    over.set()
