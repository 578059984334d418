"""A PostgreSQL of its own for a while, in a folder that is gone afterwards: a drill's, whatever becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from feedmill.general.backup.ending import to_its_end
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.local.embedded.errors import DataDirInUse, EmbeddedError
from feedmill.local.embedded.files import DirLock, private_folder

PREFIX = "feedmill-drill-"
_ENDING = 10.0
"""Seconds that a server without an owner may take to end."""


@contextlib.asynccontextmanager
async def scratch_server(
    folder: Path | None = None, options: Mapping[str, str] | None = None
) -> AsyncGenerator[EmbeddedPostgres, None]:
    """Started, empty. ``folder``: where it lies (default: that of temporary files). Raises EmbeddedError.

    Nothing in it is worth a sync to disk.
    """
    async with scratch_folder(PREFIX, folder) as place:
        server = EmbeddedPostgres(place, fsync=False, options={"autovacuum": "off", **(options or {})})
        try:
            await asyncio.to_thread(server.start)
            yield server
        finally:
            # In this order also when we are cancelled: the server must have let go of its files.
            await to_its_end(asyncio.to_thread(server.kill))


@contextlib.asynccontextmanager
async def scratch_folder(prefix: str, parent: Path | None) -> AsyncGenerator[Path, None]:
    """A folder for a while. Those that killed processes left beside it are removed. Raises EmbeddedError."""
    place = Path(parent or tempfile.gettempdir())
    try:
        outer, lock = await asyncio.to_thread(_make, prefix, place)
    except OSError as error:
        raise EmbeddedError(
            f"{place}: cannot be used for what is put aside: {error.strerror}: name a folder that is there and has "
            "room with --scratch-dir, or by TMPDIR"
        ) from error
    try:
        yield outer / "data"
    finally:
        lock.release()
        await to_its_end(asyncio.to_thread(shutil.rmtree, outer, ignore_errors=True))


def _remove(left: Path) -> None:
    """What a killed process left. Its server ends a moment after it, and would put files back under our hands."""
    data = left / "data"
    lock = DirLock(data, "scratch folder")
    try:
        if data.is_dir():
            lock.acquire(timeout=_ENDING)
    except (DataDirInUse, OSError):
        return  # Whoever comes next removes it, or its owner.
    shutil.rmtree(left, ignore_errors=True)
    lock.release()


def _make(prefix: str, parent: Path) -> tuple[Path, DirLock]:
    for left in parent.glob(f"{prefix}*"):
        # One without a lock was made a moment ago by somebody else, who is about to take it.
        if (left / "lock").exists() and not DirLock.is_held(left):
            _remove(left)
    outer = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    outer.chmod(0o711)  # A server that may not run as root runs as nobody, and must get to its own folder.
    lock = DirLock(outer, "scratch folder")
    lock.acquire(timeout=1.0)
    private_folder(outer / "data")
    return outer, lock
