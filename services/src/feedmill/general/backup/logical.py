"""A logical backup: pg_dump of one snapshot, sealed, stored, and described by a manifest that is written last.

Whatever ends it before that, there is no backup: an object without a manifest counts as nothing and is swept away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable
from typing import Any, TypeVar

import asyncpg

from feedmill import __version__
from feedmill.accounts.keyring import Keyring
from feedmill.general.backup import locks, record
from feedmill.general.backup.dump import DumpError, dump, hold
from feedmill.general.backup.manifest import Manifest, encode
from feedmill.general.backup.names import Names, new_id
from feedmill.general.backup.progress import Progress, counted, silent
from feedmill.general.backup.seal import Sealer, seal
from feedmill.general.backup.stores.base import ObjectStore, StoreError, put_bytes
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns

A = TypeVar("A")
B = TypeVar("B")
_CLEANING = 20.0
"""Seconds for tidying up after a failure."""


async def run_logical(
    store: ObjectStore,
    names: Names,
    ring: Keyring,
    database_url: str,
    *,
    log: Any,
    progress: Progress = silent,
    expected: int = 0,
) -> Manifest:
    """Make one. ``expected``: bytes of the dump, for the progress (what the last one had; 0 = not known).

    Raises DumpError, ProgramError, StoreError and its kinds, SchemaBehind, asyncpg errors, OSError, TimeoutError. Every
    failure once it began is a row of ``backups`` too, as far as the database can be reached.
    """
    backup_id = new_id("logical", started_ns := now_ns())
    connection = await postgres.connect(database_url, name="feedmill backup record")
    try:
        revision = await postgres.require_schema(connection)
        if not await locks.take(connection, locks.BACKUP):
            raise DumpError("another backup of this database is being made: wait for it")
        await record.close_cut_off(connection, "logical", before_ns=started_ns, ended_ns=started_ns)
        await record.begin(
            connection, backup_id, "logical", destination=store.where, folder=names.data(backup_id).rpartition("/")[0],
            started_ns=started_ns, schema_version=revision,
        )  # fmt: skip
        log.info("backup.begun", backup=backup_id, destination=store.where)
        try:
            manifest = await _make(store, names, ring, database_url, backup_id, started_ns, progress, expected)
        except BaseException as error:
            await _tidy(store, names, backup_id, connection, error)
            raise
        await _told(connection, database_url, manifest, log)
    finally:
        await postgres.close(connection)
    log.info(
        "backup.done", backup=backup_id, size_bytes=manifest.size_bytes, seconds=round(manifest.seconds, 1),
        rows=sum(manifest.row_counts.values()),
    )  # fmt: skip
    return manifest


async def _make(
    store: ObjectStore, names: Names, ring: Keyring, database_url: str, backup_id: str, started_ns: int,
    progress: Progress, expected: int,
) -> Manifest:  # fmt: skip
    async with hold(database_url) as held:
        snapshot = held.snapshot
        sealer = Sealer(names.data(backup_id), ring)
        plain = _Counting()
        async with contextlib.aclosing(dump(database_url, snapshot)) as pieces:
            content = plain.of(counted(pieces, progress, "dump", expected))
            tally, stored = await _both(held.tally(), store.put(names.data(backup_id), seal(content, sealer)))
        await held.still()
    manifest = Manifest(
        id=backup_id,
        kind="logical",
        namespace=names.namespace,
        pipeline=names.pipeline,
        object=names.data(backup_id),
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        plain_bytes=plain.bytes,
        key_id=sealer.key_id,
        started_ns=started_ns,
        ended_ns=now_ns(),
        snapshot_ns=snapshot.taken_ns,
        schema_version=snapshot.revision,
        feedmill_version=__version__,
        server_version=snapshot.server_version,
        schema_name=snapshot.schema,
        row_counts=tally.rows,
        checksums=tally.hashes,
    )
    await put_bytes(store, names.manifest(backup_id), encode(manifest))
    return manifest


class _Counting:
    """How many bytes went through."""

    def __init__(self) -> None:
        self.bytes = 0

    async def of(self, source: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        async for piece in source:
            self.bytes += len(piece)
            yield piece


async def _both(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """What both answer; when one fails the other is ended, and the failure raised."""
    one, other = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        await asyncio.wait({one, other}, return_when=asyncio.FIRST_EXCEPTION)
        for task in (one, other):
            if task.done():
                task.result()
        return await one, await other
    finally:
        for task in (one, other):
            task.cancel()
        await asyncio.gather(one, other, return_exceptions=True)


async def _tidy(
    store: ObjectStore, names: Names, backup_id: str, connection: asyncpg.Connection, error: BaseException
) -> None:
    """After a failure: no object stays, and the row says why. What cannot be done now the next run does."""
    why = "stopped before its end" if isinstance(error, asyncio.CancelledError) else f"{error}" or type(error).__name__
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(_CLEANING):
            # First what makes it exist: its writing may have failed, or been stopped, after it was written.
            await store.delete(names.manifest(backup_id))
            await store.delete(names.data(backup_id))
    with contextlib.suppress(*postgres.RETRYABLE):
        async with asyncio.timeout(_CLEANING):
            await record.failed(connection, backup_id, now_ns(), why)


async def _told(connection: asyncpg.Connection, database_url: str, manifest: Manifest, log: Any) -> None:
    """The row of a backup that is stored. The destination is the truth: that it cannot be written is no failure."""
    try:
        await record.succeeded(connection, manifest)
        return
    except postgres.RETRYABLE:
        pass  # The session may have ended during an hour of dumping.
    again: asyncpg.Connection | None = None
    try:
        again = await postgres.connect(database_url, name="feedmill backup record")
        await record.succeeded(again, manifest)
    except postgres.RETRYABLE as error:
        log.warning("backup.not_recorded", backup=manifest.id, error=postgres.describe(error))
    finally:
        await postgres.close(again)
