"""A base backup: all files of a PostgreSQL system, from which its log goes on to any later moment.

pg_basebackup's tar is gzipped by itself, sealed and uploaded as it comes. It is of no use without the log that was
written meanwhile, so its manifest is written only when that lies at the destination too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from feedmill import __version__
from feedmill.accounts.keyring import Keyring
from feedmill.general.backup import record, slot
from feedmill.general.backup.manifest import Manifest, encode
from feedmill.general.backup.names import Names, new_id
from feedmill.general.backup.programs import ProgramError, Running, program, reach, require_major
from feedmill.general.backup.progress import Progress, counted, silent
from feedmill.general.backup.seal import Sealer, seal
from feedmill.general.backup.stores.base import ObjectStore, StoreError, put_bytes
from feedmill.general.backup.wal import judge
from feedmill.general.backup.wal_plan import Segment, segment_of
from feedmill.shared import postgres
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.log import get_logger

LOG_PATIENCE = 900.0
"""Seconds in which the log that belongs to it must reach the destination."""
_SLOT_PATIENCE = 60.0
"""Seconds in which somebody must make the server keep its log: who receives it may just be beginning anew."""
_LOOK, _LOOK_AT_SLOT = 2.0, 10.0
_CLEAN_UP = 10.0
"""Seconds to remove what is half-made; what stays without a manifest is removed by prune."""
_PIECE = 1 << 18
_GZIP = 31
"""zlib's window bits for the gzip format."""
_LABEL = re.compile(r"START WAL LOCATION: [0-9A-F]+/[0-9A-F]+ \(file ([0-9A-F]{24})\)")
_LABEL_WITHIN = 1 << 16
"""Bytes of the archive that hold its label: it comes first."""
_TABLESPACES = "can only write single tablespace"
log = get_logger()


class BaseFailed(Exception):
    """A base backup did not come about; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Server:
    system: str
    segment_bytes: int
    major: int
    version: str
    schema_version: str
    database: str
    role: str


async def run_base(
    database: DatabaseUrl,
    store: ObjectStore,
    ring: Keyring,
    names: Names,
    *,
    progress: Progress = silent,
    log_patience: float = LOG_PATIENCE,
) -> Manifest:
    """Make one, while somebody receives the log (``feedmill run backup``). Where it fails nothing stays there of it.

    Raises BaseFailed, NotAllowed, ProgramError, StoreError, and what PostgreSQL's connections raise.
    """
    started = now_ns()
    backup_id = new_id("base", started)
    async with _session(database) as connection:
        await slot.require_allowed(connection)
        server = await _look(connection)
        await record.begin(
            connection,
            backup_id,
            "base",
            destination=store.where,
            folder=names.data(backup_id).rpartition("/")[0],
            started_ns=started,
            schema_version=server.schema_version,
        )
    try:
        manifest = await _make(database, store, ring, names, backup_id, started, server, progress, log_patience)
    except BaseException as error:
        await _give_up(database, store, names, backup_id, error)
        raise
    await _told(database, manifest)
    return manifest


async def _make(
    database: DatabaseUrl,
    store: ObjectStore,
    ring: Keyring,
    names: Names,
    backup_id: str,
    started: int,
    server: _Server,
    progress: Progress,
    log_patience: float,
) -> Manifest:
    path = program("pg_basebackup")
    await asyncio.to_thread(require_major, path, server.major)
    progress("waiting for who receives the log", 0, 0)
    await _until_kept(database, names, min(log_patience, _SLOT_PATIENCE))
    command: list[str | Path] = [
        path,
        "--pgdata=-",
        "--format=tar",
        "--wal-method=none",
        "--checkpoint=fast",
        "--compress=client-gzip:1",
    ]
    command += ["--no-password", "--verbose", f"--label={backup_id}"]
    sealer = Sealer(names.data(backup_id), ring)
    async with reach(database.get()) as environment:
        running = await Running.start(command, environment | {"PGAPPNAME": "feedmill base backup"}, writes=True)
        try:
            content = _Content(running)
            source = counted(content.read(), progress, "base backup")
            stored = await store.put(names.data(backup_id), seal(source, sealer))
        finally:
            await running.stop()
    ended = now_ns()
    first = content.first_segment(server.segment_bytes)
    last = await _last_segment(database, first, server.segment_bytes)
    timeline = first.timeline
    needed = [Segment(number, timeline) for number in range(first.number, last.number + 1)]
    progress("waiting for its log", 0, 0)
    await _await_log(database, store, names, server, needed, log_patience)
    manifest = Manifest(
        id=backup_id,
        kind="base",
        namespace=names.namespace,
        pipeline=names.pipeline,
        object=names.data(backup_id),
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        plain_bytes=content.size,
        key_id=sealer.key_id,
        started_ns=started,
        ended_ns=ended,
        snapshot_ns=started,
        schema_version=server.schema_version,
        feedmill_version=__version__,
        server_version=server.version,
        system=server.system,
        timeline=timeline,
        wal_from=first.name(server.segment_bytes),
        wal_to=last.name(server.segment_bytes),
        wal_segment_bytes=server.segment_bytes,
        database=server.database,
        role=server.role,
    )
    await put_bytes(store, names.manifest(backup_id), encode(manifest))
    return manifest


class _Content:
    """The program's output. A failure of the program is one of the reading, so a half object is never stored."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._beginning = b""
        self.size = 0

    def first_segment(self, size: int) -> Segment:
        """The first part of the log that it needs, as its label says: the archive's first file. Raises BaseFailed."""
        opened = zlib.decompressobj(_GZIP).decompress(self._beginning)
        label = _LABEL.search(opened.decode("ascii", "replace"))
        segment = None if label is None else segment_of(label[1], size)
        if segment is None:
            raise BaseFailed("pg_basebackup did not say in its label which log belongs to its backup")
        return segment

    async def read(self) -> AsyncGenerator[bytes, None]:
        while piece := await self._running.stdout.read(_PIECE):
            self.size += len(piece)
            if len(self._beginning) < _LABEL_WITHIN:
                self._beginning += piece
            yield piece
        code = await self._running.end()
        if code == 0:
            return
        if _TABLESPACES in self._running.said:
            raise BaseFailed(
                "the server has tablespaces of its own, which a base backup here cannot hold: continuous backup needs "
                "a server without them; the logical backups of spec.backup.schedule go on"
            )
        raise judge(self._running.failure(code))


async def _last_segment(database: DatabaseUrl, first: Segment, size: int) -> Segment:
    """The last one that belongs to it: the server began a new one when it was whole. Raises BaseFailed."""
    async with _session(database) as connection:
        current = segment_of(await connection.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn() + 1)"), size)
    if current is None or current.timeline != first.timeline or current.number <= first.number:
        raise BaseFailed("the server was replaced or promoted while its base backup was made: make another")
    return Segment(current.number - 1, first.timeline)


async def _until_kept(database: DatabaseUrl, names: Names, patience: float) -> None:
    """Wait until the server keeps its log for the pipeline: one that it writes before that may never be stored."""
    name, until = slot.slot_name(names.namespace, names.pipeline), monotonic() + patience
    async with _session(database) as connection:
        while True:
            seen = await slot.look(connection, name)
            if seen.kept_from is not None and not seen.lost:
                return
            if monotonic() > until:
                raise BaseFailed(
                    f"nobody receives the log, without which a base backup is of no use: for {patience:g} s there was "
                    f"no replication slot {name} that is good: is feedmill run backup running?"
                )
            await asyncio.sleep(min(_LOOK, patience / 2))


async def _await_log(
    database: DatabaseUrl, store: ObjectStore, names: Names, server: _Server, needed: list[Segment], patience: float
) -> None:
    until, again = monotonic() + patience, 0.0
    left = list(needed)
    while left:
        kept = left[0]
        if monotonic() >= again:
            # Before the destination is looked at: the server forgets a file only once it is there, or for good.
            kept = await _first_kept(database, names) or kept
            again = monotonic() + _LOOK_AT_SLOT
        file = left[0].name(server.segment_bytes)
        name = names.wal(server.system, file)
        if any(found.name == name for found in await store.list(name)):
            del left[0]
            continue
        if kept.number > left[0].number:
            raise BaseFailed(
                f"the WAL that belongs to the base backup will not reach the destination: the server has let go of "
                f"{file}, since the log was begun anew meanwhile: make another"
            )
        if monotonic() > until:
            raise BaseFailed(
                f"the WAL that belongs to the base backup ({file} to {left[-1].name(server.segment_bytes)}) did not "
                f"reach the destination within {patience:g} s: is feedmill run backup running?"
            )
        await asyncio.sleep(_LOOK)


async def _first_kept(database: DatabaseUrl, names: Names) -> Segment | None:
    """The first file of its log that the server keeps; None where it keeps none, or cannot be asked."""
    try:
        async with _session(database) as connection:
            seen = await slot.look(connection, slot.slot_name(names.namespace, names.pipeline))
    except postgres.RETRYABLE:
        return None
    return None if seen.kept_from is None else seen.next


@contextlib.asynccontextmanager
async def _session(database: DatabaseUrl) -> AsyncGenerator[asyncpg.Connection, None]:
    connection = await postgres.connect(database, name="feedmill base backup")
    try:
        yield connection
    finally:
        await postgres.close(connection)


async def _look(connection: asyncpg.Connection) -> _Server:
    schema_version = await postgres.require_schema(connection)
    row = await connection.fetchrow(
        "SELECT (SELECT system_identifier FROM pg_control_system())::text AS system, current_database() AS name, "
        "(SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS segment_bytes, current_user AS "
        "role, current_setting('server_version') AS version, current_setting('server_version_num')::int AS number"
    )
    assert row is not None
    return _Server(
        system=row["system"],
        segment_bytes=row["segment_bytes"],
        major=row["number"] // 10000,
        version=row["version"].split()[0],
        schema_version=schema_version,
        database=row["name"],
        role=row["role"],
    )


async def _told(database: DatabaseUrl, manifest: Manifest) -> None:
    """The row of one that is stored. The destination is the truth: that it cannot be written is no failure."""
    try:
        async with _session(database) as connection:
            await record.succeeded(connection, manifest)
    except postgres.RETRYABLE as error:
        log.warning("backup.not_recorded", backup=manifest.id, error=postgres.describe(error))


async def _give_up(
    database: DatabaseUrl, store: ObjectStore, names: Names, backup_id: str, error: BaseException
) -> None:
    """What was stored of it is of no use; what became of it is written down, where that is possible."""
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(_CLEAN_UP):
            # First what makes it exist: its writing may have failed after it was written.
            await store.delete(names.manifest(backup_id))
            await store.delete(names.data(backup_id))
    known = isinstance(error, (BaseFailed, slot.NotAllowed, slot.LogLost, ProgramError, StoreError))
    reason = str(error) if known else "asked to stop" if isinstance(error, asyncio.CancelledError) else repr(error)
    with contextlib.suppress(*postgres.RETRYABLE):
        async with _session(database) as connection:
            await record.failed(connection, backup_id, now_ns(), reason)
