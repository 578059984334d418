"""Runs kopf as a watcher, started anew when it fails or is told to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import kopf

from feedmill.shared import log
from feedmill.shared.backoff import Backoff
from feedmill_operator import handlers, metrics
from feedmill_operator.health import Hearing
from feedmill_operator.kopf_thread import KopfThread
from feedmill_operator.kube.api import Kind
from feedmill_operator.kube.client import Credentials
from feedmill_operator.kube.kinds import LEASE

_END = 10.0
"""Seconds kopf has to stop."""
_PAGE = 100
_SERVER_TIMEOUT = 300
"""Seconds after which the API server ends a watch in order."""
_INACTIVITY = 70.0
"""Seconds without even a bookmark (they come every 60) after which a stream is opened anew."""


class Watching:
    """Watches ``kinds`` (set before ``run``, and before each ``restart``).

    ``selectors``: label selector of each kind, by the server. ``lease``: name of the only Lease that is watched.
    """

    def __init__(
        self,
        tell: handlers.Tell,
        connect: Callable[[], Credentials],
        hearing: Hearing,
        *,
        namespaces: Collection[str],
        selectors: Callable[[Kind], str],
        lease: str,
    ) -> None:
        self.kinds: Collection[Kind] = ()
        self._tell = tell
        self._connect = connect
        self._hearing = hearing
        self._namespaces = tuple(namespaces)
        self._selectors = selectors
        self._lease = lease
        self._restart = asyncio.Event()
        self._cause = ""
        self._log = log.get_logger()

    def restart(self, cause: str) -> None:
        """List and watch everything anew: kinds came or went, or a stream hears nothing."""
        self._cause = cause
        self._restart.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set."""
        backoff = Backoff(0.5, 30.0)
        stopping = asyncio.create_task(stop.wait(), name="watch-stop")
        try:
            while not stop.is_set():
                self._restart.clear()
                self._hearing.begin()
                begun = asyncio.get_running_loop().time()
                failure = await self._once(stopping)
                if stop.is_set():
                    return
                cause = "failed" if failure else self._cause
                metrics.watch_restarts.labels(cause).inc()
                self._log.warning("watch.restart", cause=cause, error=failure)
                if failure:
                    if asyncio.get_running_loop().time() - begun > 60:
                        backoff.reset()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(stopping), backoff.next())
        finally:
            self._hearing.end()
            stopping.cancel()

    async def _once(self, stopping: asyncio.Task[bool]) -> str | None:
        """One life of kopf; why it failed."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str | None] = loop.create_future()

        def tell_end(failure: str | None) -> None:
            if not ended.done():
                ended.set_result(failure)

        def across(failure: str | None) -> None:
            with suppress(RuntimeError):  # The main loop is closed: nobody asks.
                loop.call_soon_threadsafe(tell_end, failure)

        thread = KopfThread(lambda: self._spawn(loop), across)
        thread.start()
        restarting = asyncio.create_task(self._restart.wait(), name="watch-restart")
        try:
            waiting: list[asyncio.Future[Any]] = [ended, stopping, restarting]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            thread.stop()
            restarting.cancel()
        await asyncio.wait([ended], timeout=_END)
        if not ended.done():
            # What it still tells does no harm: it is compared with what is known.
            self._log.warning("watch.stuck", seconds=_END, action="left behind, another begins")
            return None
        return ended.result()

    async def _spawn(self, loop: asyncio.AbstractEventLoop) -> Collection[asyncio.Task[Any]]:
        tell = self._tell
        kinds = tuple(self.kinds)
        return await kopf.spawn_tasks(
            registry=handlers.registry(
                kinds, lambda kind, change, obj: _across(loop, tell, kind, change, obj), self._connect
            ),
            settings=settings(kinds, self._selectors, self._lease),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )


def _across(
    loop: asyncio.AbstractEventLoop, tell: handlers.Tell, kind: Kind, change: str | None, obj: Mapping[str, Any]
) -> None:
    with suppress(RuntimeError):  # The main loop is closed.
        loop.call_soon_threadsafe(tell, kind, change, obj)


def settings(kinds: Collection[Kind], selectors: Callable[[Kind], str], lease: str) -> kopf.OperatorSettings:
    """No writes, bounded waits, no end at an error of the API server."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    # Neither namespaces nor CRDs are watched: no rights on them are needed, and our resync notices new kinds.
    found.scanning.disabled = True
    found.process.ultimate_exiting_timeout = None
    found.networking.request_timeout = 30.0
    found.networking.connect_timeout = 5.0
    found.networking.error_backoffs = _Endless()
    found.persistence.diffbase_storage = _NoEssence()
    watching = found.watching
    watching.server_timeout = _SERVER_TIMEOUT
    watching.connect_timeout = 5.0
    watching.inactivity_timeout = _INACTIVITY
    watching.reconnect_backoff = 0.5
    watching.chunk_size = _PAGE
    # An idle object costs no task and no copy of itself.
    found.queueing.idle_timeout = 0.5
    found.queueing.exit_timeout = 1.0
    for kind in kinds:
        group, _, version = kind.api_version.rpartition("/")
        if selector := selectors(kind):
            watching.label_selectors[group, version, kind.plural] = selector
        if kind == LEASE:
            watching.field_selectors[group, version, kind.plural] = f"metadata.name={lease}"
    return found


class _NoEssence(kopf.DiffBaseStorage):
    """Nothing is compared with an earlier state, so nothing is copied for it (half of kopf's work at an event)."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise RuntimeError("there are no handlers that store anything")


class _Endless:
    """Waits between kopf's tries, without end: a watch that gives up is deaf."""

    def __iter__(self) -> Iterator[float]:
        backoff = Backoff(1.0, 10.0, floor=0.2, random_source=random.Random())
        while True:
            yield backoff.next()


_MENDED = ("will retry", "will re-authenticate", "has failed")
"""Of errors in kopf's log that it or :class:`Watching` mends by itself."""


class KopfLog(logging.Filter):
    """kopf's lines at the level that they have for us."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("kopf"):
            text = record.getMessage()
            if "OS signals are ignored" in text:
                return False
            if record.levelno == logging.ERROR and any(words in text for words in _MENDED):
                record.levelno, record.levelname = logging.WARNING, "WARNING"
                record.exc_info, record.exc_text = None, None
        return True
