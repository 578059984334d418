"""A PostgreSQL of its own for a while, in a folder that is gone afterwards: a drill's, whatever becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from feedmill.local.embedded import EmbeddedPostgres

PREFIX = "feedmill-drill-"


@contextlib.asynccontextmanager
async def scratch_server(
    folder: Path | None = None, options: Mapping[str, str] | None = None
) -> AsyncGenerator[EmbeddedPostgres, None]:
    """Started, empty. ``folder``: where it lies (default: that of temporary files). Raises EmbeddedError, OSError.

    Nothing in it is worth a sync to disk.
    """
    place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=PREFIX, dir=folder))
    server = EmbeddedPostgres(place, fsync=False, options={"autovacuum": "off", **(options or {})})
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        # In this order also when we are cancelled: the server must have let go of its files.
        await asyncio.shield(asyncio.to_thread(_remove, server, place))


def _remove(server: EmbeddedPostgres, place: Path) -> None:
    server.kill()
    shutil.rmtree(place, ignore_errors=True)
