"""A lease on Redis: who works on a shard.

It only chooses. Correctness never depends on it: whatever its holder does is a compare-and-set where the data lives. So
while Redis is away the holder goes on, and two that believe to hold it harm nobody: one of them is refused.

One key; its value is the holder's name and a random token. Taking and renewing are one script (take what is free, renew
what is mine), so a holder whose key was lost with the server simply has it again.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import monotonic
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Arg, Script, Wire, WireError, connect

TTL = 4.0
"""Seconds after which the lease of a process that was killed is free."""
ANSWER = 2.0
"""Seconds after which a Redis that does not answer counts as away."""
RELEASE = 1.0
"""Seconds an orderly end spends on releasing at most; what is not released runs out."""

Work = Callable[[asyncio.Event], Awaitable[None]]
"""Runs while the lease is held. It must return soon after the event is set, and may return before."""

_TAKE = Script("""#!lua flags=allow-oom
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {holder, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {ARGV[1], 0}
""")
_RELEASE = Script("""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")
_BEAT = Script("""#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
""")

AWAY = (OSError, TimeoutError, WireError)
"""What :meth:`Link.run` raises when it is not known what Redis did."""


class Link:
    """One connection for the leases of a process, made when needed and made again when lost."""

    def __init__(self, redis_url: RedisUrl, name: str) -> None:
        self._url = redis_url
        self._name = name
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()
        self._backoff = Backoff(0.2, 2.0)
        self._again = 0.0
        self.error = ""
        """Empty while Redis answers."""

    @property
    def run_id(self) -> str:
        """Of the server that answered last; empty when none did, or the connection is gone."""
        return self._wire.run_id if self._wire is not None else ""

    async def run(self, script: Script, key: str, *args: Arg, timeout: float = ANSWER) -> Any:
        """Run a script on one key. Raises one of AWAY within ``timeout`` seconds; at once right after a failure."""
        wire: Wire | None = None
        try:
            async with asyncio.timeout(timeout):
                wire = await self._open()
                answer = await wire.run(script, [key], *args)
        except AWAY as error:
            # Also when the server answered with an error: it is loading, a replica, or not one that knows scripts.
            self._drop(wire, f"{type(error).__name__}: {error}"[:200])
            raise
        self._backoff.reset()
        self.error = ""
        return answer

    async def _open(self) -> Wire:
        async with self._lock:
            if self._wire is None or not self._wire.is_open:
                if monotonic() < self._again:
                    raise ConnectionError(self.error)
                self._wire = await connect(self._url, name=self._name)
            return self._wire

    def _drop(self, wire: Wire | None, error: str) -> None:
        if wire is not None:
            wire.abort()
        # Callers that fail together are one failure; another one may have made a new connection meanwhile.
        if (wire is None or wire is self._wire) and monotonic() >= self._again:
            self._wire = None
            self._again = monotonic() + self._backoff.next()
            self.error = error

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()


class Share:
    """How many of a number of leases this process should hold: its fair part among the processes alive.

    Give the same one to all leases of a process and run :meth:`beat`.
    """

    def __init__(self, link: Link, key: str, *, name: str, total: int, ttl: float = TTL) -> None:
        """``key``: of the set of members; ``total``: leases there are; ``ttl``: seconds."""
        self.link = link
        self._key = key
        self._member = f"{name}/{secrets.token_hex(8)}"
        self.total = total
        """Leases there are. May change: one more before its lease is made, one less when its lease is gone."""
        self._ttl = ttl
        self.alive: int | None = None
        """Processes alive as last heard from Redis; None = never heard."""
        self.held = 0
        """Leases held now, those on their way out included."""
        self.leaving = 0

    @property
    def allowed(self) -> int:
        """Leases this process may hold. 0 before Redis said how many processes there are."""
        return -(-self.total // max(1, self.alive)) if self.alive is not None else 0

    def surplus(self) -> bool:
        """Whether one more of the leases held has to go."""
        return self.alive is not None and self.held - self.leaving > self.allowed

    async def beat(self, stop: asyncio.Event) -> None:
        """Be counted as alive until ``stop``; gives notice of leaving by :meth:`leave`."""
        while not stop.is_set():
            wait = self._ttl / 3
            try:
                self.alive = int(await self.link.run(_BEAT, self._key, self._member, int(self._ttl * 1000)))
            except AWAY:
                wait = self._ttl / 8
            await sleep_or(stop, wait)

    async def leave(self) -> None:
        """No longer be counted, so that the others may take more at once."""
        try:
            await self.link.run(_BEAT, self._key, self._member, 0, timeout=RELEASE)
        except AWAY:
            pass


class Lease:
    """One lease. ``await lease.hold(stop, work)`` runs ``work`` whenever it is held."""

    def __init__(
        self,
        redis_url: RedisUrl,
        key: str,
        *,
        name: str,
        ttl: float = TTL,
        log: Any,
        share: Share | None = None,
    ) -> None:
        """``name`` tells people who holds it. ``ttl``: seconds. ``share``: hold no more than a fair part of several."""
        self._link = share.link if share is not None else Link(redis_url, f"feedmill-lease-{name}")
        self._key = key
        self._token = f"{name}/{secrets.token_hex(8)}"
        self._ttl = ttl
        self._share = share
        self._log = log.bind(lease=key)
        self._away = False
        self._leaving = False
        self.held = False
        self.holder = ""
        """Name of the holder as last seen; empty = not known."""

    def document(self) -> dict[str, Any]:
        """For ``/health``."""
        return {"held": self.held, "holder": self.holder or None, "lastError": self._link.error}

    async def hold(self, stop: asyncio.Event, work: Work) -> None:
        """Until ``stop`` is set: get the lease, run ``work(ended)``, and again.

        ``ended`` is set when the lease is lost, should be given up, or ``stop`` is set; the lease is renewed until
        ``work`` has returned, then released. Work that returns by itself gives the lease up for a moment. Returns when
        ``stop`` is set and ``work`` has returned; raises what ``work`` raises.
        """
        try:
            while not stop.is_set():
                wait = await self._contend()
                if wait is None:
                    await self._held(stop, work)
                    wait = self._ttl / 8
                await sleep_or(stop, wait)
        finally:
            if self._share is None:
                self._link.close()

    async def _contend(self) -> float | None:
        """None when the lease was got, else seconds after which to try again."""
        if self._share is not None and self._share.held >= self._share.allowed:
            return self._ttl / 20
        if self._share is not None:
            self._share.held += 1  # Now, so that the leases of one process do not all try for its last place.
        got = False
        try:
            try:
                left = await self._take()
            except AWAY as error:
                self._tell_away(error)
                return self._ttl / 8
            got = left is None
        finally:
            if self._share is not None and not got:
                self._share.held -= 1
        # One that is released is got soon, one that runs out at once; jitter keeps many from asking together.
        return None if left is None else min(left + 0.01, self._ttl / 8) * random.uniform(0.7, 1.0)

    async def _take(self) -> float | None:
        """Take or renew: None when it is ours, else for how many seconds it is another's. Raises one of AWAY."""
        holder, left = await self._link.run(_TAKE, self._key, self._token, int(self._ttl * 1000))
        text = holder.decode(errors="replace")
        self.holder = text.rpartition("/")[0]
        if self._away:
            self._away = False
            self._log.info("lease.redis_back")
        return None if text == self._token else max(0, left) / 1000

    def _tell_away(self, error: BaseException) -> None:
        if not self._away:
            self._away = True
            self._log.warning("lease.redis_away", held=self.held, error=f"{type(error).__name__}: {error}"[:200])

    async def _held(self, stop: asyncio.Event, work: Work) -> None:
        ended = asyncio.Event()
        self.held = True
        self._log.info("lease.held")
        worker = asyncio.ensure_future(work(ended))
        keeper = asyncio.create_task(self._keep(ended), name=f"keep {self._key}")
        stopper = asyncio.create_task(_pass_on(stop, ended), name=f"stop {self._key}")
        tasks = (worker, keeper, stopper)
        try:
            await asyncio.wait({worker})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._share is not None:
                self._share.held -= 1
                self._share.leaving -= self._leaving
                self._leaving = False
            if self.held:
                self.held = False
                await self._release()
        await worker

    async def _keep(self, ended: asyncio.Event) -> None:
        """Renew until cancelled or lost."""
        wait = self._ttl / 3
        while True:
            await asyncio.sleep(wait)
            wait = self._ttl / 3
            share = self._share
            if share is not None and not ended.is_set() and share.surplus():
                self._log.info("lease.given_up", allowed=share.allowed, alive=share.alive)
                share.leaving += 1
                self._leaving = True
                ended.set()
            try:
                left = await self._take()
            except AWAY as error:
                self._tell_away(error)
                wait = self._ttl / 8
                continue
            if left is not None:
                self._log.warning("lease.lost", holder=self.holder, effect="the holder works on it now")
                self.held = False
                ended.set()
                return

    async def _release(self) -> None:
        try:
            await self._link.run(_RELEASE, self._key, self._token, timeout=RELEASE)
        except AWAY as error:
            self._log.info("lease.not_released", error=type(error).__name__, runs_out_in_seconds=self._ttl)
            return
        self.holder = ""
        self._log.info("lease.released")


async def _pass_on(stop: asyncio.Event, ended: asyncio.Event) -> None:
    await stop.wait()
    ended.set()


async def sleep_or(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than until ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
