"""Spill, appender and sessions against a server and a disk that misbehave: any order of writing, sending, confirming,
forgetting, failing and being killed leaves each session dense, in order and without a loss of what was on disk."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.receiver import appender as appender_module
from feedmill.receiver.appender import Appender
from feedmill.receiver.session import Producer
from feedmill.receiver.spill import files
from feedmill.receiver.spill import spool as spool_module
from feedmill.receiver.spill.spool import Spool
from feedmill.shared import control
from feedmill.shared.breaker import Breaker
from feedmill.shared.budget import ByteBudget
from feedmill.shared.frames import RawBatch, RunKind, decode_batch
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import WireClosed


class Server:
    """The append script's meaning, with a log whose tail can be forgotten."""

    def __init__(self) -> None:
        self.raw: list[tuple[str, int, bytes]] = []
        self.away = False
        self.wires: list[Wire] = []

    def last(self, session: str) -> int:
        return max((n for each, n, _ in self.raw if each == session), default=0)

    def append(self, session: str, n: int, payload: bytes) -> list[int]:
        last = self.last(session)
        if n <= last:
            return [0, last]
        if n != last + 1:
            return [-1, last]
        self.raw.append((session, n, payload))
        return [1, n]

    def leave(self) -> None:
        self.away = True
        for wire in self.wires:
            wire.abort()
        self.wires.clear()

    def batches(self) -> list[RawBatch]:
        return [decode_batch(payload) for _, _, payload in self.raw]


class Wire:
    run_id = "x"

    def __init__(self, server: Server) -> None:
        if server.away:
            raise ConnectionRefusedError("away")
        self.server = server
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        server.wires.append(self)

    async def call(self, *args: Any) -> Any:
        if self.closed.done():
            raise WireClosed("gone")
        return str(self.server.last(args[2])).encode() if args[0] == "HGET" else b"digest"

    def post(self, reply: Any, how: str, script: str, count: int, raw: str, sessions: str, *args: Any) -> None:
        if self.closed.done():
            raise WireClosed("gone")
        session, n, payload = args
        asyncio.get_running_loop().call_soon(self.answer, reply, session, n, payload)

    def answer(self, reply: Any, session: str, n: int, payload: bytes) -> None:
        if self.closed.done():
            reply.set_exception(WireClosed("gone"))
        else:
            reply.set_result(self.server.append(session, n, payload))

    def abort(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


@dataclass
class Life:
    """One process of the replica, and what it was given to send."""

    server: Server
    folder: Path
    size: int
    number: int
    given: list[bytes] = field(default_factory=list)
    shard: str = "n.f.0"
    pressed: bool = False
    """Batches go to the disk although Redis takes them."""

    async def start(self) -> None:
        self.producer = Producer("r0", ByteBudget(64 * 1024), max_bytes=2000, log=get_logger())
        breaker = Breaker("redis", fail_max=100, reset_timeout=0.001)
        url, shard = RedisUrl.parse("redis://localhost"), ShardRef("n", "f", 0)
        self.appender = Appender(url, shard, self.producer, breaker, deadline=10.0, log=get_logger())
        self.spool = Spool(self.folder, self.shard, self.size, self.producer, lambda: self.blocked, get_logger())
        self.spool.active = True
        await self.spool.open()
        self.task = asyncio.create_task(self.appender.run())

    @property
    def blocked(self) -> float:
        """As after a long time, whenever Redis is away."""
        return 0.0 if self.appender.up and not self.pressed else 60.0

    def take(self, count: int) -> None:
        for _ in range(count):
            self.given.append(b"%d/%d" % (self.number, len(self.given)))
            self.producer.frames(1, [len(self.given)], self.given[-1:])

    def confirm(self) -> None:
        pending = self.producer.to_confirm()
        if pending is not None:
            self.producer.confirm(*pending)

    async def race(self, turns: int) -> None:
        """A write during which Redis takes and confirms what is being written."""
        self.pressed = True
        self.spool.active = True
        task = asyncio.create_task(self.spool.work())
        for _ in range(turns):
            await asyncio.sleep(0)
        self.confirm()
        await task
        self.pressed = False

    async def settled(self) -> None:
        """Everything is in Redis; the disk does nothing."""
        await until(lambda: self.appender.up)
        await asyncio.wait_for(self.appender.settled(), 60)

    async def kill(self) -> None:
        """Without any of its own doing: what the thread does ends, the index and the memory are gone."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for disk in self.spool.disks:
            disk.forget_window()
        await self.spool.folder.close()


def is_down(appender: Appender) -> bool:
    return not appender.up


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def frames_of(server: Server, life: int) -> list[bytes]:
    found = [
        frame for batch in server.batches() for run in batch.runs if run.kind == RunKind.FRAMES for frame in run.frames
    ]
    return [frame for frame in found if frame.startswith(b"%d/" % life)]


def frames_on_disk(folder: Path, life: int) -> list[bytes]:
    found: list[bytes] = []
    for path in sorted(folder.glob("*.spill")):
        data = path.read_bytes()
        for piece in files.scan_file(path)[0].pieces:
            for n in range(piece.first, piece.last + 1):
                for run in decode_batch(data[piece.start(n) + 36 : piece.stop(n)]).runs:
                    found += run.frames if run.kind == RunKind.FRAMES else []
    return [frame for frame in found if frame.startswith(b"%d/" % life)]


def assert_dense(server: Server) -> None:
    numbers: dict[str, list[int]] = {}
    for session, n, payload in server.raw:
        numbers.setdefault(session, []).append(n)
        batch = decode_batch(payload)
        assert (batch.session, batch.n) == (session, n)
    for session, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), session


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(url: Any, **_: Any) -> Wire:
        return Wire(current[-1])

    async def no_sleep(_: float) -> None:
        await real_sleep(0)

    real_sleep = asyncio.sleep
    monkeypatch.setattr(appender_module, "connect", connect)
    monkeypatch.setattr(appender_module, "asyncio", _Asyncio(no_sleep))
    monkeypatch.setattr(spool_module, "SEAL_AFTER", 0.0)
    monkeypatch.setattr(spool_module, "TRY_AGAIN", 0.0)


current: list[Server] = []
"""The server of the test at hand, last."""


class _Asyncio:
    """asyncio without waiting."""

    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("frames"), st.integers(1, 100)),
        st.tuples(st.sampled_from(["outage", "crash"]), st.integers(1, 200)),
        st.tuples(st.just("turn"), st.integers(1, 30)),
        st.tuples(st.sampled_from(["forget", "race"]), st.integers(1, 8)),
        st.tuples(st.sampled_from(["write", "confirm", "leave", "come", "kill", "settle"]), st.just(0)),
        st.tuples(st.just("fail"), st.integers(1, 2)),
    ),
    min_size=8,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps)
async def test_any_order_of_events(actions: list[tuple[str, int]]) -> None:
    server = Server()
    current.append(server)
    safe = 0
    fail = 0
    real = files.os.writev

    def writev(fd: int, parts: Any) -> int:
        nonlocal fail
        if fail:
            fail -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, parts)

    on_disk: dict[int, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(files.os, "writev", writev)
        lives = [Life(server, Path(name), 1 << 20, 0)]
        await lives[0].start()
        for action, number in actions:
            life = lives[-1]
            assert life.spool.oldest_seconds >= 0
            if action == "frames":
                life.take(number)
            elif action in ("outage", "crash"):
                server.leave()
                await until(partial(is_down, life.appender))
                life.take(number)
                await life.spool.work()
            elif action == "write":
                await life.spool.work()
            elif action == "confirm" and not server.away:
                # What is confirmed is on the server's disk: from here on it is not forgotten.
                life.confirm()
                safe = len(server.raw)
            elif action == "race" and not server.away:
                await life.race(number)
                safe = len(server.raw)
            elif action == "leave":
                server.leave()
                await until(partial(is_down, life.appender))
            elif action == "forget" and server.away:
                del server.raw[max(safe, len(server.raw) - number) :]
            elif action == "come":
                server.away = False
            elif action == "turn":
                for _ in range(number):
                    await asyncio.sleep(0)
            elif action == "fail":
                fail = number
            elif action == "settle" and not server.away:
                await life.settled()
            if action in ("kill", "crash"):
                await life.kill()
                on_disk[life.number] = frames_on_disk(Path(name), life.number)
                # Of what was only in the server and in the memory of the killed one nothing may be forgotten now.
                safe = len(server.raw)
                lives.append(Life(server, Path(name), 1 << 20, life.number + 1))
                await lives[-1].start()
        server.away = False
        fail = 0
        last = lives[-1]
        await last.settled()
        await last.kill()
    assert_dense(server)
    assert last.producer.shed.frames == 0
    for life in lives:
        got = frames_of(server, life.number)
        assert got == life.given[: len(got)]
        missing = set(on_disk.get(life.number, [])) - set(got)
        assert not missing
    assert frames_of(server, last.number) == last.given
    order = [int(frame.split(b"/")[0]) for batch in server.batches() for run in batch.runs
             if run.kind == RunKind.FRAMES for frame in run.frames]  # fmt: skip
    assert order == sorted(order)
    current.pop()


@pytest.fixture
async def first(tmp_path: Path) -> AsyncIterator[Life]:
    server = Server()
    current.append(server)
    life = Life(server, tmp_path, 1 << 20, 0)
    await life.start()
    yield life
    if not life.task.done():
        await life.kill()
    current.pop()


async def outage(life: Life, frames: int) -> None:
    life.server.leave()
    await until(partial(is_down, life.appender))
    life.take(frames)
    life.spool.active = True
    while await life.spool.work():
        pass


async def next_life(life: Life) -> Life:
    following = Life(life.server, life.folder, life.size, life.number + 1)
    await following.start()
    return following


def said(server: Server, kind: type) -> list[Any]:
    found = [
        frame for batch in server.batches() for run in batch.runs if run.kind == RunKind.CONTROL for frame in run.frames
    ]
    return [record for record in map(control.decode_control, found) if isinstance(record, kind)]


async def test_all_but_the_end_of_a_killed_one_is_confirmed(first: Life) -> None:
    """Nothing of it is on disk then: health and metrics are read all the same."""
    await outage(first, 40)
    await first.kill()
    last = await next_life(first)
    first.server.away = False
    await until(lambda: bool(last.producer.past) and last.producer.past[0].backlog.acked >= first.producer.backlog.last)
    (past,) = last.producer.past
    last.producer.confirm(past.id, past.disk.last)
    assert (list(past.disk.extents), last.producer.past) == ([], [past])
    assert last.spool.oldest_seconds == 0
    await last.settled()
    await last.kill()


async def test_confirmed_while_it_is_being_written(first: Life) -> None:
    """Then the segment goes although something was just added to it: that must be written again."""
    await outage(first, 100)
    first.server.away = False
    await first.settled()
    first.pressed = True
    disk = first.producer.disk
    assert disk
    first.appender.hold("the test")
    first.take(50)
    first.producer.seal()
    assert len(first.producer.backlog.waiting(10**6)) > 1
    first.spool.active = True
    write = asyncio.create_task(first.spool.work())
    await asyncio.sleep(0)
    first.confirm()
    assert not disk
    await write
    assert not disk
    while await first.spool.work():
        pass
    await first.spool.folder.writing(lambda: None)
    assert disk
    assert frames_on_disk(first.folder, 0) == first.given[100:]
    first.pressed = False
    first.appender.hold("")
    await first.settled()
    assert frames_of(first.server, 0) == first.given
    assert_dense(first.server)


async def test_replaced_while_it_is_being_written(first: Life) -> None:
    await first.settled()
    first.confirm()
    first.server.raw.clear()
    await outage(first, 100)
    first.take(100)
    first.producer.seal()
    write = asyncio.create_task(first.spool.work())
    await asyncio.sleep(0)
    first.producer.replace()
    await write
    first.server.away = False
    await first.settled()
    assert frames_of(first.server, 0) == first.given
    assert_dense(first.server)
    begun = said(first.server, control.Session)
    assert [each.session for each in begun] == list(dict.fromkeys(session for session, _, _ in first.server.raw))
    assert len(begun) == 2
    assert begun[0].lost_session == begun[1].lost_session != begun[0].session
    assert said(first.server, control.SessionEnd) == [control.SessionEnd("redis_lost")]


async def test_damaged_batches_of_a_killed_one_are_told(first: Life) -> None:
    await outage(first, 240)
    await first.kill()
    (path,) = first.folder.glob("*.spill")
    (piece,) = files.scan_file(path)[0].pieces
    assert piece.last > 8
    data = bytearray(path.read_bytes())
    data[piece.start(3) + 60] ^= 1  # the payload of the third
    data[piece.start(5) + 2] ^= 1  # where the fifth begins
    del data[piece.stop(piece.last) - 1 :]  # torn
    path.write_bytes(data)
    first.server.away = False
    second = await next_life(first)
    await second.settled()
    await second.kill()
    assert_dense(first.server)
    batches = {batch.n: batch for batch in first.server.batches() if batch.session == first.producer.id}
    assert list(batches) == list(range(1, piece.last + 1))
    assert isinstance(control.decode_control(batches[piece.last].runs[0].frames[0]), control.SessionEnd)
    sheds = said(first.server, control.Shed)
    assert [shed.conn for shed in sheds] == [0, 0]
    assert sheds[0].frames > 0
    got = frames_of(first.server, 0)
    assert got == [frame for frame in first.given if frame in set(got)]
    lost = len(first.given) - len(got)
    assert sheds[0].frames < lost
    assert lost == 3 * sheds[0].frames or lost < 4 * sheds[0].frames


async def test_a_segment_that_is_gone_and_one_without_head(first: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    await outage(first, 1)
    for _ in range(3):
        first.spool.folder.writer.close()
        first.take(30)
        first.producer.seal()
        await first.spool.work()
    await first.kill()
    paths = sorted(first.folder.glob("*.spill"))
    assert len(paths) == 4
    paths[1].unlink()
    paths[2].write_bytes(b"x" * 20 + paths[2].read_bytes()[20:])
    first.server.away = False
    second = await next_life(first)
    await second.settled()
    await second.kill()
    assert_dense(first.server)
    assert len(said(first.server, control.Shed)) == 1
    assert frames_of(first.server, 0) == first.given[:1] + first.given[31:]


async def test_wiped_server_and_a_killed_receiver(first: Life) -> None:
    topic = control.TopicRef("A", "A", "Trades", "a")
    first.producer.record(control.Connected(1, "stream", [topic]), 1)
    first.producer.record(control.Subscribed(1, [topic]), 1)
    first.take(10)
    await first.settled()
    first.confirm()
    await outage(first, 60)
    await first.kill()
    first.server.raw.clear()
    first.server.away = False
    second = await next_life(first)
    second.take(5)
    await second.settled()
    assert len(second.producer.past) == 1
    second.confirm()
    assert not second.producer.past
    await second.settled()
    await second.kill()
    assert not list(first.folder.glob("*.spill"))
    assert_dense(first.server)
    assert frames_of(first.server, 0) == first.given[10:]
    assert frames_of(first.server, 1) == second.given
    begun = said(first.server, control.Session)
    assert [each.lost_session for each in begun] == [first.producer.id, None]
    assert first.producer.session.started_ns < begun[0].started_ns < begun[1].started_ns
    assert said(first.server, control.Connected) == [control.Connected(1, "stream", [topic])]
    assert said(first.server, control.Subscribed) == [control.Subscribed(1, [topic])]
    assert said(first.server, control.SessionEnd) == [control.SessionEnd("killed")]


async def test_the_server_had_more_than_was_on_disk(first: Life) -> None:
    """After the outage batches went to Redis directly, and the receiver was killed before the disk was let go of."""
    await outage(first, 60)
    first.server.away = False
    await first.settled()
    first.take(10)
    await first.settled()
    on_server = first.server.last(first.producer.id)
    assert on_server > first.producer.backlog.base
    await first.kill()
    second = await next_life(first)
    await second.settled()
    await second.kill()
    assert_dense(first.server)
    assert frames_of(first.server, 0) == first.given
    assert first.server.last(first.producer.id) == on_server + 1
    assert len(said(first.server, control.SessionEnd)) == 1


async def test_segments_of_another_shard_stay_where_they_are(first: Life) -> None:
    await outage(first, 60)
    await first.kill()
    paths = list(first.folder.glob("*.spill"))
    first.server.away = False
    other = Life(first.server, first.folder, first.size, 1, shard="n.f.1")
    await other.start()
    other.take(5)
    await other.settled()
    assert other.spool.folder.used == sum(path.stat().st_size for path in paths) > 0
    await other.kill()
    assert list(first.folder.glob("*.spill")) == paths
    assert not frames_of(first.server, 0)
    right = Life(first.server, first.folder, first.size, 2)
    await right.start()
    await right.settled()
    await right.kill()
    assert frames_of(first.server, 0) == first.given


async def test_nothing_that_goes_wrong_in_the_spill_ends_the_receiver(first: Life, monkeypatch: Any) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a fault of the code")

    first.server.leave()
    await until(partial(is_down, first.appender))
    first.take(50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.SegmentWriter, "write", broken)
        run = asyncio.create_task(first.spool.run())
        await until(lambda: "a fault of the code" in first.spool.problem)
    await until(lambda: bool(first.producer.disk))
    assert not run.done()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    first.server.away = False
    await first.settled()
    assert frames_of(first.server, 0) == first.given


async def test_a_segment_that_cannot_be_read_costs_itself(first: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path, start: int, stop: int) -> bytes:
        if path != spoiled:
            return real(path, start, stop)
        calls.append(start)
        raise OSError(errno.EIO, "Input/output error")

    calls: list[int] = []
    real = files.read_span
    monkeypatch.setattr("feedmill.receiver.spill.disk.RETRY", 0.0)
    await outage(first, 30)
    first.spool.folder.writer.close()
    first.take(30)
    first.producer.seal()
    await first.spool.work()
    spoiled, _ = sorted(first.folder.glob("*.spill"))
    monkeypatch.setattr(files, "read_span", unreadable)
    first.server.away = False
    await first.settled()
    assert len(calls) > 5
    assert_dense(first.server)
    got = frames_of(first.server, 0)
    assert got == first.given[30:]
    # Each attempt to read it is one record.
    sheds = said(first.server, control.Shed)
    assert len(sheds) == len(set(calls)) > 0
    assert {shed.conn for shed in sheds} == {0}
