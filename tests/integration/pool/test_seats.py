"""Leases of slots on a real Redis, while slots and members come and go: each has one holder, each member its part."""

from __future__ import annotations

import asyncio
import random

import pytest
from pool_stage import until

from feedmill.local.embedded import EmbeddedRedis
from feedmill.pool.seats import Seats
from feedmill.pool.settings import PoolSettings
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


class Member:
    """``working``: all members share it, so that two who work on one slot are seen."""

    def __init__(self, server: EmbeddedRedis, name: str, working: dict[int, str]) -> None:
        self.name = name
        self.working = working
        self.doubled: list[int] = []
        self.lost = 0
        """Leases that ran out, as they do on a machine that stands still: two may work on a slot then."""
        self.faults = 0
        settings = PoolSettings(replica=name, lease_ttl=2.0)
        self.seats = Seats(RedisUrl.parse(server.url), settings, self._taken, self._leave, self._fault, get_logger())
        self.end = asyncio.Event()
        self.beat = asyncio.create_task(self.seats.share.beat(self.end))

    def _taken(self, slot: int) -> None:
        if slot in self.working:
            self.doubled.append(slot)
        self.working[slot] = self.name

    async def _leave(self, slot: int, ours: bool) -> None:
        self.lost += not ours
        await asyncio.sleep(0.01)
        if self.working.get(slot) == self.name:
            del self.working[slot]

    def _fault(self) -> None:
        self.faults += 1

    async def close(self) -> None:
        await self.seats.close()
        self.end.set()
        await self.beat


@pytest.mark.parametrize("seed", range(3))
async def test_slots_and_members_come_and_go(redis_server: EmbeddedRedis, seed: int) -> None:
    rng = random.Random(seed)
    working: dict[int, str] = {}
    members = [Member(redis_server, f"r{number}", working) for number in range(2)]
    gone: list[Member] = []
    slots: set[int] = set()
    for step in range(8):
        slots = set(rng.sample(range(64), rng.choice([0, 1, 2, 7, 30, 64])))
        for member in members:
            member.seats.serve(slots)
            await asyncio.sleep(rng.random() * 0.1)  # They see it one after the other.
        if step == 3:
            members.append(Member(redis_server, "r2", working))
            members[-1].seats.serve(slots)
        if step == 5:
            await members[0].close()
            gone.append(members.pop(0))

        def settled(slots: set[int] = slots) -> bool:
            fair = -(-len(slots) // len(members))
            counts = [len(member.seats.held) for member in members]
            return working.keys() == slots and sum(counts) == len(slots) and max(counts) <= fair

        try:
            await until(settled)
        except TimeoutError:
            held = {member.name: sorted(member.seats.held) for member in members}
            documents = [member.seats.document() for member in members]
            raise AssertionError(f"step {step}: {sorted(slots)}, {held}, {documents}") from None
    for member in members:
        await member.close()
    assert working == {}
    everybody = (*members, *gone)
    assert sum(len(each.doubled) for each in everybody) <= sum(each.lost for each in everybody)
    assert sum(each.faults for each in everybody) == 0


async def test_a_redis_that_comes_back_empty_changes_nothing(redis_server: EmbeddedRedis) -> None:
    working: dict[int, str] = {}
    member = Member(redis_server, "r0", working)
    slots = set(range(10))
    member.seats.serve(slots)
    await until(lambda: working.keys() == slots)
    await asyncio.to_thread(redis_server.kill)
    await until(lambda: member.seats.link.error)
    assert member.seats.held == slots
    member.seats.serve(slots | {20})
    assert 20 not in working
    await asyncio.to_thread(redis_server.start)
    await until(lambda: working.keys() == slots | {20})
    await member.close()
    assert (working, member.doubled, member.faults) == ({}, [], 0)
