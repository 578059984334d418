"""The span of a batch: from its first frame to Redis' word that it has it, whatever came between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY

from feedmill.receiver import appender as appender_module
from feedmill.receiver.appender import Appender
from feedmill.receiver.session import Producer
from feedmill.shared import control
from feedmill.shared.breaker import Breaker
from feedmill.shared.budget import ByteBudget
from feedmill.shared.frames import decode_batch
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.tracing import TRACES

SHARD = ShardRef("n", "f", 0)


class Wire:
    """A connection whose appends are answered by the test."""

    run_id = "x"

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.posted: list[tuple[Any, int, bytes]] = []

    async def call(self, *_: Any) -> bytes:
        return b"digest"

    def post(self, reply: Any, how: str, script: str, count: int, raw: str, sessions: str, *args: Any) -> None:
        _, n, payload = args
        self.posted.append((reply, n, payload))

    def abort(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def answer(self, code: int = 1) -> None:
        reply, n, _ = self.posted.pop(0)
        reply.set_result([code, n if code >= 0 else n - 1])


class World:
    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.producer = Producer("r", ByteBudget(10**9), shard=str(SHARD))
        breaker = Breaker("redis", fail_max=30, reset_timeout=0.001)
        url = RedisUrl.parse("redis://localhost")
        # Nothing is sent again because a busy machine paused: attempts are counted here.
        self.appender = Appender(url, SHARD, self.producer, breaker, deadline=60.0, log=get_logger())

    async def connect(self, *_: Any, **__: Any) -> Wire:
        self.wires.append(Wire())
        return self.wires[-1]

    async def posted(self, wires: int = 1) -> Wire:
        """The newest connection, once an append is under way on it."""
        async with asyncio.timeout(60):
            while len(self.wires) < wires or not self.wires[-1].posted:
                await asyncio.sleep(0)
        return self.wires[-1]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World()
    monkeypatch.setattr(appender_module, "connect", made.connect)
    task = asyncio.create_task(made.appender.run())
    # The session's own record: it has no frame.
    (await made.posted()).answer()
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_batch_is_a_trace_and_carries_it(world: World, traced: Any) -> None:
    observed = REGISTRY.get_sample_value("feedmill_receiver_append_seconds_count") or 0.0
    world.producer.frames(3, [1_000, 2_000], [b"{}", b"{:}"])
    wire = await world.posted()
    ((_, _, payload),) = wire.posted
    batch = decode_batch(payload)
    wire.answer()
    append, receive = traced.spans()
    assert batch.trace == f"00-{receive.context.trace_id:032x}-{receive.context.span_id:016x}-01"
    assert (receive.name, receive.kind, receive.start_time) == ("receive", SpanKind.PRODUCER, 1_000)
    assert receive.attributes == {
        "feedmill.shard": "n.f.0",
        "feedmill.session": world.producer.id,
        "feedmill.batch": batch.n,
        "feedmill.frames": 2,
        "feedmill.answers": 0,
        "feedmill.bytes": 5,
        "feedmill.connections": (3,),
        "feedmill.append.attempts": 1,
    }
    assert [event.name for event in receive.events] == ["sealed"]
    assert (append.name, append.parent.span_id) == ("append", receive.context.span_id)
    assert receive.start_time < receive.events[0].timestamp <= append.start_time <= append.end_time <= receive.end_time
    assert REGISTRY.get_sample_value("feedmill_receiver_append_seconds_count") == observed + 1


async def test_an_answer_of_the_venue_is_followed_too(world: World, traced: Any) -> None:
    world.producer.answer(control.RestAnswer("c", "trades", "A-B", "AB", 200, 5, b"[]"), 7)
    (await world.posted()).answer()
    _, receive = traced.spans()
    assert receive.start_time == 7
    assert (receive.attributes["feedmill.frames"], receive.attributes["feedmill.answers"]) == (0, 1)


async def test_what_has_no_frames_is_no_trace(world: World, traced: Any) -> None:
    world.producer.record(control.Alive())
    wire = await world.posted()
    assert decode_batch(wire.posted[0][2]).trace == ""
    wire.answer()
    assert traced.spans() == []


async def test_nothing_is_traced_while_it_is_off_or_by_chance_not(world: World, traced: Any) -> None:
    TRACES.use(traced.sender, 0)
    world.producer.frames(1, [1], [b"{}"])
    wire = await world.posted()
    assert decode_batch(wire.posted[0][2]).trace == ""
    wire.answer()
    assert traced.spans() == []  # It is off now.
    world.producer.frames(1, [1], [b"{}"])
    assert decode_batch(wire.posted[0][2]).trace == ""


async def test_a_lost_answer_is_an_append_that_failed(world: World, traced: Any) -> None:
    world.producer.frames(1, [1], [b"{}"])
    wire = await world.posted()
    first = decode_batch(wire.posted[0][2])
    with structlog.testing.capture_logs() as lines:
        wire.posted[0][0].set_exception(ConnectionResetError("gone"))
    (line,) = [line for line in lines if line["event"] == "redis.away"]
    assert (line["session"], line["batch"], line["trace_id"]) == (first.session, first.n, first.trace[3:35])
    again = await world.posted(2)
    assert decode_batch(again.posted[0][2]) == first
    again.answer(0)  # The server has it already.
    lost, append, receive = traced.spans()
    assert (lost.status.status_code, lost.status.description) == (StatusCode.ERROR, "no answer: sent again")
    assert append.status.status_code is receive.status.status_code is StatusCode.UNSET
    assert receive.attributes["feedmill.append.attempts"] == 2


async def test_what_a_new_session_sends_again_keeps_its_trace(world: World, traced: Any) -> None:
    world.producer.frames(1, [1], [b"{}"])
    wire = await world.posted()
    first = decode_batch(wire.posted[0][2])
    world.producer.confirm(world.producer.id, world.producer.backlog.acked)
    wire.posted.pop(0)[0].set_result([-1, 0])  # It has forgotten what is no longer held.
    session = await world.posted()
    session.answer()
    found = await world.posted()
    second = decode_batch(found.posted[0][2])
    assert second.session != first.session
    assert (second.trace, second.runs) == (first.trace, first.runs)
    found.answer()
    assert [span.name for span in traced.spans()] == ["append", "append", "receive"]


async def test_what_goes_to_the_disk_tells_so_and_keeps_its_trace_there(traced: Any) -> None:
    producer = Producer("r", ByteBudget(10**9), shard=str(SHARD))
    producer.frames(1, [1], [b"{}"])
    assert producer.seal()
    (kept,) = producer.backlog.waiting(1)
    trace = kept.trace
    assert trace is not None
    assert decode_batch(kept.payload).trace == trace.parent
    producer.spilled(kept.n)
    (receive,) = traced.spans()
    assert receive.attributes["feedmill.spilled"] is True
    assert trace.parent[36:52] == f"{receive.context.span_id:016x}"
