"""Receives the log of a PostgreSQL server with pg_receivewal, and stores files of it: gzipped, then sealed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.programs import ProgramError, Running, program, reach, require_major
from feedmill.general.backup.seal import Sealer, Unsealer, seal, unseal
from feedmill.general.backup.slot import LogLost, NotAllowed
from feedmill.general.backup.stores.base import ObjectStore, Stored

_PIECE = 1 << 20
_LEVEL = 1
"""Of the compression: the log is a stream that must keep up."""
_STATUS_SECONDS = 1
"""How often pg_receivewal tells the server how far it is."""
_GZIP = 31
"""zlib's window bits for the gzip format."""
_NOT_ALLOWED = (
    (
        r"no pg_hba\.conf entry for replication|pg_hba\.conf rejects replication",
        "its pg_hba.conf lets no replication connection in: add a line `host replication ROLE ADDRESS scram-sha-256`",
    ),
    (r"must be superuser or replication role|permission denied to start WAL sender", "the role may not replicate"),
    (r"exceeds max_wal_senders", "all its max_wal_senders are taken: raise it, or end what takes them"),
)
_LOST = r"has already been removed|is not in this server's history|requested starting point .* is ahead of"


async def receive(url: str, folder: Path, name: str, major: int) -> None:
    """Receive until cancelled, into ``folder``, from where the files there end. ``name`` appears as application_name;
    ``major``: the server's version.

    Raises NotAllowed, LogLost, or ProgramError when it cannot go on now (the server stopped, is away).
    """
    path = program("pg_receivewal")
    await asyncio.to_thread(require_major, path, major)
    command: list[str | Path] = [path, "--directory", folder, "--no-loop", "--no-password"]
    async with reach(url) as environment:
        running = await Running.start(
            [*command, "--status-interval", str(_STATUS_SECONDS)], environment | {"PGAPPNAME": name}
        )
        try:
            code = await running.end()
        finally:
            await running.stop()
    raise judge(running.failure(code))


def judge(error: ProgramError) -> Exception:
    """What its failure means."""
    said = str(error)
    for pattern, meaning in _NOT_ALLOWED:
        if re.search(pattern, said):
            return NotAllowed(f"{meaning} ({said})")
    return LogLost(said) if re.search(_LOST, said) else error


async def store_file(store: ObjectStore, ring: Keyring, name: str, path: Path) -> Stored:
    """Store a file of the log under ``name``; what is written to it meanwhile may be in it or not.

    Raises as :meth:`ObjectStore.put`, and OSError where the file cannot be read.
    """
    return await store.put(name, seal(_compressed(path), Sealer(name, ring)))


async def _compressed(path: Path) -> AsyncGenerator[bytes, None]:
    made = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield await asyncio.to_thread(made.compress, piece)
    yield await asyncio.to_thread(made.flush)


async def open_file(store: ObjectStore, ring: Keyring, name: str) -> AsyncGenerator[bytes, None]:
    """The content of a file of the log, in pieces of at most 1 MiB: a server's files may be of 1 GB.

    Raises as :meth:`ObjectStore.get`, SealedError, zlib.error.
    """
    made = zlib.decompressobj(_GZIP)
    async with contextlib.aclosing(store.get(name)) as stored:
        async for sealed in unseal(stored, Unsealer(name, ring, store.where)):
            piece = await asyncio.to_thread(made.decompress, sealed, _PIECE)
            while piece:
                yield piece
                piece = await asyncio.to_thread(made.decompress, made.unconsumed_tail, _PIECE)


async def read_file(store: ObjectStore, ring: Keyring, name: str) -> bytes:
    """The content of a small one. Raises as :func:`open_file`."""
    async with contextlib.aclosing(open_file(store, ring, name)) as pieces:
        return b"".join([piece async for piece in pieces])


async def fetch_file(store: ObjectStore, ring: Keyring, name: str, path: Path) -> None:
    """Write the content of a file of the log to ``path``. Raises as :func:`open_file`, and OSError."""
    with await asyncio.to_thread(path.open, "wb", buffering=0) as target:
        async with contextlib.aclosing(open_file(store, ring, name)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(target.write, piece)
