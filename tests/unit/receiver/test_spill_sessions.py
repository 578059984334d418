"""Spill, appender and sessions against a server and a disk that misbehave: any order of writing, sending, confirming,
forgetting, failing and being killed leaves each session dense, in order and without a loss of what was on disk."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Callable
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

    async def start(self) -> None:
        self.producer = Producer("r0", ByteBudget(64 * 1024), max_bytes=2000, log=get_logger())
        breaker = Breaker("redis", fail_max=100, reset_timeout=0.001)
        url, shard = RedisUrl.parse("redis://localhost"), ShardRef("n", "f", 0)
        self.appender = Appender(url, shard, self.producer, breaker, deadline=10.0, log=get_logger())
        self.spool = Spool(self.folder, self.size, self.producer, lambda: self.blocked, get_logger())
        self.spool.active = True
        await self.spool.open()
        self.task = asyncio.create_task(self.appender.run())

    @property
    def blocked(self) -> float:
        """As after a long time, whenever Redis is away."""
        return 0.0 if self.appender.up else 60.0

    def take(self, count: int) -> None:
        frames = [b"%d/%d" % (self.number, len(self.given) + index) for index in range(count)]
        self.given += frames
        self.producer.frames(1, [len(self.given)] * count, frames)

    def confirm(self) -> None:
        pending = self.producer.to_confirm()
        if pending is not None:
            self.producer.confirm(*pending)

    async def settled(self) -> None:
        """Everything is in Redis; the disk does nothing."""
        await until(lambda: self.appender.up)
        await asyncio.wait_for(self.appender.settled(), 5)

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
    async with asyncio.timeout(5):
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
        st.tuples(st.just("forget"), st.integers(1, 8)),
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
