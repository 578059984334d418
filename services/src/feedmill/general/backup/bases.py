"""When a base backup is due, and making it: by schedule, and whenever the log that is stored hangs on none."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from dataclasses import dataclass
from typing import Any

from feedmill.general.backup import measures, record
from feedmill.general.backup.base import BaseFailed, run_base
from feedmill.general.backup.manifest import Manifest, ManifestError, decode_manifest
from feedmill.general.backup.names import backup_of
from feedmill.general.backup.programs import ProgramError
from feedmill.general.backup.receiving import Receiver
from feedmill.general.backup.seal import SealedError
from feedmill.general.backup.slot import LogLost, NotAllowed, Server
from feedmill.general.backup.stores.base import StoreError, get_bytes
from feedmill.general.backup.target import Target
from feedmill.general.backup.wal import read_file
from feedmill.general.backup.wal_plan import Lineage, connected, history_name, lineage_of, logs_of
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import SECOND, monotonic, now_ns
from feedmill.shared.config import ConfigError
from feedmill.shared.database_url import DatabaseUrl

LOOK_EVERY = 3600.0
"""Seconds between two looks at whether the log at the destination still hangs together."""
HISTORY_PATIENCE = 60.0
"""Seconds until the history of a timeline that the server is on must be stored: it comes before the log of it."""
_LOOK = 1.0
_FAILURES = (
    BaseFailed,
    NotAllowed,
    LogLost,
    ProgramError,
    StoreError,
    ManifestError,
    ConfigError,
    postgres.SchemaBehind,
    *postgres.RETRYABLE,
)


@dataclass(slots=True)
class BaseState:
    """For health. Times are ns since the epoch, 0 = never or not known."""

    last_id: str = ""
    last_ns: int = 0
    next_ns: int = 0
    running: bool = False
    bytes_done: int = 0
    error: str = ""
    why: str = ""
    """Why the one that runs, or ran last, was due."""


class Bases:
    """``run`` until cancelled, beside a receiver."""

    def __init__(self, database: DatabaseUrl, target: Target, receiver: Receiver, log: Any) -> None:
        self.state = BaseState()
        self._database = database
        self._target = target
        self._receiver = receiver
        self._log = log
        self._known: dict[str, Manifest] = {}
        self._told = False

    async def run(self) -> None:
        backoff = Backoff(5.0, 900.0, floor=2.0)
        while True:
            await self._until_receiving()
            # Before looking: for what becomes another meanwhile, it is looked once more.
            self._receiver.changed.clear()
            try:
                why = await self._due()
                if self._known and not self._told:
                    await self._tell_stored()
                if why:
                    await self._make(why)
                wait, self.state.error = self._until_next(), ""
                backoff.reset()
            except _FAILURES as error:
                wait = backoff.next()
                self.state.error = _reason(error)
                self._log.warning("backup.base_failed", error=self.state.error, retry_in=round(wait, 1))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._receiver.changed.wait()

    async def _until_receiving(self) -> None:
        while self._receiver.server is None:
            self._receiver.changed.clear()
            await self._receiver.changed.wait()

    def _until_next(self) -> float:
        now, continuous = now_ns(), self._target.spec.continuous
        self.state.next_ns = continuous.base_schedule.next_after(now, self._target.spec.time_zone) or 0
        until = (self.state.next_ns - now) / SECOND if self.state.next_ns else LOOK_EVERY
        return min(max(1.0, until), LOOK_EVERY)

    async def _due(self) -> str:
        """Why one is due now; empty when none is."""
        server = self._receiver.server
        if server is None:
            return ""
        manifests = [manifest for manifest in await self._manifests() if manifest.system == server.system]
        if not manifests:
            return "there is none of this server"
        newest = max(manifests, key=lambda manifest: manifest.started_ns)
        self.state.last_id, self.state.last_ns = newest.id, newest.ended_ns
        stored = await self._target.store.list(f"{self._target.names.wals}{server.system}/")
        log = logs_of(stored).get(server.system)
        lineage = await self._lineage(server, newest)
        if log is None or lineage is None or not connected(newest, log, server.next, lineage):
            return "the log that is stored does not go on from the last one without a gap"
        spec = self._target.spec
        last_due = spec.continuous.base_schedule.last_before(now_ns(), spec.time_zone)
        return "by schedule" if last_due is not None and newest.started_ns < last_due else ""

    async def _lineage(self, server: Server, base: Manifest) -> Lineage | None:
        """Of the server's timeline; None where it is not to be known."""
        if server.timeline <= base.timeline:
            return Lineage(server.timeline)
        store, name = self._target.store, self._target.names.wal(server.system, history_name(server.timeline))
        until = monotonic() + HISTORY_PATIENCE
        while not any(found.name == name for found in await store.list(name)):
            if monotonic() > until:
                return None
            await asyncio.sleep(_LOOK)
        try:
            history = await read_file(store, await self._target.ring(), name)
            return lineage_of(server.timeline, history.decode("utf-8", "replace"))
        except (SealedError, zlib.error, ValueError) as error:
            self._log.warning("backup.history_unreadable", error=str(error), effect="a base backup is made")
            return None

    async def _manifests(self) -> list[Manifest]:
        """Of all base backups at the destination; one that cannot be read does not count."""
        found: dict[str, Manifest] = {}
        for item in await self._target.store.list(self._target.names.backups("base")):
            backup_id = backup_of(item.name)
            if backup_id is None or not item.name.endswith("/manifest.json"):
                continue
            manifest = self._known.get(backup_id)
            if manifest is None:
                try:
                    manifest = decode_manifest(await get_bytes(self._target.store, item.name), item.name)
                except ManifestError as error:
                    self._log.warning("backup.manifest_unreadable", error=str(error))
                    continue
            found[backup_id] = manifest
        self._known = found
        return list(found.values())

    async def _make(self, why: str) -> None:
        self._log.info("backup.base_begun", why=why)
        self.state.running, self.state.why, self.state.error = True, why, ""
        try:
            await self._close_cut_off()
            manifest = await run_base(
                self._database,
                self._target.store,
                await self._target.ring(),
                self._target.names,
                progress=self._progress,
            )
        except BaseException:
            measures.runs.labels("base", "failed").inc()
            raise
        finally:
            self.state.running, self.state.bytes_done = False, 0
        measures.runs.labels("base", "succeeded").inc()
        measures.stored.labels("base").inc(manifest.size_bytes)
        self.state.last_id, self.state.last_ns = manifest.id, manifest.ended_ns
        self._log.info(
            "backup.base_done", backup=manifest.id, size_bytes=manifest.size_bytes, seconds=round(manifest.seconds, 1)
        )

    async def _tell_stored(self) -> None:
        """Rows of those that are stored, and whose process was killed before it told so. Once: then all are told."""
        connection = await postgres.connect(self._database, name="feedmill base backup")
        try:
            for backup_id in await record.running(connection, "base"):
                if backup_id in self._known:
                    await record.succeeded(connection, self._known[backup_id])
        finally:
            await postgres.close(connection)
        self._told = True

    async def _close_cut_off(self) -> None:
        """Rows of processes that were killed: whoever holds the lock of the log makes the base backups, too."""
        connection = await postgres.connect(self._database, name="feedmill base backup")
        try:
            now = now_ns()
            await record.close_cut_off(connection, "base", before_ns=now, ended_ns=now)
        finally:
            await postgres.close(connection)

    def _progress(self, _what: str, done: int, _expected: int) -> None:
        self.state.bytes_done = max(self.state.bytes_done, done)


def _reason(error: BaseException) -> str:
    return postgres.describe(error) if isinstance(error, postgres.RETRYABLE) else str(error)
