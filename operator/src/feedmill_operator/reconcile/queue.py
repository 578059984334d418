"""The work queue: what is to be reconciled, each object once, one worker an object, with back-off.

Level-triggered: a key says that something may have changed, never what. All methods belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from feedmill.shared import log
from feedmill.shared.backoff import Backoff
from feedmill_operator import metrics


class Key(NamedTuple):
    """Names one custom resource."""

    kind: str
    """``ExchangeFeed``, ``FeedPipeline``, ..."""
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


Handler = Callable[[Key], Awaitable[float | None]]
"""Reconciles one object. May return in how many seconds the object is due again."""


class WorkQueue:
    """Keys waiting, running and due later.

    * A key is never worked on twice at a time; added while running, it runs once more.
    * A handler that raises is tried again after a full-jitter back-off between 0 and ``base`` * 2^n, at most ``cap``
      seconds, and not before the exception's ``retry_after``; a success resets it.
    * ``add`` does not wait for a back-off: somebody changed something, which may be the cure.
    """

    def __init__(
        self,
        handler: Handler,
        workers: int = 8,
        base: float = 1.0,
        cap: float = 300.0,
        *,
        random_source: random.Random | None = None,
    ) -> None:
        self._handler = handler
        self._count = workers
        self._base, self._cap = base, cap
        self._random = random_source or random.Random()
        self._waiting: dict[Key, float] = {}
        """When each was added."""
        self._tokens: asyncio.Queue[Key | None] = asyncio.Queue()
        """Order of the waiting ones; a key that is no longer waiting when its turn comes was forgotten. None = end."""
        self._running: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._retries: dict[Key, asyncio.TimerHandle] = {}
        self._failing: dict[Key, Backoff] = {}
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log = log.get_logger()
        metrics.queue_depth.set_function(lambda: len(self._waiting))
        metrics.queue_delayed.set_function(lambda: len(self._later) + len(self._retries))
        metrics.queue_longest.set_function(self.longest_running)

    # What others see.

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs (what is due later does not count)."""
        return not self._waiting and not self._running

    @property
    def running(self) -> frozenset[Key]:
        return frozenset(self._running)

    def failures(self, key: Key) -> int:
        """Failures of ``key`` in a row."""
        backoff = self._failing.get(key)
        return backoff.failures if backoff else 0

    def longest_running(self) -> float:
        """Seconds; 0 when nothing runs."""
        if self._loop is None or not self._running:
            return 0.0
        return max(0.0, self._loop.time() - min(self._running.values()))

    # Putting in.

    def add(self, key: Key) -> None:
        """At once, unless it waits already."""
        if self._closed or key in self._waiting:
            return
        if key in self._running:
            self._again.add(key)
            return
        self._waiting[key] = self._now()
        self._tokens.put_nowait(key)
        metrics.queue_adds.labels(key.kind).inc()

    def add_after(self, key: Key, seconds: float) -> None:
        """In ``seconds``; of several requests for one key the earliest counts."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._now() + seconds
        before = self._later.get(key)
        if before is not None:
            if before.when() <= due:
                return
            before.cancel()
        self._later[key] = asyncio.get_running_loop().call_at(due, self._due, self._later, key)

    def forget(self, key: Key) -> None:
        """The object is gone: no later run, no retry, no memory of its failures. A run under way ends as it will."""
        for timers in (self._later, self._retries):
            if (timer := timers.pop(key, None)) is not None:
                timer.cancel()
        self._failing.pop(key, None)
        self._again.discard(key)
        self._waiting.pop(key, None)

    # Working.

    async def run(self, stop: asyncio.Event, *, grace: float = 10.0) -> None:
        """Work until ``stop`` is set; what runs then has ``grace`` seconds to end before it is cancelled."""
        workers = [asyncio.create_task(self._work(), name=f"worker-{number}") for number in range(self._count)]
        try:
            stopped = asyncio.create_task(stop.wait(), name="queue-stop")
            try:
                done, _ = await asyncio.wait([stopped, *workers], return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
            for task in done - {stopped}:
                task.result()  # A worker never ends of itself: what ended it must be seen.
            self._close()
            await asyncio.wait(workers, timeout=grace)
        finally:
            self._close()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for timers in (self._later, self._retries):
            for timer in timers.values():
                timer.cancel()
            timers.clear()
        self._waiting.clear()
        self._again.clear()
        for _ in range(self._count):
            self._tokens.put_nowait(None)

    async def _work(self) -> None:
        while (key := await self._next()) is not None:
            try:
                await self._one(key)
            finally:
                self._running.pop(key, None)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _next(self) -> Key | None:
        while (key := await self._tokens.get()) is not None:
            if (since := self._waiting.pop(key, None)) is None:
                continue
            now = self._now()
            metrics.queue_wait.observe(max(0.0, now - since))
            self._running[key] = now
            if (retry := self._retries.pop(key, None)) is not None:
                retry.cancel()  # This run is the retry.
            return key
        return None

    async def _one(self, key: Key) -> None:
        started = self._now()
        result = "cancelled"
        try:
            again = await self._handler(key)
            result = "done"
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            result = "failed"  # Something the handler awaited was cancelled, not this worker.
            self._retry(key, error)
        except Exception as error:
            result = "failed"
            self._retry(key, error)
        else:
            self._failing.pop(key, None)
            if again is not None:
                self.add_after(key, again)
        finally:
            metrics.reconcile_seconds.labels(key.kind, result).observe(max(0.0, self._now() - started))

    def _retry(self, key: Key, error: BaseException) -> None:
        if self._closed:
            return
        backoff = self._failing.get(key)
        if backoff is None:
            backoff = self._failing[key] = Backoff(self._base, self._cap, random_source=self._random)
        wait = max(backoff.next(), float(getattr(error, "retry_after", None) or 0.0))
        metrics.queue_retries.labels(key.kind).inc()
        expected = hasattr(error, "retry_after")  # An answer of the API server, not a mistake of ours.
        tell = self._log.warning if expected else self._log.error
        tell(
            "reconcile.failed",
            object=str(key),
            error=f"{type(error).__name__}: {error}",
            failures=backoff.failures,
            retry_in_seconds=round(wait, 1),
            **({} if expected else {"exc_info": error}),
        )
        self._retries[key] = asyncio.get_running_loop().call_later(wait, self._due, self._retries, key)

    def _due(self, timers: dict[Key, asyncio.TimerHandle], key: Key) -> None:
        timers.pop(key, None)
        self.add(key)

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()
