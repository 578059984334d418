"""Redis away for long, full or wiped, receivers killed, disks full: what came in goes to disk and then to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio
from prometheus_client import REGISTRY

from feedmill.receiver.backlog import Backlog
from feedmill.receiver.spill.files import scan_file
from feedmill.receiver.spill.folder import SpillInUse
from feedmill.receiver.spill.format import RECORD_HEAD
from feedmill.shared import control
from feedmill.shared.frames import RunKind, decode_batch

from .traffic import traffic

MEMORY = 4 * 1024 * 1024
SLOW = 0.05
"""Seconds between two sends of a flow that a slow Redis, too, takes beside what is on disk: with more coming in than it
takes, the spill would never end."""
METRICS = (
    "unsent_bytes", "spill_state", "spill_bytes", "spill_limit_bytes", "spill_unsent_bytes", "spill_segments",
    "spill_oldest_seconds",
)  # fmt: skip


async def all_received(running: Any, venue: Any) -> None:
    await running.received(len(venue.sent) + len(venue.requests))


def sent_bytes(venue: Any) -> int:
    return sum(map(len, venue.sent))


async def test_redis_away_for_long(venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path) -> None:
    running = launch(memory=MEMORY, spill_dir=tmp_path, spill_size=1 << 30)
    await running.ready()
    receiver = running.receiver
    # A connection to Redis that took its time was an outage, and was spilled.
    await kit.until(lambda: receiver.appender.up and not receiver.spool.active and not receiver.spool.folder.used)
    await venue.publish(100)
    await kit.until(lambda: receiver.producer.backlog.acked > 3)
    assert not list(tmp_path.glob("*.spill"))
    redis_server.kill()
    before = sent_bytes(venue)
    async with traffic(venue, receiver):
        await kit.until(lambda: sent_bytes(venue) - before > 6 * MEMORY, 120)
        assert receiver.health.ready()[0]
        assert receiver.health.document()["spill"]["state"] == "spilling"
        assert receiver.spool.folder.used > 4 * MEMORY
        assert receiver.budget.peak < MEMORY
        exposed = {name: REGISTRY.get_sample_value(f"feedmill_receiver_{name}") for name in METRICS}
        assert exposed["spill_state"] == 1
        assert min(exposed["unsent_bytes"], exposed["spill_unsent_bytes"], exposed["spill_bytes"]) > 4 * MEMORY
        assert exposed["spill_bytes"] < exposed["spill_limit_bytes"]
        assert exposed["spill_segments"] > 1
        assert exposed["spill_oldest_seconds"] > 0
        redis_server.start()
        await kit.until(lambda: receiver.appender.up)
    async with traffic(venue, receiver, pause=SLOW):
        await kit.until(lambda: not receiver.producer.backlog.unsent_on_disk and not receiver.spool.active, 120)
    assert receiver.budget.peak < MEMORY
    await all_received(running, venue)
    await kit.until(lambda: receiver.spool.folder.used == 0 and receiver.health.document()["spill"]["state"] == "idle")
    await running.stop()
    assert not list(tmp_path.glob("*.spill"))
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert len(raw.batches) == 1
    assert venue.connects == 1
    assert not raw.controls(control.Shed)


class Process:
    """A receiver that can be killed."""

    def __init__(self, venue: Any, redis_url: str, spill_dir: Path, **settings: Any) -> None:
        self._wanted = {
            "url": venue.url,
            "rest_url": venue.rest_url,
            "redis": redis_url,
            "spill_dir": str(spill_dir),
            "settings": {"memory": MEMORY, "spill_size": 1 << 30, "alive_interval": 60.0, **settings},
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        script = Path(__file__).with_name("spilling_process.py")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), json.dumps(self._wanted), stdout=asyncio.subprocess.DEVNULL
        )

    async def end(self, number: int = signal.SIGKILL) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()


@pytest.fixture
async def process(venue: Any, redis_server: Any, tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Process] = []

    async def start(**settings: Any) -> Process:
        made.append(Process(venue, redis_server.url, tmp_path, **settings))
        await made[-1].start()
        return made[-1]

    yield start
    for each in made:
        await each.end()


def spilled(folder: Path, besides: Iterable[Path] = ()) -> int:
    """Bytes in segments other than those; one that is stored may be deleted meanwhile."""
    size = 0
    for path in set(folder.glob("*.spill")) - set(besides):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def on_disk(folder: Path) -> list[bytes]:
    """The data frames in a folder's segments, in order."""
    found: list[bytes] = []
    for path in sorted(folder.glob("*.spill")):
        scanned, _ = scan_file(path)
        data = path.read_bytes()  # Afterwards: it may be growing.
        for piece in scanned.pieces:
            for n in range(piece.first, piece.last + 1):
                batch = decode_batch(data[piece.start(n) + RECORD_HEAD : piece.stop(n)])
                assert batch.n == n
                frames = (frame for run in batch.runs if run.kind == RunKind.FRAMES for frame in run.frames)
                found += [frame for frame in frames if frame.startswith(b'{"stream":')]
    return found


async def test_killed_in_the_middle_of_the_outage(
    venue: Any, process: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    first = await process()
    await kit.until(lambda: len(venue.subscribed) == 1 and len(next(iter(venue.subscribed.values()))) == 4, 60)
    await venue.publish(200)

    async def arrived() -> bool:
        return len((await kit.read_raw(redis_server.url)).data()) == 200

    await kit.until(arrived)
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: spilled(tmp_path) > 2 * MEMORY, 60)
        await first.end()
    await kit.until(lambda: not venue.clients)
    written = on_disk(tmp_path)
    assert len(written) > 1000
    lived = len(venue.sent)
    # The next one finds Redis still away, spills too, and is killed as well.
    second = await process()
    await kit.until(lambda: len(venue.clients) == 1 and len(venue.subscribed) == 1, 60)
    async with traffic(venue):
        before = list(tmp_path.glob("*.spill"))
        await kit.until(lambda: spilled(tmp_path, before) > 100_000, 60)
        await second.end()
    await kit.until(lambda: not venue.clients)
    written_by_second = on_disk(tmp_path)[len(written) :]
    assert written_by_second
    redis_server.start()
    third = await process()
    await kit.until(lambda: len(venue.subscribed) == 1 and len(next(iter(venue.subscribed.values()))) == 4, 60)
    await venue.publish(50)

    async def all_there() -> bool:
        return (await kit.read_raw(redis_server.url)).data()[-1:] == venue.sent[-1:] and not list(
            tmp_path.glob("*.spill")
        )

    await kit.until(all_there, 120)
    assert await third.end(signal.SIGTERM) == 0
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    sessions = list(raw.batches)
    assert len(sessions) == 3
    data = [
        [r.payload for r in raw.records if r.session == each and r.payload.startswith(b'{"stream":')]
        for each in sessions
    ]
    # Of each killed one: everything up to some frame, with everything that was on its disk.
    assert data[0] == venue.sent[: len(data[0])]
    assert set(written) <= set(data[0])
    start = venue.sent.index(data[1][0])
    assert start >= lived
    assert data[1] == venue.sent[start : start + len(data[1])] == written_by_second
    assert data[2] == venue.sent[-50:]
    # Each session is whole in the stream before the next one begins, and ends with a record.
    order = [r.session for r in raw.records]
    assert order == sorted(order, key=sessions.index)
    ends = [r.session for r in raw.records if r.kind is RunKind.CONTROL and isinstance(r.value, control.SessionEnd)]
    assert ends == sessions


async def test_stopped_while_redis_is_away_leaves_all_on_disk(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    running = launch(memory=MEMORY, spill_dir=tmp_path, drain_timeout=0.5)
    await running.ready()
    redis_server.kill()
    await venue.publish(500)
    await all_received(running, venue)
    await running.stop()
    assert on_disk(tmp_path)
    redis_server.start()
    await kit.until(lambda: not venue.clients)
    again = launch(memory=MEMORY, spill_dir=tmp_path)
    await again.ready()
    await kit.until(lambda: not again.receiver.producer.past and again.receiver.spool.folder.used == 0)
    await again.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert list(raw.batches) == [running.receiver.producer.id, again.receiver.producer.id]


async def test_server_forgets_what_is_still_on_disk(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches stay on disk until they are confirmed: a server that comes back without them gets them again."""
    rewound: list[tuple[int, int]] = []

    def rewind(backlog: Backlog, n: int) -> None:
        if n <= backlog.acked:
            rewound.append((n, backlog.base))
        real(backlog, n)

    real = Backlog.rewind
    monkeypatch.setattr(Backlog, "rewind", rewind)
    running = launch(memory=MEMORY, spill_dir=tmp_path, confirm_hold=60.0)
    await running.ready()
    backlog = running.receiver.producer.backlog
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: backlog.base > 20)
        redis_server.start()
        await kit.until(lambda: running.receiver.confirmer.aof and backlog.acked > 20)
        redis_server.kill()
        await kit.until(lambda: running.receiver.appender.state == "away")
        (part,) = redis_server.aof_dir.glob("*.incr.aof")
        data = part.read_bytes()
        part.write_bytes(data[: len(data) // 2])
        acked = backlog.acked
        redis_server.start()
        await kit.until(lambda: backlog.acked > acked)
    assert [1 for n, base in rewound if 1 < n < base]
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert len(raw.batches) == 1


async def test_wiped_server_gets_what_is_on_disk_as_another_session(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    # Nothing but what is published: a record between the flush and the kill would begin the other session too early.
    running = launch(memory=MEMORY, spill_dir=tmp_path, alive_interval=60.0)
    await running.ready()
    receiver = running.receiver
    backlog = receiver.producer.backlog
    await venue.publish(100)
    await all_received(running, venue)
    await kit.until(lambda: venue.rest_calls and not receiver.desk.waiting)
    await kit.until(lambda: backlog.confirmed == backlog.last > 0 and receiver.producer.idle)
    old, before = receiver.producer.id, len(venue.sent)
    client = redis_asyncio.Redis.from_url(redis_server.url)
    await client.flushall()
    await client.bgrewriteaof()
    await client.aclose()
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: receiver.spool.folder.used > MEMORY, 60)
        redis_server.start()
        await kit.until(lambda: receiver.producer.id != old and receiver.appender.up)
    async with traffic(venue, pause=SLOW):
        await kit.until(lambda: not receiver.producer.past and not receiver.spool.active, 120)
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent[before:]
    on_its_way, now = raw.batches
    assert now == receiver.producer.id
    said = raw.controls(control.Session)
    assert [(each.session, each.lost_session) for each in said] == [(on_its_way, old), (now, old)]
    topics = [each for each in raw.controls(control.Subscribed) if len(each.topics) == 4]
    assert len(topics) == 2


async def test_spill_that_is_full_sheds_the_newest_and_says_so(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    memory, size = 1024 * 1024, 2 * 1024 * 1024
    running = launch(memory=memory, spill_dir=tmp_path, spill_size=size, max_batch_bytes=32 * 1024)
    await running.ready()
    receiver = running.receiver
    redis_server.kill()
    async with traffic(venue, receiver):
        await kit.until(lambda: receiver.producer.shed.frames > 1000, 60)
        assert receiver.health.ready()[0]
        document = receiver.health.document()["spill"]
        assert document["state"] == "full"
        assert document["bytes"] <= document["limitBytes"] < size
        assert document["shedFrames"] > 1000
        assert receiver.budget.peak <= memory
        redis_server.start()
        await kit.until(lambda: receiver.appender.up)
    async with traffic(venue, receiver, pause=SLOW):
        await kit.until(lambda: not receiver.spool.active, 120)
    await venue.publish(10)
    await all_received(running, venue)
    await running.stop()
    assert venue.connects == 1
    assert_all_stored_or_shed(await kit.read_raw(redis_server.url), venue, receiver)


def assert_all_stored_or_shed(raw: Any, venue: Any, receiver: Any) -> None:
    raw.assert_dense()
    assert len(raw.batches) == 1
    data = raw.data()
    positions = [int(kit_json(payload)["data"]["seq"]) for payload in data]
    assert positions == sorted(set(positions))
    lost = {n + 1 for n in range(len(venue.sent))} - set(positions)
    sheds = raw.controls(control.Shed)
    assert sum(shed.frames for shed in sheds) == len(lost) == receiver.producer.shed.frames > 0
    assert sum(shed.size for shed in sheds) == sum(len(venue.sent[n - 1]) for n in lost)
    # Each record stands where the frames would: between those before and those after.
    place = 0
    stored = 0
    for record in raw.records:
        if record.kind is RunKind.CONTROL and isinstance(record.value, control.Shed):
            before, after = positions[stored - 1], positions[stored]
            assert after - before - 1 == record.value.frames
            place += 1
            assert record.value.from_ns <= record.value.to_ns
        elif record.payload.startswith(b'{"stream":'):
            stored += 1
    assert place == len(sheds)


def kit_json(payload: bytes) -> Any:
    return json.loads(payload)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_disk_full_while_spilling(venue: Any, launch: Any, redis_server: Any, kit: Any, small_disk: Path) -> None:
    running = launch(memory=1024 * 1024, spill_dir=small_disk, spill_size=1 << 30, max_batch_bytes=32 * 1024)
    await running.ready()
    receiver = running.receiver
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: receiver.producer.shed.frames > 1000, 60)
        assert receiver.health.ready()[0]
        assert "No space left" in receiver.health.document()["spill"]["problem"]
        redis_server.start()
        await kit.until(lambda: receiver.appender.up)
    async with traffic(venue, receiver, pause=SLOW):
        await kit.until(lambda: not receiver.spool.active, 120)
    await venue.publish(10)
    await all_received(running, venue)
    await running.stop()
    assert venue.connects == 1
    assert_all_stored_or_shed(await kit.read_raw(redis_server.url), venue, receiver)


async def test_file_size_limit_while_spilling(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    """Where nobody may mount a small disk: the system refuses to let a file grow."""
    running = launch(memory=1024 * 1024, spill_dir=tmp_path, spill_size=1 << 30, max_batch_bytes=32 * 1024)
    await running.ready()
    receiver = running.receiver
    redis_server.kill()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, limits[1]))
    try:
        async with traffic(venue):
            await kit.until(lambda: receiver.producer.shed.frames > 1000, 60)
            assert receiver.health.ready()[0]
            assert "File too large" in receiver.health.document()["spill"]["problem"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    redis_server.start()
    await kit.until(lambda: receiver.appender.up and not receiver.spool.active, 60)
    await venue.publish(10)
    await all_received(running, venue)
    await running.stop()
    assert_all_stored_or_shed(await kit.read_raw(redis_server.url), venue, receiver)


async def test_redis_that_hangs_fills_the_disk_and_not_memory(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    """Nobody knows yet that it is away: what is held in memory decides."""
    running = launch(memory=MEMORY, spill_dir=tmp_path, append_deadline=120.0)
    await running.ready()
    receiver = running.receiver
    await kit.until(lambda: receiver.appender.up, 60)
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        async with traffic(venue, receiver):
            await kit.until(lambda: receiver.spool.folder.used > 2 * MEMORY, 60)
            assert receiver.appender.up
            assert receiver.budget.peak < MEMORY
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert len(raw.batches) == 1


async def test_cancellation_while_spilling_and_while_replaying(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    running = launch(memory=MEMORY, spill_dir=tmp_path)
    await running.ready()
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: running.receiver.spool.folder.used > 4 * MEMORY, 60)
        await running.cancel()
    redis_server.start()
    again = launch(memory=MEMORY, spill_dir=tmp_path)
    await kit.until(lambda: again.receiver.appender.up)
    await again.cancel()
    assert on_disk(tmp_path)
    last = launch(memory=MEMORY, spill_dir=tmp_path)
    await last.ready()
    await kit.until(lambda: last.receiver.spool.folder.used == 0)
    await last.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    data = [r.payload for r in raw.records if r.session == running.receiver.producer.id]
    found = [payload for payload in data if payload.startswith(b'{"stream":')]
    assert len(found) > 1000
    assert found == venue.sent[: len(found)]


async def test_a_folder_has_one_receiver(venue: Any, launch: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("feedmill.receiver.spill.folder.LOCK_WAIT", 0.3)
    running = launch(spill_dir=tmp_path)
    await running.ready()
    other = launch(spill_dir=tmp_path)
    with pytest.raises(SpillInUse, match="in use by another receiver: give each its own with --spill-dir"):
        await other.task
    assert running.receiver.health.ready()[0]
    await running.stop()


async def test_capturing_goes_on_without_a_usable_folder(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    running = launch(spill_dir=tmp_path / "file" / "spill")
    await running.ready()
    await venue.publish(10)
    document = running.receiver.health.document()["spill"]
    assert document["state"] == "unusable"
    assert "NotADirectoryError" in document["problem"]
    await all_received(running, venue)
    (tmp_path / "file").unlink()
    await kit.until(lambda: running.receiver.health.document()["spill"]["state"] == "idle")
    redis_server.kill()
    await venue.publish(10)
    await kit.until(lambda: on_disk(tmp_path / "file" / "spill"))
    redis_server.start()
    await kit.until(lambda: running.receiver.appender.up)
    await running.stop()
    assert (await kit.read_raw(redis_server.url)).data() == venue.sent


async def test_nearly_full_server_is_left_its_room(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path
) -> None:
    running = launch(memory=MEMORY, spill_dir=tmp_path)
    await running.ready()
    receiver = running.receiver
    client = redis_asyncio.Redis.from_url(redis_server.url)
    # It is looked at about once a second: what comes in until then must not fill it, however fast the machine is.
    most = 64 * 1024 * 1024
    await client.setrange("of others", most // 2 - 1, b"x")
    await client.config_set("maxmemory", str(most))
    async with traffic(venue, pause=0.01):
        await kit.until(lambda: receiver.appender.held and receiver.spool.folder.used > MEMORY, 120)
        assert receiver.breaker.state == "closed"
        assert receiver.health.ready()[0]
        assert "distributor is behind" in receiver.health.document()["redis"]["held"]
        used = (await client.info("memory"))["used_memory"]
        assert 0.55 * most < used < 0.9 * most
    # A distributor that has caught up: then the server may be as full as it likes.
    tip = (await client.xinfo_stream(kit.shard.raw))["last-generated-id"]
    await client.hset(kit.shard.checkpoint, "pos", tip)
    await kit.until(lambda: not receiver.appender.held)
    assert (await client.info("memory"))["used_memory"] > 0.55 * most
    await client.config_set("maxmemory", "0")
    await client.aclose()
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
