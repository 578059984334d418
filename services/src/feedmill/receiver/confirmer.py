"""Finds out what the server has on disk, so that batches need be held no longer.

On its own connection: a small write that also checks that the server still knows the batch, then WAITAOF. With
``appendfsync everysec`` Valkey 9.1 answers WAITAOF before the fsync (measured with strace: 8,499 answers, 4 fsyncs), so
what it calls on disk is held ``hold`` seconds longer, the time in which the fsync has come; only when much is held its
word is enough. Where the append-only file is off nothing better than the acknowledgement exists: then acknowledged
counts as confirmed, and health says so.

Where replicas are asked for and too few have it, batches are held: in memory, then in the spill. When little more
can be held the server's own disk is enough: what it has is not worth shedding what comes in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from feedmill.receiver import metrics
from feedmill.receiver.appender import Appender
from feedmill.receiver.headroom import LOOK_EVERY, Headroom
from feedmill.receiver.scripts import CONFIRM
from feedmill.receiver.session import Producer
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import monotonic
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect

WAIT_MS = 2000
PAUSE = 0.5
"""Seconds between two rounds while little is held: each costs this process and the server three wake-ups."""
SHORT_PAUSE = 0.02
"""The same while much is held, or when the receiver ends."""
RECHECK = 30.0
"""Seconds after which a server without append-only file is asked again."""


class Confirmer:
    def __init__(
        self,
        url: RedisUrl,
        shard: ShardRef,
        producer: Producer,
        appender: Appender,
        *,
        replicas: int = 0,
        hold: float = 2.0,
        deadline: float = 5.0,
        log: Any,
    ) -> None:
        self._url = url
        self._keys = [shard.key(f"raw:confirm:{producer.replica}"), shard.sessions]
        self._producer = producer
        self._appender = appender
        self.replicas = replicas
        """That must have a batch on disk too."""
        self.replicas_seen: int | None = None
        """That had the newest one asked about; None = not asked yet, or none need."""
        self._hold = hold
        self._deadline = deadline
        self._log = log
        self._proven: deque[tuple[float, str, int]] = deque()
        """(when the server called it on disk, session, batch), oldest first."""
        self.aof: bool | None = None
        """Whether WAITAOF confirms; None before it is known."""
        self.problem = ""
        self.headroom: Headroom | None = None
        """Set where there is a spill to hold back for."""

    async def run(self) -> None:
        """Confirm until cancelled."""
        backoff = Backoff(0.25, 5.0)
        while True:
            try:
                wire = await connect(self._url, name="feedmill-receiver-confirm", timeout=self._deadline)
                self._appender.reachable()
                try:
                    while True:
                        await self._round(wire)
                        self.problem = ""
                        backoff.reset()
                        await self._pause()
                finally:
                    wire.abort()
                    self._proven.clear()  # Another life of the server may have forgotten it.
            except (OSError, TimeoutError, WireError) as error:
                self.problem = f"{type(error).__name__}: {error}"[:200]
                await asyncio.sleep(backoff.next())

    async def _pause(self) -> None:
        producer, backlog = self._producer, self._producer.backlog
        if producer.ended or backlog.holds_much:
            await asyncio.sleep(SHORT_PAUSE)
            return
        backlog.hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSE):
                await backlog.hurry.wait()

    async def _round(self, wire: Wire) -> None:
        backlog = self._producer.backlog
        await self._look(wire)
        while (pending := self._producer.to_confirm()) is None:
            backlog.acked_more.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY if self.headroom is not None else None):
                    await backlog.acked_more.wait()
            await self._look(wire)
        session, n = pending
        if self._proven and self._proven[-1][1:] == (session, n):
            self._release()
            return
        async with asyncio.timeout(self._deadline):
            known, last = await wire.run(CONFIRM, self._keys, session, n)
        if not known:
            self._log.warning("confirm.forgotten", session=session, batch=n, server_has=last)
            self._proven.clear()
            self._appender.verify(session, int(last))
            await asyncio.sleep(0.2)
            return
        if await self._on_disk(wire):
            self._proven.append((monotonic(), session, n))
            self._release()

    async def _look(self, wire: Wire) -> None:
        if self.headroom is not None:
            async with asyncio.timeout(self._deadline):
                await self.headroom.look(wire)

    def _release(self) -> None:
        """Let go of what has been on disk for long enough."""
        now = monotonic()
        at_once = not self.aof or self._producer.ended or self._producer.backlog.holds_much
        while self._proven and (at_once or now - self._proven[0][0] >= self._hold):
            _, session, n = self._proven.popleft()
            self._producer.confirm(session, n)

    async def _on_disk(self, wire: Wire) -> bool:
        if self.aof is False and monotonic() < self._recheck_at:
            return True
        try:
            async with asyncio.timeout(WAIT_MS / 1000 + self._deadline):
                wanted = self.replicas
                asked = 0 if self.short_of_replicas and self._producer.cramped else wanted
                local, replicas = await wire.call("WAITAOF", 1, asked, WAIT_MS)
        except WireError as error:
            text = str(error).lower()
            if "appendonly is disabled" not in text and "unknown command" not in text:
                raise
            if self.aof is not False:
                self._log.warning(
                    "confirm.no_aof",
                    effect="acknowledged counts as confirmed: what the server loses in a crash becomes a gap",
                    remedy="set appendonly yes (Redis 7.2 or newer)",
                )
            self.aof = False
            self._recheck_at = monotonic() + RECHECK
            metrics.aof_confirmed.set(0)
            return True
        self.aof = True
        metrics.aof_confirmed.set(1)
        self._count_replicas(wanted, int(replicas))
        return bool(local >= 1 and (replicas >= wanted or self._producer.cramped))

    def _count_replicas(self, wanted: int, seen: int) -> None:
        was_short = self.short_of_replicas
        self.replicas_seen = seen if wanted else None
        metrics.replicas_missing.set(max(0, wanted - seen))
        self._producer.unreplicated = bool(self.short_of_replicas)
        if self.short_of_replicas and not was_short:
            self._log.warning("confirm.replicas_missing", wanted=wanted, seen=seen, problem=self.short_of_replicas)
        elif was_short and not self.short_of_replicas:
            self._log.info("confirm.replicas_back", wanted=wanted, seen=seen)

    @property
    def short_of_replicas(self) -> str:
        """What is wrong and what to do; empty when enough replicas confirm."""
        if self.replicas_seen is None or self.replicas_seen >= self.replicas:
            return ""
        effect = (
            "little more can be held, so Redis' own disk counts as enough"
            if self._producer.cramped
            else "batches are held in memory and in the spill"
        )
        return (
            f"{self.replicas_seen} of {self.replicas} replicas confirm: {effect}; connect a replica with appendonly "
            "yes, or lower spec.redis.confirm.replicas"
        )

    _recheck_at = 0.0
