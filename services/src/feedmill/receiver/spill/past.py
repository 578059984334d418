"""Sessions that are over and left batches on disk: they go to Redis before anything newer, under their own id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedmill import __version__
from feedmill.receiver import metrics
from feedmill.receiver.backlog import Backlog, Kept
from feedmill.receiver.names import new_session_id
from feedmill.receiver.spill.disk import Disk, packed
from feedmill.receiver.spill.folder import Folder
from feedmill.receiver.spill.format import Scanned
from feedmill.shared import control
from feedmill.shared.budget import ByteBudget
from feedmill.shared.clock import MS
from feedmill.shared.frames import Run, RunKind


class Past:
    """One of them. The server's own number of the session says where to go on: see :meth:`place`."""

    def __init__(
        self, disk: Disk, replica: str, started_ns: int, like: Backlog, log: Any, cause: str = "killed"
    ) -> None:
        """``like``: the backlog of the session that goes on. ``cause``: why this one is over."""
        self.disk = disk
        self.replica = replica
        self.started_ns = started_ns
        self._like = like
        self._log = log
        self._cause = cause
        self._placed = False
        self.backlog = self._at(disk.first - 1, disk.last)

    @property
    def id(self) -> str:
        return self.disk.session

    def place(self, server_last: int) -> None:
        """The server has this session's batches up to ``server_last``: go on from there.

        It may have more than is on disk, since what came after the outage went there directly. When it has less than
        what the oldest batch follows, it forgot what nobody holds any more: then the rest goes on as another session.
        """
        backlog, known = self.backlog, self._placed
        self._placed = True
        if server_last >= backlog.last and known:
            backlog.acknowledge(server_last)
        elif not self.disk:
            # All but the end is confirmed and gone from here.
            if server_last == backlog.last - 1:
                backlog.rewind(backlog.last)
            else:
                backlog.acknowledge(backlog.last)
        elif server_last < self.disk.first - 1:
            self.forgotten()
        else:
            self.backlog = self._at(server_last, max(self.disk.last, server_last))

    def forgotten(self) -> None:
        """The server no longer has what the oldest batch follows: go on as another session that tells so."""
        old = self.id
        self.started_ns += MS
        new = new_session_id(self.replica, self.started_ns)
        extent = self.disk.extents[0]
        session = control.Session(new, self.replica, __version__, self.started_ns, old)
        prefix = _told(new, 1, [(0, session), *self.disk.view], extent.piece.from_ns)
        self.disk.renumber(new, extent.piece.first - 2, prefix)
        self._placed = True
        self.backlog = self._at(0, self.disk.last)
        metrics.sessions_lost.inc()
        self._log.error(
            "session.lost", lost=old, session=new, resent_batches=self.backlog.last,
            effect="Redis forgot what it had confirmed: gap rows tell what is missing",
        )  # fmt: skip

    def confirm(self, n: int) -> bool:
        """Batches up to ``n`` are safe; answers whether all are."""
        self.backlog.confirm(n)
        return self.backlog.confirmed == self.backlog.last

    def _at(self, acked: int, base: int) -> Backlog:
        """Acknowledged up to ``acked``, and ended after ``base``."""
        at_ns = self.disk.extents[-1].piece.at_ns
        end = _told(self.id, base + 1, [(0, control.SessionEnd(self._cause))], at_ns)
        return Backlog.of_disk(self.disk, base, end, acked=acked, like=self._like)


def found_in(
    scanned: list[tuple[Path, Scanned]], folder: Folder, budget: ByteBudget, like: Backlog,
    ready: Callable[[], None], log: Any,
) -> list[Past]:  # fmt: skip
    """The sessions of a folder's segments, oldest first. What holds nothing is deleted."""
    disks: dict[str, Disk] = {}
    pasts: dict[str, tuple[str, int]] = {}
    empty: list[Path] = []
    for path, each in scanned:
        if each.damaged or each.torn:
            log.warning(
                "spill.cut", segment=path.name, damaged_bytes=each.damaged, torn_bytes=each.torn,
                effect="the rest of the segment is used; what is missing is told by gap rows",
            )  # fmt: skip
        if each.head is None or not each.pieces:
            empty.append(path)
            continue
        head = each.head
        if head.shard not in ("", folder.shard):
            log.error(
                "spill.foreign", segment=path.name, of=head.shard, shard=folder.shard,
                remedy="start the receiver of that shard on this folder, or delete the segment",
            )  # fmt: skip
            continue
        disk = disks.get(head.session)
        if disk is None:
            disk = disks[head.session] = Disk(folder, budget, head.session, ready, log)
            pasts[head.session] = (head.replica, head.started_ns)
        for piece in each.pieces:
            if not disk or piece.first > disk.last:
                disk.append(path, piece, head)
            elif piece.last > disk.last:
                # What was written twice, as the first time ended with an error.
                disk.append(path, piece.after(disk.last), head)
        if not any(extent.path == path for extent in disk.extents):
            empty.append(path)
    folder.delete(empty)
    order = sorted(pasts, key=lambda session: (pasts[session][1], session))
    return [Past(disks[session], *pasts[session], like, log) for session in order]


def _told(session: str, n: int, records: list[tuple[int, control.Control]], at_ns: int) -> Kept:
    runs = [Run(int(RunKind.CONTROL), conn, [at_ns], [control.encode(record)]) for conn, record in records]
    return packed(session, n, runs, at_ns)
