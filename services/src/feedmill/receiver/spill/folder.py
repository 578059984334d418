"""A receiver's own spill folder: its lock, its segments and their bytes, and the threads that work in it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from feedmill.receiver.spill import files
from feedmill.receiver.spill.format import Scanned
from feedmill.shared.clock import monotonic

T = TypeVar("T")
LOCK = "lock"
LOCK_WAIT = 5.0
"""Seconds for a process that is about to end to let go of the folder."""


class SpillInUse(RuntimeError):
    """Another process works in the folder."""


class Folder:
    """One thread writes and deletes, one reads, so a read never waits for an fsync. ``usable`` after :meth:`open`."""

    def __init__(self, path: Path, shard: str, limit: int, log: Any) -> None:
        self.path = path
        self.shard = shard
        self.limit = limit
        """Most bytes of all segments together."""
        self.sizes: dict[Path, int] = {}
        """Segments there are, with their bytes."""
        self.writer = files.SegmentWriter(path, shard, segment_bytes(limit))
        self._log = log
        self._lock = -1
        self._writes = ThreadPoolExecutor(1, "spill-write")
        self._reads = ThreadPoolExecutor(1, "spill-read")
        self._deletions: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> bool:
        return self._lock >= 0

    @property
    def used(self) -> int:
        return sum(self.sizes.values())

    @property
    def room(self) -> int:
        return max(0, self.limit - self.used)

    async def open(self) -> list[tuple[Path, Scanned]]:
        """Take the folder and answer what stands in it, by session and number.

        Raises SpillInUse, or OSError when the folder cannot be used.
        """
        until = monotonic() + LOCK_WAIT
        while not await self.reading(self._take_lock):
            if monotonic() > until:
                raise SpillInUse(
                    f"spill folder {self.path} is in use by another receiver: give each its own with --spill-dir"
                )
            await asyncio.sleep(0.1)
        try:
            found = await self.reading(self._scan)
        except OSError:
            self._unlock()
            raise
        self.sizes = {path: size for path, _, size in found}
        return [(path, scanned) for path, scanned, _ in found]

    def _take_lock(self) -> bool:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._lock = fd
        return True

    def _scan(self) -> list[tuple[Path, Scanned, int]]:
        found: list[tuple[Path, Scanned, int]] = []
        for path in sorted(self.path.glob(f"*{files.SUFFIX}")):
            try:
                found.append((path, *files.scan_file(path)))
            except OSError as error:
                # One bad file must not cost the others; it is left for whoever mends the disk.
                self._log.error("spill.unreadable", segment=path.name, reason=str(error))
        return found

    async def writing(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writes, act)

    async def reading(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, act)

    def delete(self, paths: Iterable[Path]) -> None:
        """Delete segments in the background, in the order of the writes."""
        gone = list(paths)
        if gone:
            task = asyncio.get_running_loop().create_task(self._delete(gone), name="spill-delete")
            self._deletions.add(task)
            task.add_done_callback(self._deletions.discard)

    async def _delete(self, paths: list[Path]) -> None:
        left = await self.writing(lambda: files.remove(paths))
        for path in paths:
            if path not in left:
                self.sizes.pop(path, None)
        if left:
            self._log.error(
                "spill.undeletable", segments=[path.name for path in left], folder=str(self.path),
                effect="they take room; a later start knows what is in them",
                remedy="look at the folder's owner and mode",
            )  # fmt: skip

    async def close(self) -> None:
        """Let go of the folder once all that was begun has ended."""
        while self._deletions:
            await asyncio.wait(self._deletions)
        await self.writing(self.writer.close)
        self._writes.shutdown(wait=False)
        self._reads.shutdown(wait=False)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def segment_bytes(limit: int) -> int:
    """Bytes at which a segment ends: many within the limit, as only a whole one can be deleted."""
    return max(64 * 1024, min(16 * 1024 * 1024, limit // 32))
