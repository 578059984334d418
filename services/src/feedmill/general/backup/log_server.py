"""Hands the stored log to a PostgreSQL that replays it: a Unix socket, asked by ``_fetch_wal.py`` for a file at a time.

The files that follow are fetched meanwhile, into a folder: of none is more in memory than a piece. A file that is not
what was stored, or a destination that does not answer, is a failure and never taken for the end of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator
from pathlib import Path

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.progress import Progress
from feedmill.general.backup.stores.base import Found, ObjectMissing, ObjectStore, StoreAway
from feedmill.general.backup.wal import fetch_file
from feedmill.general.backup.wal_plan import Log, Reach, Segment, logs_of, segment_of

AHEAD = 2
"""Files fetched before they are asked for."""
_MISSING, _FAILED, _HERE = b"-", b"!", b"+"
_PIECE = 1 << 20
"""Bytes that are written before the asker has to have taken them."""
_TRIES = 20
"""Times that a destination which is away is asked again, with :data:`_PAUSE` seconds between."""
_PAUSE = 3.0


class LogServer:
    """Serves the log of ``reach``. ``folder``: where files lie until they were asked for, made here; it is the caller's
    to remove. ``failure``: why a file could not be had; None: all could."""

    def __init__(
        self, store: ObjectStore, ring: Keyring, log: Log, reach: Reach, folder: Path, progress: Progress
    ) -> None:
        self.failure: Exception | None = None
        self._store = store
        self._ring = ring
        self._log = log
        self._size = reach.base.wal_segment_bytes
        first = segment_of(reach.base.wal_from, self._size)
        assert first is not None
        self._first, self._last = first.number, reach.until.number
        self._folder = folder
        self._progress = progress
        self._fetching: dict[str, asyncio.Task[Path]] = {}

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None, None]:
        """While it is entered. Raises OSError."""
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, exist_ok=True)
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield
        finally:
            server.close()
            tasks = list(self._fetching.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What it waits for is cancelled when nobody asks any more.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                file = (await reader.readline()).decode("ascii", "replace").strip()
                await self._answer(file, writer)
            finally:
                writer.close()

    async def _answer(self, file: str, writer: asyncio.StreamWriter) -> None:
        segment = segment_of(file, self._size)
        if self._object(file) is None or (segment is not None and segment.number > self._last):
            writer.write(_MISSING)
        else:
            try:
                path = await self._get(file, segment)
                size = path.stat().st_size
            except Exception as error:
                # Whatever it was: it must not be taken for the end of the log. Whoever started the server raises it.
                self.failure = error
                writer.write(_FAILED)
            else:
                # The file that was being written may have been stored before it had its size.
                lacks = max(0, self._size - size) if segment is not None else 0
                writer.write(_HERE + struct.pack("!Q", size + lacks))
                await self._send(path, writer)
                for at in range(0, lacks, _PIECE):
                    writer.write(bytes(min(_PIECE, lacks - at)))
                    await writer.drain()
        await writer.drain()

    async def _send(self, path: Path, writer: asyncio.StreamWriter) -> None:
        with await asyncio.to_thread(path.open, "rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                writer.write(piece)
                await writer.drain()

    async def _get(self, file: str, segment: Segment | None) -> Path:
        if segment is None:
            return await self._fetch(file)
        wanted = [segment.number + ahead for ahead in range(AHEAD + 1)]
        names = [Segment(number, segment.timeline).name(self._size) for number in wanted if number <= self._last]
        for name in names:
            if name not in self._fetching and self._object(name) is not None:
                self._fetching[name] = asyncio.create_task(self._fetch(name), name=f"fetch {name}")
        for name in set(self._fetching) - set(names):
            self._fetching.pop(name).cancel()
            (self._folder / name).unlink(missing_ok=True)
        path = await self._fetching[file]
        self._progress("replay", (segment.number - self._first + 1) * self._size, self._whole)
        return path

    @property
    def _whole(self) -> int:
        return (self._last - self._first + 1) * self._size

    def _object(self, file: str) -> Found | None:
        return self._log.files.get(file) or self._log.partials.get(file)

    async def _fetch(self, file: str) -> Path:
        found, path = self._object(file), self._folder / file
        assert found is not None
        for left in range(_TRIES, 0, -1):
            try:
                await fetch_file(self._store, self._ring, found.name, path)
                return path
            except ObjectMissing:
                found = await self._successor(file, found)
                if found is None or left == 1:
                    raise
                continue
            except StoreAway:
                if left == 1:
                    raise
            await asyncio.sleep(_PAUSE)
        raise AssertionError

    async def _successor(self, file: str, former: Found) -> Found | None:
        """While the log goes on, the file that is being written is replaced by more of it every few seconds."""
        for log in logs_of(await self._store.list(f"{former.name.rpartition('/')[0]}/{file}")).values():
            found = log.files.get(file) or log.partials.get(file)
            if found is not None and found.name != former.name:
                return found
        return None
