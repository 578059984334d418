"""A folder as a place for backups: on this machine, or mounted.

An object is written beside its place under a name that begins with a dot, synced, and renamed: it is there whole or not
at all, also after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from feedmill.general.backup.stores.base import (
    PIECE,
    Found,
    ObjectMissing,
    Stored,
    StoreError,
    StoreFull,
    StoreRefused,
    checked,
    is_name,
)
from feedmill.general.backup.stores.calls import Calls

_SYNC_EVERY = 64 << 20
"""Bytes after which written data goes to the disk, so that the end of a large object does not wait for all of it."""
_LOOKS = 5
"""At a folder that others work in, after the first one."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FolderStore:
    """Objects as files below a folder. Raises StoreFull and StoreRefused; a disk is never away."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.where = f"folder {self.root}"
        self._calls = Calls("folder", self._translated, threads=2)

    def _translated(self, error: Exception) -> StoreError | None:
        if not isinstance(error, OSError):
            return None
        if isinstance(error, FileNotFoundError):
            return ObjectMissing(f"{self.where}: there is no {error.filename}")
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            return StoreFull(f"{self.where}: {reason}: make room, or keep fewer backups (spec.backup.retention)")
        return StoreRefused(f"{self.where}: {reason}: check the folder, its owner and its disk")

    def _path(self, name: str) -> Path:
        return self.root / checked(name)

    async def put(self, name: str, source: AsyncIterable[bytes]) -> Stored:
        """See ObjectStore."""
        writing = _Writing(self._path(name))
        try:
            await self._calls.once(writing.open)
            async for piece in source:
                await self._calls.once(writing.write, piece)
            return await self._calls.once(writing.finish)
        finally:
            await self._calls.once(writing.abandon)

    async def get(self, name: str) -> AsyncGenerator[bytes, None]:
        """See ObjectStore."""
        file = await self._calls.once(self._open, self._path(name))
        try:
            while piece := await self._calls.once(file.read, PIECE):
                yield piece
        finally:
            await self._calls.once(file.close)

    def _open(self, path: Path) -> BinaryIO:
        try:
            return path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(f"{self.where}: there is no object {path.relative_to(self.root)}") from None

    async def list(self, prefix: str) -> tuple[Found, ...]:
        """See ObjectStore."""
        return await self._calls.once(self._list, prefix)

    def _list(self, prefix: str) -> tuple[Found, ...]:
        found, gone = self._look(prefix)
        for _ in range(_LOOKS):
            if not gone:
                break
            # What took the place of the one that went may have come after the look.
            found, gone = self._look(prefix)
        return tuple(sorted(found, key=lambda one: one.name))

    def _look(self, prefix: str) -> tuple[Sequence[Found], bool]:
        """What is there, and whether any of it went away while it was looked at."""
        found, gone = [], False
        for path in self._files(prefix):
            name = path.relative_to(self.root).as_posix()
            if is_name(name) and name.startswith(prefix):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    gone = True
                else:
                    found.append(Found(name, status.st_size, status.st_mtime_ns))
        return found, gone

    def _files(self, prefix: str) -> Iterator[Path]:
        """All files that may belong to names with the prefix, unfinished ones too."""
        top = self.root / prefix.rpartition("/")[0]
        for folder, _, files in os.walk(top, onerror=_unless_missing):
            for file in files:
                yield Path(folder, file)

    async def delete(self, name: str) -> None:
        """See ObjectStore."""
        await self._calls.once(self._delete, self._path(name))

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self.root:
                break
            try:
                parent.rmdir()
            except OSError:
                break  # Not empty, or another one removed it.

    async def sweep(self, prefix: str, older_than_ns: int) -> int:
        """See ObjectStore."""
        return await self._calls.once(self._sweep, prefix, older_than_ns)

    def _sweep(self, prefix: str, older_than_ns: int) -> int:
        count = 0
        for path in list(self._files(prefix)):
            name = path.with_name(path.name[1:]).relative_to(self.root).as_posix()
            if path.name.startswith(".") and path.name.endswith(_UNFINISHED) and name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime_ns < older_than_ns:
                        self._delete(path)
                        count += 1
        return count

    async def check(self) -> None:
        """See ObjectStore."""
        await self._calls.once(self._check)

    def _check(self) -> None:
        writing = _Writing(self.root / "check")
        try:
            writing.open()
            writing.write(b"feedmill")
        finally:
            writing.abandon()
            for folder in writing.made:
                with contextlib.suppress(OSError):  # Somebody has put something there meanwhile.
                    folder.rmdir()

    async def close(self) -> None:
        """See ObjectStore."""
        self._calls.close()


_UNFINISHED = ".unfinished"


class _Writing:
    """One object on its way to the disk. Blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
        self.made: list[Path] = []
        """Folders that were not there, the innermost first."""
        self._fd = -1
        self._ended = False
        self._hash = hashlib.sha256()
        self._size = self._synced = 0
        self._lock = threading.Lock()
        """A cancelled writer abandons while what it did last may be under way."""

    def open(self) -> None:
        """Once, before the first write."""
        with self._lock:
            for _ in range(3):
                # A deletion beside us may take an empty folder away again.
                with contextlib.suppress(FileNotFoundError):
                    self.made = _make_folders(self._path.parent)
                    if not self._ended:
                        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                        self._fd = os.open(self._temporary, flags, 0o600)
                    return
        raise OSError(errno.EBUSY, "its folders are removed again and again", str(self._path.parent))

    def write(self, piece: bytes) -> None:
        with self._lock:
            self._write(piece)

    def _write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            left = left[os.write(self._fd, left) :]
        self._hash.update(piece)
        self._size += len(piece)
        if self._size - self._synced >= _SYNC_EVERY:
            os.fdatasync(self._fd)
            self._synced = self._size

    def finish(self) -> Stored:
        with self._lock:
            os.fsync(self._fd)
            self._close()
            self._temporary.replace(self._path)
            # Of a new folder the entry in the one above it, too.
            for folder in (self._path.parent, *(each.parent for each in self.made)):
                _sync_folder(folder)
            return Stored(self._size, self._hash.hexdigest())

    def abandon(self) -> None:
        """Leave nothing, unless it was finished."""
        with self._lock, contextlib.suppress(OSError):
            self._ended = True
            self._close()
            self._temporary.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _make_folders(folder: Path) -> list[Path]:
    """Make ``folder`` for us alone; what was made, the innermost first."""
    missing = list(takewhile(lambda each: not each.is_dir(), (folder, *folder.parents)))
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    return missing


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # What not every shared folder of a virtual machine can do.
            raise
    finally:
        os.close(fd)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
