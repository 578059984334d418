"""The appender against a simulated server that loses answers, forgets its tail, refuses and dies at random."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.receiver import appender as appender_module
from feedmill.receiver.appender import Appender
from feedmill.receiver.session import Producer
from feedmill.shared.breaker import Breaker
from feedmill.shared.budget import ByteBudget
from feedmill.shared.frames import RunKind, decode_batch
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import WireClosed, WireError


class FakeServer:
    """The append script's meaning, and what goes wrong around it."""

    def __init__(self) -> None:
        self.raw: list[tuple[str, int, bytes]] = []
        self.last: dict[str, int] = {}
        self.plan: list[str] = []
        self.wires: list[FakeWire] = []
        self.held = 0
        """Batches the receiver still holds: what may be forgotten without a new session."""
        self.confirmed = 0
        """The last one that it no longer holds. Two losses one after the other must not reach it either."""

    def append(self, session: str, n: int, payload: bytes) -> list[int]:
        last = self.last.get(session, 0)
        if n <= last:
            return [0, last]
        if n != last + 1:
            return [-1, last]
        self.raw.append((session, n, payload))
        self.last[session] = n
        return [1, n]

    def forget(self, count: int) -> None:
        for _ in range(min(count, len(self.raw))):
            if self.raw[-1][1] <= self.confirmed:
                return
            session, n, _ = self.raw.pop()
            self.last[session] = n - 1


class FakeWire:
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.run_id = "x"
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting: Any = None
        server.wires.append(self)

    async def call(self, *args: Any) -> Any:
        return b"digest"

    def post(self, reply: Any, how: str, script: str, count: int, raw: str, sessions: str, *args: Any) -> None:
        if self.closed.done():
            raise WireClosed("gone")
        session, n, payload = args
        what = self.server.plan.pop(0) if self.server.plan else "ok"
        loop = asyncio.get_running_loop()
        if what == "noscript" and how == "EVALSHA":
            loop.call_soon(reply.set_exception, WireError("NOSCRIPT No matching script"))
        elif what == "oom":
            loop.call_soon(reply.set_exception, WireError("OOM command not allowed"))
        elif what == "hang":
            self.waiting = reply
        elif what == "lost before":
            loop.call_soon(self.die, reply)
        elif what == "lost after":
            self.server.append(session, n, payload)
            loop.call_soon(self.die, reply)
        elif what.startswith("forget"):
            self.server.append(session, n, payload)
            self.server.forget(min(int(what.split()[1]), self.server.held))
            loop.call_soon(self.die, reply)
        else:
            loop.call_soon(reply.set_result, self.server.append(session, n, payload))

    def die(self, reply: Any) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        reply.set_exception(WireClosed("the server died"))

    def abort(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def build(monkeypatch: pytest.MonkeyPatch, server: FakeServer, **changes: Any) -> tuple[Producer, Appender]:
    async def connect(*_: Any, **__: Any) -> FakeWire:
        return FakeWire(server)

    async def no_sleep(_: float) -> None:
        await real_sleep(0)

    real_sleep = asyncio.sleep
    monkeypatch.setattr(appender_module, "connect", connect)
    monkeypatch.setattr(appender_module.asyncio, "sleep", no_sleep)
    producer = Producer("r", ByteBudget(10**9))
    breaker = Breaker("redis", fail_max=3, reset_timeout=0.001)
    options = {"deadline": 0.02, **changes}
    return producer, Appender(
        RedisUrl.parse("redis://localhost"), ShardRef("n", "f", 0), producer, breaker, log=get_logger(), **options
    )


faults = st.sampled_from(["ok", "noscript", "oom", "hang", "lost before", "lost after", "forget 1", "forget 3"])


@settings(max_examples=60, deadline=None)
@given(st.lists(faults, max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=15))
async def test_every_frame_is_appended_once_and_in_order(plan: list[str], work: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        server = FakeServer()
        producer, appender = build(monkeypatch, server)
        task = asyncio.create_task(appender.run())
        sent: list[bytes] = []
        server.plan = list(plan)
        for step, count in enumerate(work):
            frames = [f"{step}/{index}".encode() for index in range(count)]
            if frames:
                sent += frames
                producer.frames(1, [step] * count, frames)
            if step % 4 == 3:
                # Confirmed batches are gone from here: the server must not forget them in this test.
                producer.confirm(producer.id, producer.backlog.acked)
            server.held = producer.backlog.acked - producer.backlog.confirmed
            server.confirmed = producer.backlog.confirmed
            for _ in range(step % 3):
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await appender.settled()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {session for session, _, _ in server.raw} == {producer.id}
    assert [n for _, n, _ in server.raw] == list(range(1, len(server.raw) + 1))
    got = [
        frame
        for _, _, payload in server.raw
        for run in decode_batch(payload).runs
        if run.kind == RunKind.FRAMES
        for frame in run.frames
    ]
    assert got == sent


async def test_one_append_is_in_flight_and_what_comes_meanwhile_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    producer, appender = build(monkeypatch, server, deadline=60.0)
    server.plan = ["ok", "hang"]
    task = asyncio.create_task(appender.run())
    while not appender.up:
        await asyncio.sleep(0)
    for index in range(10):
        producer.frames(1, [index], [b"f%d" % index])
    assert appender.in_flight
    assert producer.backlog.last == 2
    assert producer.packer.frames == 9
    wire = server.wires[-1]
    wire.waiting.set_result([1, 2])
    server.last[producer.id] = 2
    async with asyncio.timeout(60):
        await appender.settled()
    assert producer.backlog.last == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_answers_of_another_life_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    producer, appender = build(monkeypatch, server)
    server.plan = ["hang"]
    task = asyncio.create_task(appender.run())
    async with asyncio.timeout(60):
        await appender.settled()
    assert server.wires[0].waiting is not None
    server.wires[0].waiting.set_result([-1, 0])
    assert producer.backlog.acked == producer.backlog.last
    assert appender.up
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_of_the_wrong_form_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    producer, appender = build(monkeypatch, server, deadline=60.0)
    server.plan = ["hang"]
    task = asyncio.create_task(appender.run())
    while not server.wires or server.wires[0].waiting is None:
        await asyncio.sleep(0)
    server.wires[0].waiting.set_result(b"what?")
    assert appender.state == "away"
    async with asyncio.timeout(60):
        await appender.settled()
    assert producer.backlog.acked >= 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
