"""Asks the processes how they are, beside the reconciling: each pod's ``/health``, now and then, never in a hurry.

What they last said is kept for a while, and an object is queued when one says something else. A pod that does not
answer is asked ever more rarely, so that a network in which none can be reached costs next to nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from feedmill.shared import log
from feedmill.shared.clock import monotonic
from feedmill.shared.http_body import read_body
from feedmill_operator import names
from feedmill_operator.reconcile.answer import Answer, read_answer
from feedmill_operator.reconcile.pods import PodFacts
from feedmill_operator.reconcile.queue import Key, WorkQueue

MOST_AT_ONCE = 20
MOST_BYTES = 1 << 20
SLOWEST = 120.0
"""Seconds between two tries to reach a pod that does not answer."""
KEPT = 3.0
"""An answer counts for so many intervals."""
QUICK = 2.0
"""Seconds between two looks while something is awaited."""
AWAITED = 60.0
"""Longest time something is awaited with quick looks."""
_TICK = 0.25


@dataclass(slots=True)
class _Target:
    key: Key
    pod: str
    ip: str
    due: float
    since: float = 0.0
    """When it was first to be asked."""
    quick_until: float = 0.0
    failures: int = 0
    asked: bool = False
    """A request is under way."""
    answer: Answer | None = None
    at: float = field(default=0.0)
    """When it answered."""


class Answers:
    """``interval`` and ``timeout`` are seconds. ``port``: where the pods serve their health."""

    def __init__(
        self,
        queue: WorkQueue,
        *,
        interval: float = 15.0,
        timeout: float = 2.0,
        port: int = names.HEALTH_PORT,
        clock: Callable[[], float] = monotonic,
        random_source: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._interval, self._timeout, self._port = interval, timeout, port
        self._clock = clock
        self._random = random_source or random.Random()
        self._targets: dict[Key, dict[str, _Target]] = {}
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get_logger()

    # What the reconcilers call.

    def track(self, key: Key, pods: Iterable[PodFacts]) -> None:
        """From now on these pods of an object are asked, and no others of it."""
        before = self._targets.get(key, {})
        now = self._clock()
        after: dict[str, _Target] = {}
        for pod in pods:
            if not pod.running:
                continue
            known = before.get(pod.name)
            if known is None or known.ip != pod.ip:
                known = _Target(key, pod.name, pod.ip, due=now, since=now, quick_until=now + 2 * self._interval)
            after[pod.name] = known
        if after:
            self._targets[key] = after
        else:
            self._targets.pop(key, None)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._targets.pop(key, None)

    def of(self, key: Key) -> Mapping[str, Answer]:
        """Pod -> what it last said, unless that is too long ago."""
        oldest = self._clock() - KEPT * self._interval
        return {
            name: target.answer
            for name, target in self._targets.get(key, {}).items()
            if target.answer is not None and target.at >= oldest
        }

    def awaited(self, key: Key) -> float | None:
        """Seconds for which a pod that has not answered yet may still do; None = all have, or nobody will."""
        until = [target.since for target in self._targets.get(key, {}).values() if target.answer is None]
        left = max(until, default=0.0) + KEPT * self._interval - self._clock()
        return left if until and left > 0 else None

    def hurry(self, key: Key) -> None:
        """Something of it is awaited: look more often for a while."""
        now = self._clock()
        for target in self._targets.get(key, {}).values():
            if target.failures == 0:
                target.due = min(target.due, now + QUICK / 2)
            target.quick_until = now + AWAITED

    # The work.

    async def run(self) -> None:
        """Ask until cancelled."""
        limits = aiohttp.ClientTimeout(total=self._timeout)
        connector = aiohttp.TCPConnector(limit=MOST_AT_ONCE, force_close=True)
        session = aiohttp.ClientSession(timeout=limits, connector=connector, trust_env=False)
        try:
            while True:
                now = self._clock()
                for targets in list(self._targets.values()):
                    for target in targets.values():
                        if target.due <= now and not target.asked:
                            self._start(session, target)
                await asyncio.sleep(_TICK)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await session.close()

    def _start(self, session: aiohttp.ClientSession, target: _Target) -> None:
        target.asked = True
        task = asyncio.create_task(self._ask(session, target), name=f"health-{target.pod}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, session: aiohttp.ClientSession, target: _Target) -> None:
        try:
            async with self._slots:
                answer = await self._fetch(session, target.ip)
        except Exception as error:
            answer = None
            self._log.debug("health.unanswered", pod=target.pod, error=f"{type(error).__name__}: {error}")
        finally:
            target.asked = False
        self._take(target, answer)

    async def _fetch(self, session: aiohttp.ClientSession, ip: str) -> Answer:
        host = f"[{ip}]" if ":" in ip else ip
        async with session.get(f"http://{host}:{self._port}/health", allow_redirects=False) as response:
            body = await read_body(response, MOST_BYTES)
        if response.status != 200 or len(body) > MOST_BYTES:
            raise ValueError(f"HTTP {response.status}, {len(body)} bytes")
        document: Any = msgspec.json.decode(body)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return read_answer(document)

    def _take(self, target: _Target, answer: Answer | None) -> None:
        now = self._clock()
        if self._targets.get(target.key, {}).get(target.pod) is not target:
            return
        before = target.answer
        if answer is None:
            target.failures += 1
            wait = min(2 * QUICK * 2.0 ** min(target.failures - 1, 10), SLOWEST)
            if before is None or now - target.at < KEPT * self._interval:
                # One that was heard is asked again before its word is too old.
                target.due = now + (wait if before is None else self._interval) * self._random.uniform(0.9, 1.1)
                return
            target.answer = None
        else:
            target.failures = 0
            target.answer, target.at = answer, now
            wait = QUICK if now < target.quick_until else self._interval
        target.due = now + wait * self._random.uniform(0.9, 1.1)
        if target.answer != before:
            self._queue.add(target.key)
