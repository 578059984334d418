"""When batches leave memory for the disk, and when they do so no longer.

They do while Redis is away (for ``AFTER`` seconds), nearly full, or slower than what comes in (memory held passes a
share of the budget), and until everything on disk has been sent. A batch is sealed ``SEAL_AFTER`` seconds after the
last one and written at most ``ROUND`` later: that much a killed process loses. With Redis up this costs one look in
``LOOK`` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedmill.receiver import metrics
from feedmill.receiver.session import Producer
from feedmill.receiver.spill.disk import Disk
from feedmill.receiver.spill.files import FSYNC_EVERY, Written
from feedmill.receiver.spill.folder import Folder, SpillInUse
from feedmill.receiver.spill.past import found_in
from feedmill.shared.clock import SECOND, monotonic, now_ns

AFTER = 0.5
LOOK = 0.1
ROUND = 0.05
SEAL_AFTER = 0.25
"""The open batch goes to the disk after so many seconds, full or not."""
MEMORY_SHARE = 0.25
"""Of the memory budget: with more in it batches go to the disk even while Redis takes some."""
WRITE_SHARE = 16
"""Of the memory budget one write takes about the 16th part (4 MiB of 64)."""
TRY_AGAIN = 1.0
"""Seconds after which a disk that refused is tried again."""
FREE_SHARE = 16
"""A spill that was full is used again when the 16th part of it is free."""
USED_UP = "its size is used up"
USABLE = 15 / 16
"""Of the configured size: file systems count blocks, and a volume above its limit ends the pod."""


class Spool:
    """``blocked_for``: seconds for which nothing could be appended, 0 while appends work."""

    def __init__(
        self, path: Path, shard: str, size: int, producer: Producer, blocked_for: Callable[[], float], log: Any
    ) -> None:
        self.folder = Folder(path, shard, int(size * USABLE), log)
        self.active = False
        """Batches go to the disk."""
        self.problem = ""
        """Why the disk takes nothing."""
        self._producer = producer
        self._blocked_for = blocked_for
        self._log = log
        self._retry_at = 0.0
        self._full = False
        self._turn = asyncio.Lock()
        self._mark: tuple[Disk, int, int] | None = None
        """(disk, its epoch, batch written last): what follows goes into the segment that is open."""
        self.resize(size)

    def resize(self, size: int) -> None:
        """Another configured size from now on."""
        self.folder.limit = int(size * USABLE)
        metrics.spill_limit.set(self.folder.limit)

    # reading
    @property
    def state(self) -> str:
        """idle | spilling | full | unusable."""
        if not self.folder.usable:
            return "unusable"
        if self._producer.stuck:
            return "full"
        return "spilling" if self.active or self.unsent_bytes else "idle"

    @property
    def disks(self) -> list[Disk]:
        """Oldest session first."""
        own = self._producer.disk
        return [*(past.disk for past in self._producer.past), *([own] if own else [])]

    @property
    def unsent_bytes(self) -> int:
        """On disk, and not in Redis."""
        own = self._producer.disk
        size = sum(past.disk.bytes_from(past.backlog.acked + 1) for past in self._producer.past)
        return size + (own.bytes_from(self._producer.backlog.acked + 1) if own else 0)

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest segment, 0 without one."""
        first = next((disk.extents[0] for disk in self.disks if disk.extents), None)
        return 0.0 if first is None else max(0.0, (now_ns() - first.head.created_ns) / SECOND)

    # life
    async def open(self) -> None:
        """Take the folder, and put what former sessions left in it before this one's batches.

        Raises SpillInUse. A folder that cannot be used is told and tried again while running: capturing goes on.
        """
        try:
            scanned = await self.folder.open()
        except OSError as error:
            self._refused(error)
            return
        producer = self._producer
        self.problem = ""
        producer.set_stuck(False)  # It may have been while there was no folder.

        def make_disk(session: str) -> Disk:
            return Disk(self.folder, producer.budget, session, producer.pump, self._log)

        producer.spill_to(make_disk)
        past = found_in(scanned, self.folder, producer.budget, producer.backlog, producer.pump, self._log)
        producer.past[:0] = past
        for each in past:
            self._log.warning(
                "spill.found",
                session=each.id,
                batches=each.disk.last - each.disk.first + 1,
                bytes=each.disk.bytes_from(0),
                action="appended before anything new",
            )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._one_round()
            except Exception as error:
                # Whatever it is: without a spill capturing is worse off, but it goes on.
                self._log.exception("spill.failed")
                self._refused(error)
                await asyncio.sleep(TRY_AGAIN)

    async def _one_round(self) -> None:
        if not self.folder.usable:
            await self._open_again()
        elif not self.active:
            await asyncio.sleep(LOOK)
            if self._wanted():
                self.active = True
                self._log.info("spill.begin", held_bytes=self._producer.budget.used, folder=str(self.folder.path))
        elif not await self.work():
            await asyncio.sleep(ROUND)

    async def _open_again(self) -> None:
        self._producer.set_stuck(self._wanted())
        await asyncio.sleep(TRY_AGAIN)
        try:
            await self.open()
        except SpillInUse as error:
            self._refused(error)

    def _wanted(self) -> bool:
        producer = self._producer
        if self._blocked_for() >= AFTER or producer.budget.used >= MEMORY_SHARE * producer.budget.limit:
            return True
        return self.active and (
            producer.unreplicated or producer.backlog.unsent_on_disk or producer.lane is not producer
        )

    async def work(self) -> bool:
        """One write, or the end of the spilling; answers whether more is to be written at once."""
        async with self._turn:
            producer = self._producer
            if not self._wanted():
                await self._rest()
                return False
            direct = not self._blocked_for() and producer.lane is producer and not producer.backlog.unsent_on_disk
            if not direct and monotonic() - producer.last_sealed >= SEAL_AFTER:
                producer.seal()
            if self._retry_at > monotonic() or (self._full and self.folder.room < self.folder.limit // FREE_SHARE):
                return False
            if await self._write():
                return not producer.stuck and bool(producer.backlog.waiting(1))
            await self._sync()
            return False

    async def flush(self) -> int:
        """Write what is left in memory; answers how many batches are neither on disk nor in Redis then."""
        producer = self._producer
        backlog = producer.backlog
        if self.folder.usable:
            async with self._turn:
                producer.seal()
                while await self._write() and not producer.stuck:
                    pass
        return backlog.last - max(backlog.base, backlog.acked)

    async def close(self) -> None:
        async with self._turn:
            await self.folder.close()

    async def _write(self) -> bool:
        """Write the oldest batches that are in memory; answers whether there were any."""
        producer = self._producer
        batches = producer.backlog.waiting(producer.budget.limit // WRITE_SHARE)
        disk, session, room, writer = producer.disk, producer.session, self.folder.room, self.folder.writer
        if not batches or disk is None:
            return False
        before = (disk, disk.epoch, batches[0].n - 1)
        view = None if self._mark == before else producer.view.copy()
        written = await self.folder.writing(lambda: writer.write(session, view, batches, room))
        metrics.spill_written.inc(sum(size - self.folder.sizes.get(path, 0) for path, size in written.sizes.items()))
        self.folder.sizes.update(written.sizes)
        if disk is not producer.disk or disk.epoch != before[1]:
            # All that was on disk became safe elsewhere meanwhile, or the session is over: it is as if not written.
            self._mark = None
            used = {extent.path for each in self.disks for extent in each.extents}
            self.folder.delete(path for path in written.sizes if path not in used)
            return True
        self._mark = (disk, disk.epoch, written.last or before[2])
        for path, piece, head in written.pieces:
            disk.append(path, piece, head)
        producer.spilled(written.last)
        disk.release(producer.backlog.confirmed)
        self._outcome(written)
        return True

    def _outcome(self, written: Written) -> None:
        self._full = written.full
        if written.error is not None:
            self._refused(written.error)
        elif written.full:
            self._producer.set_stuck(True)
            if self.problem != USED_UP:
                self._log.error("spill.full", **self._numbers(), effect="the newest is shed once memory is full too")
            self.problem = USED_UP
        elif self._producer.stuck:
            self._producer.set_stuck(False)
            self.problem = ""
            self._log.info("spill.resumed", **self._numbers())

    def _refused(self, error: Exception) -> None:
        """The disk, or the folder as a whole."""
        self._retry_at = monotonic() + TRY_AGAIN
        if self.folder.usable:
            self._producer.set_stuck(True)
        problem = f"{type(error).__name__}: {error}"[:200]
        if problem != self.problem:
            self._log.error(
                "spill.refused", folder=str(self.folder.path), reason=problem,
                effect="batches stay in memory; the newest is shed once that is full",
            )  # fmt: skip
        self.problem = problem

    async def _rest(self) -> None:
        self.active = False
        self._full = False
        self._mark = None
        self._producer.set_stuck(False)
        self.problem = ""
        await self.folder.writing(self.folder.writer.close)
        self._log.info("spill.end", **self._numbers())

    async def _sync(self) -> None:
        writer = self.folder.writer
        if writer.unsynced_for < FSYNC_EVERY:
            return
        try:
            await self.folder.writing(lambda: writer.sync(FSYNC_EVERY))
        except OSError as error:
            self._refused(error)

    def _numbers(self) -> dict[str, int]:
        return {"used_bytes": self.folder.used, "limit_bytes": self.folder.limit, "segments": len(self.folder.sizes)}
