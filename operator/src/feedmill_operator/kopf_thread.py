"""One life of kopf in a thread with an event loop of its own, which ends whatever kopf does.

Its own thread because kopf takes the signals of the main thread's loop and would hold our renewals and health pages
while it works through a long list. Its own end because, when one of its watches fails, it waits without limit for the
others, whose sessions it has closed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

Spawn = Callable[[], Awaitable[Collection["asyncio.Task[Any]"]]]
_ORDERLY, _FORCED = 3.0, 2.0
"""Seconds its root tasks have to end, and then all others."""


class KopfThread:
    """``spawn`` starts kopf's root tasks, on the thread's loop. ``ended`` is called once, in the thread, with why it
    failed; None = it was stopped."""

    def __init__(self, spawn: Spawn, ended: Callable[[str | None], None]) -> None:
        self._spawn = spawn
        self._ended = ended
        self._loop = uvloop.new_event_loop()
        # Of several watches that failed one is told; what kopf leaves lying about at its end is no news.
        self._loop.set_exception_handler(lambda *_: None)
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        _hide_remains()
        # Kopf drops workers that it never began when a watch fails while it starts.
        warnings.filterwarnings("ignore", "coroutine '(worker|_wait_for_depletion)' was never awaited", RuntimeWarning)
        self._thread.start()

    def stop(self) -> None:
        """From any thread; does not wait."""
        with suppress(RuntimeError):  # It has ended.
            self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        failure: str | None = None
        try:
            failure = self._loop.run_until_complete(self._live())
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            with suppress(Exception):
                self._loop.run_until_complete(self._end(asyncio.all_tasks(self._loop), _FORCED))
                self._loop.run_until_complete(self._close())
            self._loop.close()
            self._ended(failure)

    async def _live(self) -> str | None:
        roots: Collection[asyncio.Task[Any]] = ()
        stopping = asyncio.create_task(self._stop.wait(), name="kopf-stop")
        try:
            roots = await self._spawn()
            done, _ = await asyncio.wait([*roots, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping in done:
                return None
            errors = [error for task in done if not task.cancelled() and (error := task.exception())]
            return f"{type(errors[0]).__name__}: {errors[0]}" if errors else "it ended of itself"
        finally:
            stopping.cancel()
            await self._end(roots, _ORDERLY)

    @staticmethod
    async def _end(tasks: Collection[asyncio.Task[Any]], within: float) -> None:
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=within)

    @staticmethod
    async def _close() -> None:
        """What still waits is ended while there is a loop: at its end as garbage it would print an error."""
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            coroutine = task.get_coro()
            if isinstance(coroutine, Coroutine):
                with suppress(Exception):  # It starts what it will never see end, or fails at its end.
                    coroutine.close()


def _hide_remains() -> None:
    """What kopf leaves behind of a life that was cut short fails once more when it is collected as garbage (it gives
    back a lock it does not hold), which Python would print; nothing is wrong then."""
    before = sys.unraisablehook
    if getattr(before, "without_kopf", False):
        return

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        if code is None or "kopf" not in Path(code.co_filename).parts:
            before(unraisable)

    hook.without_kopf = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
