"""Keeps the log of one database coming: whether the server allows it, the slot, pg_receivewal, and the bounds.

One process at a time (an advisory lock). While the destination is away the spool fills up to its size; then nothing is
received and the server keeps its log, up to as much again. Beyond that the slot is dropped rather than the disk of the
database filled: what is stored ends there, and begins anew with a base backup once the destination is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from feedmill.general.backup import locks, measures, slot
from feedmill.general.backup.names import Names
from feedmill.general.backup.programs import ProgramError
from feedmill.general.backup.slot import LogLost, NotAllowed, Server
from feedmill.general.backup.spool import Spool, Waiting
from feedmill.general.backup.upload import Uploader
from feedmill.general.backup.wal import receive
from feedmill.general.backup.wal_plan import segment_of
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import monotonic
from feedmill.shared.database_url import DatabaseUrl

LOOK_EVERY = 1.0
"""Seconds between two looks at the server and the spool."""
REFUSED_WAIT = 60.0
"""Seconds until a server that does not allow it is asked again: it may be changed meanwhile."""
LEAST_SEGMENTS = 4
"""Of the spool: with less nothing could be received while a file is uploaded."""

Phase = Literal["starting", "receiving", "waiting", "refused", "away", "standby", "cut"]


class _Busy(Exception):
    """Another process receives this log."""


class _Overflow(Exception):
    """More log waits than may."""


@dataclass(slots=True)
class State:
    """For health: what is being done, and why not more."""

    phase: Phase = "starting"
    """receiving; waiting: the spool is full; refused: the server does not allow it; away: the server does not answer;
    standby: another process does it; cut: what is stored has an end, the log begins anew."""
    why: str = ""
    behind_bytes: int | None = None
    """Written by the server and not received yet; None: not known."""
    kept_bytes: int = 0
    begun_anew: int = 0
    allowed: bool | None = None
    """Whether the server lets its log be received; None: it has not been tried."""


class Receiver:
    """``run`` until cancelled, ``catch_up`` before that to have all that was written."""

    def __init__(self, database: DatabaseUrl, names: Names, spool: Spool, limit_bytes: int, log: Any) -> None:
        self.state = State()
        self.server: Server | None = None
        """As last seen; None while it is not known that anything can be received."""
        self.changed = asyncio.Event()
        """Set when ``server`` became known, or the log began anew."""
        self.slot = slot.slot_name(names.namespace, names.pipeline)
        self.limit_bytes = limit_bytes
        self.uploader: Uploader | None = None
        """Told when nothing follows for now; set once, before ``run``."""
        self._database = database
        self._key = slot.lock_key(names.namespace, names.pipeline)
        self._spool = spool
        self._log = log
        self._connection: asyncpg.Connection | None = None
        self._asking = asyncio.Lock()
        self._stored: dict[str, int] = {}
        """System -> number of the first segment that is not known to be stored."""
        self._anew: set[str] = set()
        """Systems whose slot is a new one, while the spool still holds what is of before it."""

    async def run(self) -> None:
        backoff = Backoff(0.5, 15.0, floor=0.2)
        while True:
            began = monotonic()
            wait = 0.0
            try:
                await self._receive()
            except NotAllowed as error:
                self._tell("refused", str(error))
                wait = REFUSED_WAIT
            except _Overflow as error:
                self._tell("cut", str(error))
                await self._until_spool_is_empty()
            except LogLost as error:
                await self._begin_anew(str(error))
            except _Busy as error:
                self._tell("standby", str(error))
            except (*postgres.RETRYABLE, postgres.SchemaBehind, ProgramError) as error:
                self._tell("away", str(error) if isinstance(error, ProgramError) else postgres.describe(error))
            if monotonic() - began > backoff.cap:
                backoff.reset()
            await asyncio.sleep(wait or backoff.next())

    def _tell(self, phase: Phase, why: str = "") -> None:
        if (phase, why) != (self.state.phase, self.state.why):
            level = self._log.info if phase == "receiving" else self._log.warning
            level(f"backup.log_{phase}", why=why, slot=self.slot)
        self.state.phase, self.state.why = phase, why
        if phase in ("receiving", "refused"):
            self.state.allowed = phase == "receiving"
        measures.streaming.set(1 if phase == "receiving" else 0)

    # one connection's life
    async def _receive(self) -> None:
        connection = await postgres.connect(self._database, name="feedmill wal")
        try:
            await slot.require_allowed(connection)
            if not await locks.take(connection, self._key):
                raise _Busy("another process receives the log of this pipeline: there must be one")
            server = await self._open(connection)
            self._connection = connection
            limit = max(self.limit_bytes, LEAST_SEGMENTS * server.segment_bytes)
            measures.spool_limit.set(limit)
            while True:
                await asyncio.to_thread(self._spool.prepare, server.system, server.next, server.segment_bytes)
                self.server = server
                self.changed.set()
                server = await self._receive_until_full(connection, server, limit)
                self._tell("waiting", "the spool is full: the destination takes less than the database writes")
                await self._until_room(connection, limit)
                server = await self._look(connection)
        finally:
            self._connection, self.server, self.state.behind_bytes = None, None, None
            measures.streaming.set(0)
            if self.uploader is not None:
                self.uploader.wake(urgent=True)
            await postgres.close(connection)

    async def _open(self, connection: asyncpg.Connection) -> Server:
        server = await slot.look(connection, self.slot)
        if server.lost:
            raise LogLost("the server gave up the log that it was to keep: max_slot_wal_keep_size is too small")
        if server.kept_from is None:
            # What was stored up to now says nothing about what this one keeps: the server may have branched off before.
            self._stored.pop(server.system, None)
            await slot.create(connection, self.slot)
            self._anew.add(server.system)
        if server.system in self._anew:
            await self._until_spool_is_stored(connection, server.system)
            self._anew.discard(server.system)
            return await slot.look(connection, self.slot)
        stored = self._stored.get(server.system)
        if stored is not None:
            await slot.advance(connection, self.slot, stored * server.segment_bytes)
            server = await slot.look(connection, self.slot)
        return server

    async def _receive_until_full(self, connection: asyncpg.Connection, server: Server, limit: int) -> Server:
        """Returns when the spool is full. Raises what receiving raises, _Overflow, LogLost."""
        work = asyncio.create_task(
            receive(
                self._database.get(),
                self._spool.folder(server.system),
                self.slot,
                connection.get_server_version().major,
            ),
            name="pg_receivewal",
        )
        try:
            while True:
                await asyncio.wait({work}, timeout=LOOK_EVERY)
                if work.done():
                    await work
                server = await self._look(connection)
                if server.received is not None:
                    self._tell("receiving")
                if await asyncio.to_thread(self._spool.size_bytes) >= limit:
                    return server
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _until_room(self, connection: asyncpg.Connection, limit: int) -> None:
        while await asyncio.to_thread(self._spool.size_bytes) > limit // 2:
            await asyncio.sleep(LOOK_EVERY)
            await self._look(connection)

    async def _until_spool_is_stored(self, connection: asyncpg.Connection, system: str) -> None:
        """What the spool holds is of before a slot that is new: it is stored, and nothing of the new log hangs on it.

        Raises LogLost, _Overflow.
        """
        assert self.uploader is not None
        while await self.uploader.pending(system):
            self._tell("waiting", "what was received before the log begins anew is stored first")
            self.uploader.changed.clear()
            self.uploader.wake(urgent=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self.uploader.changed.wait()
            await self._ask(connection)
        await asyncio.to_thread(self._spool.forget, system)

    async def _look(self, connection: asyncpg.Connection) -> Server:
        """Raises LogLost, _Overflow."""
        self.server = server = await self._ask(connection)
        return server

    async def _ask(self, connection: asyncpg.Connection) -> Server:
        """Raises LogLost, _Overflow."""
        async with self._asking:
            server = await slot.look(connection, self.slot)
        if server.lost or server.kept_from is None:
            raise LogLost("the replication slot is gone: was it dropped, or the server replaced by its standby?")
        if self.server is not None and server.system != self.server.system:
            raise LogLost("the database URL leads to another server now")
        self.state.kept_bytes = server.kept_bytes
        self.state.behind_bytes = None if server.received is None else max(0, server.written - server.received)
        measures.kept.set(server.kept_bytes)
        most = slot.SERVER_KEEPS * max(self.limit_bytes, LEAST_SEGMENTS * server.segment_bytes)
        if server.kept_bytes > most:
            async with self._asking:
                await slot.drop(connection, self.slot)
            self._ended("overflow")
            raise _Overflow(
                f"{server.kept_bytes >> 20} MiB of log waited for the destination, {most >> 20} MiB may: the server "
                "keeps it no longer, and a new base backup follows when the destination is back"
            )
        return server

    def _ended(self, cause: str) -> None:
        """The log that is stored has an end; the next one begins with a slot and a base backup of its own."""
        self._stored.clear()
        self.state.begun_anew += 1
        measures.begun_anew.labels(cause).inc()
        self.changed.set()

    async def _begin_anew(self, why: str) -> None:
        self._tell("cut", why)
        self._ended("lost")
        try:
            connection = await postgres.connect(self._database, name="feedmill wal")
        except postgres.RETRYABLE:
            return
        try:
            await slot.drop(connection, self.slot)
        except postgres.RETRYABLE as error:
            self._log.warning("backup.slot_not_dropped", slot=self.slot, error=postgres.describe(error))
        finally:
            await postgres.close(connection)

    async def _until_spool_is_empty(self) -> None:
        """What was received before the cut is stored all the same: it reaches further than what is there."""
        assert self.uploader is not None
        while await asyncio.to_thread(self._spool.waiting):
            self.uploader.changed.clear()
            await self.uploader.changed.wait()

    # what the uploader and the end of the process ask for
    async def stored(self, item: Waiting) -> None:
        """A file lies at the destination: the server may forget it."""
        server, connection = self.server, self._connection
        segment = None if server is None else segment_of(item.file, server.segment_bytes)
        if server is None or segment is None or item.system != server.system:
            return
        self._stored[item.system] = segment.number + 1
        if connection is None:
            return
        try:
            async with self._asking:
                await slot.advance(connection, self.slot, (segment.number + 1) * server.segment_bytes)
        except postgres.RETRYABLE as error:
            # It is told again when the connection is made anew.
            self._log.debug("backup.slot_not_moved", error=postgres.describe(error))

    async def catch_up(self, seconds: float) -> None:
        """Wait until all that the server has written by now was received; at most so long."""
        server = self.server
        if server is None or self.state.phase != "receiving":
            return
        until = monotonic() + seconds
        connection = self._connection
        if connection is None:
            return
        try:
            wanted = (await self._look(connection)).written
            while monotonic() < until and ((self.server or server).received or 0) < wanted:
                await asyncio.sleep(0.2)
                await self._look(connection)
        except (*postgres.RETRYABLE, LogLost, _Overflow):
            return
