"""The leases of slots: one for each slot that has accounts, shared fairly among the members that are alive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from feedmill.pool.settings import PoolSettings
from feedmill.shared.keys import pool_key
from feedmill.shared.lease import Lease, Link, Share
from feedmill.shared.redis.url import RedisUrl


class _Seat:
    def __init__(self, slot: int, lease: Lease) -> None:
        self.slot = slot
        self.lease = lease
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Seats:
    """``taken(slot)`` when a slot is ours; ``leave(slot)`` ends the work on it, in order when it is given up."""

    def __init__(
        self,
        redis_url: RedisUrl,
        settings: PoolSettings,
        taken: Callable[[int], None],
        leave: Callable[[int, bool], Awaitable[None]],
        fault: Callable[[], None],
        log: Any,
    ) -> None:
        """``leave`` is told whether the lease is still ours; it must return soon where it is not."""
        self._url, self._settings, self._log = redis_url, settings, log
        self._taken, self._leave, self._fault = taken, leave, fault
        self.link = Link(redis_url, f"feedmill-accounts-{settings.replica}")
        self.share = Share(
            self.link, pool_key(settings.pipeline, "members"), name=settings.replica, total=0, ttl=settings.lease_ttl
        )
        self._seats: dict[int, _Seat] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def held(self) -> set[int]:
        return {slot for slot, seat in self._seats.items() if seat.lease.held}

    def serve(self, slots: set[int]) -> None:
        """Contend for the leases of these from now on, and let go of the others."""
        for slot in self._seats.keys() - slots:
            seat = self._seats.pop(slot)
            seat.stop.set()
            if seat.task is not None:
                self._leaving.add(seat.task)
                seat.task.add_done_callback(self._left)
        new = slots - self._seats.keys()
        self.share.total = len(slots) + len(self._leaving)
        for slot in sorted(new):
            key = pool_key(self._settings.pipeline, f"lease:{slot}")
            lease = Lease(
                self._url, key, name=self._settings.replica, ttl=self._settings.lease_ttl, log=self._log,
                share=self.share,
            )  # fmt: skip
            seat = self._seats[slot] = _Seat(slot, lease)
            seat.task = asyncio.create_task(lease.hold(seat.stop, self._work(seat)), name=f"slot {slot}")
            seat.task.add_done_callback(partial(self._ended, seat))

    def _work(self, seat: _Seat) -> Callable[[asyncio.Event], Awaitable[None]]:
        async def work(ended: asyncio.Event) -> None:
            self._taken(seat.slot)
            try:
                await ended.wait()
            finally:
                await self._leave(seat.slot, seat.lease.held)

        return work

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        self.share.total = len(self._seats) + len(self._leaving)

    def _ended(self, seat: _Seat, task: asyncio.Task[None]) -> None:
        if not seat.stop.is_set() and not task.cancelled():
            self._log.error("slot.fault", slot=seat.slot, exc_info=task.exception())
            self._fault()

    def document(self) -> dict[str, Any]:
        """Health section."""
        return {
            "replicasAlive": self.share.alive,
            "slots": len(self._seats),
            "allowed": self.share.allowed,
            "held": self.share.held,
            "lastError": self.link.error,
        }

    async def close(self) -> None:
        """Give everything up; returns when it is."""
        if self._closed:
            return
        self._closed = True
        tasks = [seat.task for seat in self._seats.values() if seat.task is not None] + list(self._leaving)
        for seat in self._seats.values():
            seat.stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.share.leave()
        self.link.close()
