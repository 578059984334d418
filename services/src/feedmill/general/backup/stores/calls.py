"""Blocking calls of a client library: in threads of our own, their errors made ours, tried again while it is worth it.

The threads are daemons: a store that does not answer must not hold the end of a process, as a thread of asyncio's own
pool would.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from feedmill.general.backup.stores.base import StoreAway, StoreError
from feedmill.shared.backoff import Backoff
from feedmill.shared.log import get_logger

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 300.0
"""Seconds for which one call is tried again before the store counts as away."""
log = get_logger()


class Threads:
    """A few daemon threads that carry out blocking calls."""

    def __init__(self, name: str, count: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} {number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What ``call`` returns or raises. A cancelled caller does not wait; the call itself goes on to its end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()

        def settle(result: R | None, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            result: R | None = None
            failure: BaseException | None = None
            if not done.cancelled():
                try:
                    result = call(*args, **kwargs)
                except BaseException as error:
                    failure = error
            with contextlib.suppress(RuntimeError):  # The loop is gone: nobody waits.
                loop.call_soon_threadsafe(settle, result, failure)

        self._jobs.put(job)
        return await done

    def close(self) -> None:
        """The threads end when the calls under way do."""
        for _ in self._threads:
            self._jobs.put(None)


class Calls:
    """Calls of one store. ``translate`` makes a StoreError of what its library raises; None: let it through."""

    def __init__(
        self,
        name: str,
        translate: Callable[[Exception], StoreError | None],
        *,
        threads: int = 4,
        patience: float = PATIENCE,
        pause: float = 0.5,
    ) -> None:
        self._threads = Threads(name, threads)
        self._translate = translate
        self._patience = patience
        self._pause = pause

    async def once(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises StoreError for what the library raises."""
        try:
            return await self._threads.run(call, *args, **kwargs)
        except StoreError:
            raise
        except Exception as error:
            ours = self._translate(error)
            if ours is None:
                raise
            raise ours from error

    async def again(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As :meth:`once`, but a store that is away is asked again for ``patience`` seconds. Raises StoreError."""
        trial = self.trial()
        while True:
            try:
                return await self.once(call, *args, **kwargs)
            except StoreAway as error:
                await trial.wait(error)

    def trial(self) -> Trial:
        return Trial(self._patience, Backoff(self._pause, 30.0))

    def close(self) -> None:
        self._threads.close()


class Trial:
    """How long one thing has been tried."""

    def __init__(self, patience: float, backoff: Backoff) -> None:
        self._patience = patience
        self._backoff = backoff
        self._began = time.monotonic()

    def progress(self) -> None:
        """It went on: patience begins anew."""
        self._backoff.reset()
        self._began = time.monotonic()

    async def wait(self, error: StoreAway) -> None:
        """Rest before the next try; raises ``error`` when there is to be none."""
        rest = max(self._backoff.next(), error.retry_after or 0.0)
        if time.monotonic() + rest - self._began > self._patience:
            raise error
        log.debug("backup.store_away", error=str(error), seconds=round(rest, 1))
        await asyncio.sleep(rest)
