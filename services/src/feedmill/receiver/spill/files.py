"""The file edge of the spill: everything here blocks and is called in a thread.

Fsync policy: written data is in the kernel at once, so a killed process loses nothing of it; fdatasync follows at most
``FSYNC_EVERY`` seconds later, so a power cut loses at most that plus one write.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feedmill.receiver.backlog import Kept
from feedmill.receiver.spill import format as spill_format
from feedmill.receiver.spill.format import Piece, Scanned, SegmentHead
from feedmill.receiver.view import LiveView
from feedmill.shared import control
from feedmill.shared.clock import monotonic, now_ns

FSYNC_EVERY = 1.0
SUFFIX = ".spill"


@dataclass(slots=True)
class Written:
    """What a call of :meth:`SegmentWriter.write` brought about."""

    pieces: list[tuple[Path, Piece, SegmentHead]] = field(default_factory=list)
    """(segment, records added, its head), in order."""
    last: int = 0
    """The last batch that is in a segment now; 0 = none was written."""
    sizes: dict[Path, int] = field(default_factory=dict)
    """Segments that grew, with their size now."""
    full: bool = False
    """The next batch does not fit into the room that was left."""
    error: OSError | None = None
    """Why not everything was written."""


class SegmentWriter:
    """Appends batches to segments of one session after another. Used by one thread at a time."""

    def __init__(self, folder: Path, shard: str, segment_bytes: int) -> None:
        self._folder = folder
        self._shard = shard
        self._segment_bytes = segment_bytes
        self._fd = -1
        self._path = Path()
        self._size = 0
        self._head: SegmentHead | None = None
        self._view = LiveView()
        self._unsynced_since = 0.0

    @property
    def unsynced_for(self) -> float:
        """Seconds for which something written has not been synced."""
        return monotonic() - self._unsynced_since if self._unsynced_since else 0.0

    def write(self, session: control.Session, view: LiveView | None, batches: Sequence[Kept], room: int) -> Written:
        """Append ``batches`` using at most ``room`` bytes; never raises for what the disk says.

        ``view``: what was live before the first of them, given when they do not follow what was written last.
        """
        done = Written()
        if view is not None:
            self.close()
            self._view = view
        try:
            for kept in batches:
                need = spill_format.RECORD_HEAD + len(kept.payload)
                if self._size >= self._segment_bytes:
                    self.close()
                head = None if self._fd >= 0 else self._head_of(session, kept.n)
                data = b"" if head is None else spill_format.encode_head(head)
                if need + len(data) > room:
                    done.full = True
                    break
                if head is not None:
                    self._open(head, data)
                self._append(kept, need)
                room -= need + len(data)
                self._tell(done, kept, need)
            self.sync(FSYNC_EVERY)
        except OSError as error:
            done.error = error
        return done

    def _tell(self, done: Written, kept: Kept, need: int) -> None:
        if not done.pieces or done.pieces[-1][0] != self._path:
            assert self._head is not None
            done.pieces.append((self._path, Piece(kept.n, from_ns=kept.at_ns), self._head))
        piece = done.pieces[-1][1]
        piece.starts.append(self._size - need)
        piece.end, piece.at_ns, done.last = self._size, kept.at_ns, kept.n
        done.sizes[self._path] = self._size

    def _append(self, kept: Kept, need: int) -> None:
        head = spill_format.encode_record(kept.n, kept.payload, kept.frames, kept.at_ns)
        try:
            written = os.writev(self._fd, (head, kept.payload))
            if written != need:
                _write(self._fd, (head + kept.payload)[written:])
        except OSError:
            # Whatever stands there of it is cut off; where that fails too, a new segment begins and the torn end of
            # this one is found when it is read.
            try:
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
            except OSError:
                self._forget_file()
            raise
        self._size += need
        for record in kept.controls:
            self._view.apply(record)
        self._unsynced_since = self._unsynced_since or monotonic()

    def _head_of(self, session: control.Session, first: int) -> SegmentHead:
        view = [(conn, control.encode(record)) for conn, record in self._view.records()]
        return SegmentHead(
            spill_format.VERSION, self._shard, session.session, session.replica, session.started_ns, first, now_ns(),
            view,
        )  # fmt: skip

    def _open(self, head: SegmentHead, data: bytes) -> None:
        path = self._folder / f"{head.session.rpartition('-')[2]}-{head.first:012d}{SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, data)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._fd, self._path, self._size, self._head = fd, path, len(data), head
        self._unsynced_since = monotonic()

    def sync(self, older_than: float = 0.0) -> None:
        """Have what was written on disk, if the oldest of it is not synced for that long. Raises OSError."""
        if self._fd < 0 or not self._unsynced_since or self.unsynced_for < older_than:
            return
        os.fdatasync(self._fd)
        if self._head is not None:
            sync_folder(self._folder)
        self._unsynced_since = 0.0

    def close(self) -> None:
        """End the segment; a new one begins with the next batch."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self.sync()
            self._forget_file()

    def _forget_file(self) -> None:
        fd, self._fd, self._size, self._head, self._unsynced_since = self._fd, -1, 0, None, 0.0
        with contextlib.suppress(OSError):
            os.close(fd)


def _write(fd: int, data: bytes) -> None:
    """All of it; what the disk has no room for raises at the next attempt, not at the first."""
    while data:
        data = data[os.write(fd, data) :]


def sync_folder(folder: Path) -> None:
    """Have its names on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_span(path: Path, start: int, stop: int) -> bytes:
    """Bytes ``start``..``stop`` of a file, fewer where it ends before. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while start < stop and (data := os.pread(fd, stop - start, start)):
            parts.append(data)
            start += len(data)
        return b"".join(parts)
    finally:
        os.close(fd)


def scan_file(path: Path) -> tuple[Scanned, int]:
    """(what it holds, its size). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size

        def read(offset: int, length: int) -> bytes:
            return os.pread(fd, length, offset)

        return spill_format.scan(read, size), size
    finally:
        os.close(fd)


def remove(paths: Sequence[Path]) -> list[Path]:
    """Delete segments, oldest first; answers those that are still there."""
    left: list[Path] = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            left.append(path)
    return left
