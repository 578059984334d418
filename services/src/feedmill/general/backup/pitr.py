"""A restore to a moment: a base backup is unpacked, the log replayed up to then, and the database taken out as a dump.

The dump is restored by the same way as a logical backup, so the target is empty or whole here too, may be any server,
and another one than the log is of.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.content import Content, ContentError, MomentMissing, read_object, require_readable
from feedmill.general.backup.dump import dump, hold
from feedmill.general.backup.ending import to_its_end
from feedmill.general.backup.log_server import LogServer
from feedmill.general.backup.progress import Progress
from feedmill.general.backup.replaying import ReplayingPostgres, is_its_fault, why_it_failed
from feedmill.general.backup.scratch import scratch_folder
from feedmill.general.backup.stores.base import ObjectStore
from feedmill.general.backup.wal_plan import Log, Reach
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.files import socket_folder
from feedmill.shared import postgres
from feedmill.shared.clock import iso

PREFIX, _SOCKETS = "feedmill-replay-", "feedmill-log-"
_LAST = "SELECT (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint"


@contextlib.asynccontextmanager
async def moment_content(
    store: ObjectStore,
    ring: Keyring,
    reach: Reach,
    log: Log,
    to_ns: int | None,
    folder: Path | None,
    progress: Progress,
) -> AsyncGenerator[Content, None]:
    """The pipeline's database as of ``to_ns`` (None: as far as ``reach`` goes), to be read while this is entered.

    ``folder``: where the scratch server lies (default: that of temporary files); it takes the size of the whole server
    that the base backup is of. Raises ContentError, SealedError, StoreError, EmbeddedError, ProgramError, OSError.
    """
    require_readable(reach.base, ring)
    async with replayed(store, ring, reach, log, to_ns, folder, progress) as url:
        last_ns = await _last_replayed(url)
        async with hold(url) as held:
            progress("count", 0, 0)
            tally = await held.tally()
            snapshot = held.snapshot
            yield Content(
                backup=reach.base,
                content_ns=to_ns or last_ns or reach.base.snapshot_ns,
                schema=snapshot.schema,
                revision=snapshot.revision,
                read=lambda: dump(url, snapshot),
                row_counts=tally.rows,
                hashes=tally.hashes,
                note=_beyond(reach) if to_ns is None else "",
            )


def _beyond(reach: Reach) -> str:
    if not reach.beyond:
        return ""
    return f"{reach.beyond} stored files of the log could not be used, since files before them are missing"


@contextlib.asynccontextmanager
async def replayed(
    store: ObjectStore,
    ring: Keyring,
    reach: Reach,
    log: Log,
    to_ns: int | None,
    folder: Path | None,
    progress: Progress,
) -> AsyncGenerator[str, None]:
    """The URL of a scratch server that has replayed the log. Raises as :func:`moment_content`."""
    async with scratch_folder(_SOCKETS, None) as sockets, scratch_folder(PREFIX, folder) as place:
        if socket_folder(sockets, ".s.PGSQL.65535") is None:
            raise EmbeddedError(f"{sockets}: is too long a path for a socket: set TMPDIR to a shorter one")
        server = ReplayingPostgres(place, sockets, reach.base, to_ns)
        try:
            await unpack(read_object(store, ring, reach.base, progress, "base backup"), server.cluster)
            log_server = LogServer(store, ring, log, reach, place / "log", progress)
            async with log_server.listening(server.asked):
                await _start(server, log_server, reach, to_ns)
            yield server.url
        finally:
            # In this order also when we are cancelled: the server must have let go of its files.
            await to_its_end(asyncio.to_thread(server.kill))


async def _start(server: ReplayingPostgres, log_server: LogServer, reach: Reach, to_ns: int | None) -> None:
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    try:
        await asyncio.shield(starting)
    except EmbeddedError as error:
        if log_server.failure is not None:
            raise log_server.failure from None
        why = why_it_failed(error)
        if why and to_ns is not None:
            raise MomentMissing(
                f"base backup {reach.base.id}, its log stored up to about {iso(reach.until_ns)}, cannot be brought to "
                f"{iso(to_ns)}: {why}"
            ) from None
        if is_its_fault(error):
            raise ContentError(f"base backup {reach.base.id} and its log cannot be replayed: {error}") from None
        raise
    finally:
        if not starting.done():
            server.interrupt()
            await asyncio.gather(starting, return_exceptions=True)


async def _last_replayed(url: str) -> int | None:
    """When what was replayed last was committed, ns since the epoch; None where nothing was."""
    connection = await postgres.connect(url, name="feedmill restore")
    try:
        microseconds = await connection.fetchval(_LAST)
    finally:
        await postgres.close(connection)
    return None if microseconds is None else int(microseconds) * 1000


async def unpack(source: AsyncGenerator[bytes, None], folder: Path) -> None:
    """A gzipped tar into ``folder``, which is made, at the pace of the slower side.

    Raises ContentError where it is none, OSError, and what reading raises.
    """
    reading, writing = os.pipe()
    unpacking = asyncio.ensure_future(asyncio.to_thread(_extract, reading, folder))
    try:
        async with contextlib.aclosing(source) as pieces:
            await _pour(pieces, writing, unpacking)
    finally:
        os.close(writing)
        failed = (await asyncio.gather(unpacking, return_exceptions=True))[0]
    if isinstance(failed, BaseException):
        raise failed


_CAREFUL: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python before 3.11.4 (Debian 12) has no filters."""


async def _pour(pieces: AsyncIterable[bytes], writing: int, unpacking: asyncio.Future[None]) -> None:
    """Also what follows after the archive's end is read: only the end of the object proves it. Not where unpacking has
    failed: nothing is made of it then."""
    is_read = True
    async for piece in pieces:
        if is_read:
            try:
                # Its end is closed by whoever is cancelled: not while the thread writes to it.
                await to_its_end(asyncio.to_thread(_write, writing, piece))
            except BrokenPipeError:
                is_read = False
                await asyncio.wait({unpacking})
                if unpacking.exception() is not None:
                    return


def _write(writing: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(writing, view) :]


def _plain(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What a base backup is made of: files and folders inside of it. Raises TarError for anything else."""
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if not (member.isreg() or member.isdir()) or member.name.startswith("/") or ".." in parts:
            raise tarfile.TarError(f"{member.name!r} is no file or folder of a database's")
        yield member


def _extract(reading: int, folder: Path) -> None:
    with os.fdopen(reading, "rb") as file:
        folder.mkdir(mode=0o700)
        try:
            with tarfile.open(fileobj=file, mode="r|gz") as archive:
                archive.extractall(folder, members=_plain(archive), **_CAREFUL)  # noqa: S202 - members are looked at
        except tarfile.TarError as error:
            raise ContentError(f"the base backup cannot be unpacked: {error}; take another one") from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ContentError(
                f"{folder}: no room for the base backup's files, which are as large as the server it is of: name a "
                "folder with more (--scratch-dir, on a cluster spec.backup.scratch.size)"
            ) from error
        folder.chmod(0o700)
