"""Brings files of the log from the spool to the destination, the moment each is whole.

A file leaves the spool when it is stored and the server was told that it may forget it; a process that ends in between
stores it once more, which is the same content under the same name. The file that is being written is stored every ten
seconds, under a name of its own each time, so that a server that is lost costs no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watchfiles import Change, awatch

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup import measures
from feedmill.general.backup.spool import Spool, Waiting
from feedmill.general.backup.stores.base import StoreError
from feedmill.general.backup.target import Target
from feedmill.general.backup.wal import store_file
from feedmill.general.backup.wal_plan import logs_of, partial_name, partial_of
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.config import ConfigError

PARTIAL_EVERY = 10.0
"""Seconds between two uploads of the file that is being written, while it grows."""
AT_ONCE = 4
"""Files on their way at a time."""
LOOK_EVERY = 2.0
"""Seconds after which the spool is looked at even if nobody says that something changed."""
_DEBOUNCE_MS, _STEP_MS = 100, 20

OnStored = Callable[[Waiting], Awaitable[None]]
"""Awaited after a file is stored and before it leaves the spool."""


@dataclass(slots=True)
class Uploads:
    """What became of it so far. Times are ns since the epoch, 0 = never."""

    files: int = 0
    last_file: str = ""
    last_ns: int = 0
    """When something was stored last, an unfinished file too."""
    complete_ns: int = 0
    """Everything that had been received by then is stored."""
    waiting_files: int = 0
    spool_bytes: int = 0
    error: str = ""
    """Why the last attempt failed; empty: it did not."""
    unfinished: dict[str, str] = field(default_factory=dict)
    """System -> object of its unfinished file, as stored last."""


class Uploader:
    """``run`` until cancelled, then ``finish``. The key file is read for each upload, since it may change."""

    def __init__(
        self, spool: Spool, target: Target, log: Any, on_stored: OnStored, received: Callable[[], str]
    ) -> None:
        """``received``: the system whose log is being received, empty while none is."""
        self.state = Uploads()
        self.changed = asyncio.Event()
        """Set after each look at the spool."""
        self._spool = spool
        self._names = target.names
        self._store = target.store
        self._ring = target.ring
        self._log = log
        self._on_stored = on_stored
        self._received = received
        self._wake = asyncio.Event()
        self._urgent = False
        self._written: dict[str, tuple[Path, int]] = {}
        """System -> its unfinished file, and when that was last written, as of its last upload."""
        self._partial_at = float("-inf")

    def wake(self, *, urgent: bool = False) -> None:
        """Look now. ``urgent``: the unfinished file too, since nothing follows for now."""
        self._urgent = self._urgent or urgent
        self._wake.set()

    async def run(self) -> None:
        """Raises OSError where the spool cannot be watched."""
        await asyncio.to_thread(self._spool.root.mkdir, parents=True, exist_ok=True, mode=0o700)
        listening = asyncio.create_task(self._listen(), name="watch the spool")
        backoff = Backoff(0.5, 30.0, floor=0.2)
        try:
            await self._remove_leftovers()
            while True:
                self._wake.clear()
                if not await self._attempt():
                    await asyncio.sleep(backoff.next())
                    continue
                backoff.reset()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._wake.wait()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def finish(self, seconds: float) -> bool:
        """Upload what is there, the unfinished file too; False when it could not be done within ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._urgent = True
                    if await self._attempt():
                        return True
                    await asyncio.sleep(0.5)
        return False

    async def pending(self, system: str) -> bool:
        """Whether the spool holds anything of ``system`` that is not stored."""
        if any(item.system == system for item in await asyncio.to_thread(self._spool.waiting)):
            return True
        path = await asyncio.to_thread(self._spool.partial, system)
        if path is None:
            return False
        try:
            state = await asyncio.to_thread(path.stat)
        except FileNotFoundError:
            return True  # It is finished just now.
        return state.st_size > 0 and self._written.get(system) != (path, state.st_mtime_ns)

    async def _listen(self) -> None:
        def whole(change: Change, path: str) -> bool:
            return change is not Change.deleted and not path.endswith(".partial")

        async for _ in awatch(self._spool.root, watch_filter=whole, debounce=_DEBOUNCE_MS, step=_STEP_MS):
            self._wake.set()

    async def _attempt(self) -> bool:
        """Upload what can be; False when something failed."""
        began, live = now_ns(), bool(self._received())
        try:
            while await self._upload_finished():
                pass
            # One that is finished just now is gone: it is uploaded at the next look.
            with contextlib.suppress(FileNotFoundError):
                if await self._upload_unfinished() and live:
                    self.state.complete_ns = began
        except (StoreError, ConfigError, OSError) as error:
            measures.store_up.set(0)
            if self.state.error != str(error):
                self.state.error = str(error)
                self._log.warning("backup.upload_failed", error=str(error), effect="the log waits in the spool")
            return False
        finally:
            self.changed.set()
        if self.state.error:
            self._log.info("backup.upload_recovered", waiting=self.state.waiting_files)
        self.state.error = ""
        measures.store_up.set(1)
        return True

    async def _look(self) -> list[Waiting]:
        waiting = await asyncio.to_thread(self._spool.waiting)
        self.state.waiting_files = len(waiting)
        self.state.spool_bytes = await asyncio.to_thread(self._spool.size_bytes)
        measures.spool_bytes.set(self.state.spool_bytes)
        now = now_ns()
        measures.oldest.set(max((now - item.since_ns) / SECOND for item in waiting) if waiting else 0)
        return waiting

    async def _upload_finished(self) -> bool:
        """The oldest few; whether there were any. In the order of the log, since the slot is moved on by it."""
        those = (await self._look())[:AT_ONCE]
        if not those:
            return False
        ring = await self._ring()
        results = await asyncio.gather(*(self._put(item, ring) for item in those), return_exceptions=True)
        for item, result in zip(those, results, strict=True):
            if isinstance(result, FileNotFoundError):
                continue  # The spool was prepared anew: it comes again.
            if isinstance(result, BaseException):
                raise result
            self.state.files += 1
            self.state.last_file, self.state.last_ns = item.file, now_ns()
            measures.files.inc()
            await self._on_stored(item)
            await self._forget_unfinished(item)
            await asyncio.to_thread(self._spool.remove, item)
        return True

    async def _put(self, item: Waiting, ring: Keyring) -> None:
        stored = await store_file(self._store, ring, self._names.wal(item.system, item.file), item.path)
        measures.stored.labels("wal").inc(stored.size_bytes)

    async def _upload_unfinished(self) -> bool:
        """Whether all of it is stored now: it may be too early for that, since it was stored a moment ago."""
        now = time.monotonic()
        early = not self._urgent and now - self._partial_at < PARTIAL_EVERY
        for system in await asyncio.to_thread(self._spool.systems):
            path = await asyncio.to_thread(self._spool.partial, system)
            if path is None:
                continue
            state = await asyncio.to_thread(path.stat)
            if not state.st_size or self._written.get(system) == (path, state.st_mtime_ns):
                if self._received() not in ("", system):
                    # Of a server that was replaced by another: nothing follows.
                    await asyncio.to_thread(self._spool.forget, system)
                continue
            if early:
                return False
            name = self._names.wal(system, partial_name(path.name.removesuffix(".partial"), now_ns()))
            stored = await store_file(self._store, await self._ring(), name, path)
            measures.stored.labels("wal").inc(stored.size_bytes)
            self._written[system] = (path, state.st_mtime_ns)
            self._partial_at, self.state.last_ns = now, now_ns()
            before, self.state.unfinished[system] = self.state.unfinished.get(system), name
            if before is not None and _file(before) == _file(name):
                # One of another file is the end of a log that nothing follows: it stays.
                await self._discard(before)
        self._urgent = False
        return True

    async def _forget_unfinished(self, item: Waiting) -> None:
        """The finished file has taken its place."""
        name = self.state.unfinished.get(item.system, "")
        if _file(name) == item.file:
            await self._discard(name)
            del self.state.unfinished[item.system]

    async def _discard(self, name: str) -> None:
        """What another has taken the place of. The right to delete may be withheld, and what stays does no harm."""
        try:
            await self._store.delete(name)
        except StoreError as error:
            self._log.debug("backup.unfinished_kept", object=name, error=str(error))

    async def _remove_leftovers(self) -> None:
        """Unfinished files that a process before this one stored: the last one is replaced when more of it is there."""
        with contextlib.suppress(StoreError):
            for system in await asyncio.to_thread(self._spool.systems):
                found = await self._store.list(f"{self._names.wals}{system}/")
                for log in logs_of(found).values():
                    for item in log.leftovers:
                        await self._discard(item.name)
                    if log.partials:
                        self.state.unfinished[system] = log.partials[max(log.partials, key=_place)].name


def _file(name: str) -> str:
    """The file that an object holds the beginning of; empty where it is a whole one."""
    partial = partial_of(name.rpartition("/")[2])
    return partial[0] if partial is not None else ""


def _place(file: str) -> tuple[str, str]:
    """Where a file stands in the log; of two timelines the later."""
    return file[8:], file[:8]
