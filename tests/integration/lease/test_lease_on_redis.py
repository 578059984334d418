"""The lease on a real server: one holder, takeover, loss, Redis away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis_asyncio
from redis.exceptions import OutOfMemoryError

from feedmill.local.embedded import EmbeddedRedis
from feedmill.shared.keys import ShardRef
from feedmill.shared.lease import Lease, Link, Share
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

KEY = ShardRef("test", "toy", 0).lease("distributor")
TTL = 1.5
"""Seconds; a machine that is held up for a part of it must not look like a holder that is gone."""
LONG_TTL = 5.0
"""The same where another one waits for it to be gone."""


class Holder:
    """A process with one lease; ``work`` runs until ``ended``."""

    def __init__(
        self, server: EmbeddedRedis, name: str, key: str = KEY, share: Share | None = None, ttl: float = TTL
    ) -> None:
        url = RedisUrl.parse(server.url)
        self.lease = Lease(url, key, name=name, ttl=ttl, log=get_logger(), share=share)
        self.stop = asyncio.Event()
        self.working = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.finish = asyncio.Event()
        """What the work waits for after it was told to end."""
        self.finish.set()
        self.turns = 0
        self.task = asyncio.create_task(self.lease.hold(self.stop, self.work))

    async def work(self, ended: asyncio.Event) -> None:
        self.turns += 1
        self.working.set()
        self.idle.clear()
        try:
            await ended.wait()
            await self.finish.wait()
        finally:
            self.working.clear()
            self.idle.set()

    async def end(self) -> None:
        self.stop.set()
        self.finish.set()
        await self.task


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator[Any]:
    client = redis_asyncio.Redis.from_url(redis_server.url, decode_responses=True)
    yield client
    with contextlib.suppress(Exception):
        await client.aclose()


async def renewed(client: Any, times: int = 4) -> None:
    """Wait until the key was seen to be renewed, more often than its first life can last."""
    async with asyncio.timeout(60):
        last = await client.pttl(KEY)
        while times:
            left = await client.pttl(KEY)
            times -= left > last
            last = left
            await asyncio.sleep(0.005)


async def test_one_works_and_the_other_takes_over_when_it_stops(redis_server: EmbeddedRedis, client: Any) -> None:
    first = Holder(redis_server, "first", ttl=LONG_TTL)
    await first.working.wait()
    second = Holder(redis_server, "second", ttl=LONG_TTL)
    assert (await client.get(KEY)).startswith("first/")
    await renewed(client)  # So its life is over only because it stops.
    assert first.working.is_set()
    assert not second.working.is_set()
    async with asyncio.timeout(60):  # One answer of Redis may be late; the next one is not.
        while second.lease.document() != {"held": False, "holder": "first", "lastError": ""}:
            await asyncio.sleep(0.01)
    await first.end()
    assert not first.lease.held
    async with asyncio.timeout(60):
        await second.working.wait()
    assert second.lease.document() == {"held": True, "holder": "second", "lastError": ""}
    await second.end()
    assert await client.get(KEY) is None


async def test_it_is_renewed_while_the_work_drains_and_released_after(redis_server: EmbeddedRedis, client: Any) -> None:
    first = Holder(redis_server, "first")
    await first.working.wait()
    first.finish.clear()
    first.stop.set()
    await renewed(client)
    assert (await client.get(KEY)).startswith("first/")
    assert first.lease.held
    await first.end()
    assert await client.get(KEY) is None


async def test_a_killed_holder_is_followed_after_its_ttl(redis_server: EmbeddedRedis, client: Any) -> None:
    await client.set(KEY, "dead/0123", px=int(TTL * 1000))
    holder = Holder(redis_server, "alive")
    async with asyncio.timeout(60):
        await holder.working.wait()
    assert (await client.get(KEY)).startswith("alive/")
    await holder.end()


async def test_losing_it_ends_the_work_and_it_is_tried_again(redis_server: EmbeddedRedis, client: Any) -> None:
    holder = Holder(redis_server, "first")
    await holder.working.wait()
    await client.set(KEY, "thief/0123", px=int(TTL * 1000))
    async with asyncio.timeout(60):
        await holder.idle.wait()
        assert not holder.lease.held
        await holder.working.wait()
    assert holder.turns == 2
    await holder.end()


async def test_the_holder_goes_on_while_redis_is_away(redis_server: EmbeddedRedis, client: Any) -> None:
    holder = Holder(redis_server, "first")
    await holder.working.wait()
    redis_server.kill()
    while not holder.lease.document()["lastError"]:
        await asyncio.sleep(0.01)
    assert holder.lease.held
    redis_server.start()
    await client.delete(KEY)  # The server forgot it; nobody else came.
    async with asyncio.timeout(60):
        while holder.lease.document()["lastError"] or not await client.get(KEY):
            await asyncio.sleep(0.01)
    assert (holder.turns, holder.lease.held) == (1, True)
    await holder.end()


async def test_it_ends_in_time_while_redis_hangs(redis_server: EmbeddedRedis) -> None:
    holder = Holder(redis_server, "first")
    await holder.working.wait()
    pid = redis_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            await holder.end()
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_without_redis_it_stops_at_once(redis_server: EmbeddedRedis) -> None:
    redis_server.stop()
    holder = Holder(redis_server, "first")
    while not holder.lease.document()["lastError"]:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        await holder.end()
    assert holder.turns == 0


async def test_faults_of_the_work_come_out_and_the_lease_is_free(redis_server: EmbeddedRedis, client: Any) -> None:
    async def fail(_: asyncio.Event) -> None:
        raise KeyError("a fault")

    lease = Lease(RedisUrl.parse(redis_server.url), KEY, name="first", ttl=TTL, log=get_logger())
    with pytest.raises(KeyError, match="a fault"):
        await lease.hold(asyncio.Event(), fail)
    assert await client.get(KEY) is None


async def test_cancelling_cancels_the_work_and_frees_the_lease(redis_server: EmbeddedRedis, client: Any) -> None:
    holder = Holder(redis_server, "first")
    await holder.working.wait()
    holder.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder.task
    assert holder.idle.is_set()
    assert await client.get(KEY) is None


async def test_it_works_while_the_server_is_out_of_memory(redis_server: EmbeddedRedis, client: Any) -> None:
    await client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await client.set("more", "x")
    holder = Holder(redis_server, "first")
    async with asyncio.timeout(60):
        await holder.working.wait()
    await holder.end()
    assert await client.get(KEY) is None


class Process:
    """Several leases of one process under a share."""

    def __init__(self, server: EmbeddedRedis, name: str, count: int) -> None:
        self.link = Link(RedisUrl.parse(server.url), name)
        self.share = Share(self.link, "fm:{test.main}:processors", name=name, total=count, ttl=TTL)
        self.stop = asyncio.Event()
        self.beat = asyncio.create_task(self.share.beat(self.stop))
        self.holders = [
            Holder(server, name, ShardRef("test", "toy", number).lease("processor"), self.share)
            for number in range(count)
        ]

    @property
    def working(self) -> int:
        return sum(holder.working.is_set() for holder in self.holders)

    async def end(self) -> None:
        await asyncio.gather(*(holder.end() for holder in self.holders))
        self.stop.set()
        await self.beat
        await self.share.leave()
        self.link.close()


async def until(*wanted: tuple[Process, int]) -> None:
    async with asyncio.timeout(60):
        while any(process.working != number for process, number in wanted):
            await asyncio.sleep(0.01)


async def test_leases_are_shared_fairly_and_taken_over(redis_server: EmbeddedRedis) -> None:
    first = Process(redis_server, "r0", 5)
    await until((first, 5))
    second = Process(redis_server, "r1", 5)
    await until((first, 3), (second, 2))
    third = Process(redis_server, "r2", 5)
    async with asyncio.timeout(60):
        while sorted(process.working for process in (first, second, third)) != [1, 2, 2]:
            await asyncio.sleep(0.01)
    await first.end()
    await third.end()
    await until((second, 5))
    await second.end()
