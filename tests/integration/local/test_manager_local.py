"""The service manager with stand-in services and a real Redis: order, draining, restarts, bounded ends."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from feedmill.local.embedded.errors import DataDirInUse
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager, redis_pool
from feedmill.local.positions import Positions, PositionsAway
from feedmill.local.process import State
from feedmill.local.servers import LocalServers
from feedmill.plan import Workload
from feedmill.shared.keys import ShardRef

FAKE = Path(__file__).with_name("fake_service.py")
PIPELINE, FEED = ("default", "main"), ("default", "fake")
NO_DATABASE = {"DATABASE_URL": "postgresql://nobody:n0thing-here@127.0.0.1:1/none"}
WORKLOADS = [
    Workload("maintenance", "main-maintenance", (), PIPELINE),
    Workload("processor", "main-processor-0", (), PIPELINE, replica="r0"),
    Workload("distributor", "fake-distributor-0-0", (), PIPELINE, FEED, 0, "r0"),
    Workload("receiver", "fake-receiver-0-0", (), PIPELINE, FEED, 0, "r0"),
]
Make = Callable[..., ServiceManager]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[ServiceManager] = []

    def build(
        behave: dict[str, str] | None = None, workloads: Sequence[Workload] = WORKLOADS, **changes: object
    ) -> ServiceManager:
        def command_of(load: Workload, port_file: Path) -> Sequence[str]:
            own = ["--port-file", str(port_file), "--trace", str(tmp_path / "trace")]
            return [sys.executable, str(FAKE), load.role, *own, "--behave", (behave or {}).get(load.role, "")]

        data_dir = tmp_path / "data"
        environ = {name: value for name, value in os.environ.items() if name != "REDIS_URL"} | NO_DATABASE
        manager = ServiceManager(
            workloads,
            config=[],
            data_dir=data_dir,
            servers=LocalServers(data_dir, environ),
            migrate=False,
            command_of=command_of,
            environ=environ,
            **changes,  # type: ignore[arg-type]
        )
        made.append(manager)
        return manager

    yield build
    for manager in made:
        manager.force()
        await manager.close()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def trace(tmp_path: Path) -> list[str]:
    return (tmp_path / "trace").read_text().splitlines()


async def test_ordered_start_and_drained_stop(make: Make, tmp_path: Path) -> None:
    said: list[str] = []
    manager = make(say=said.append)
    await manager.start()
    starts = [line.split()[0] for line in trace(tmp_path) if line.endswith("start")]
    # Receivers come last, once those who take over from them are ready.
    assert set(starts[:3]) == {"maintenance", "processor", "distributor"}
    await until(lambda: manager.status().ready)
    status = manager.status()
    assert status.phase == "running"
    assert status.totals.ready == status.totals.services == 4
    assert [server.kind for server in status.servers] == ["embedded", "external"]
    assert "n0thing" not in str(status)
    for service in status.services:
        assert service.pid is not None
        assert service.port is not None
        assert service.rss_bytes is not None
        assert service.rss_bytes > 1 << 20
        assert service.health == {"service": service.role, "ready": True, "waitingFor": {}}
    report = await asyncio.wait_for(manager.stop(), 60)
    assert report.clean, report.notes
    ends = [line for line in trace(tmp_path) if not line.endswith("start") and not line.startswith("maintenance")]
    # Each stage ended before the next was asked to: the receiver's last five entries went through both others.
    stages = ("receiver", "distributor", "processor")
    assert ends == [f"{role} {what}" for role in stages for what in ("term", "end")]
    assert manager.status().phase == "stopped"
    assert said[0] == "starting Redis, using PostgreSQL at postgresql://127.0.0.1:1/none"
    # What was captured is stored: look at the positions in the server's own data.
    servers = LocalServers(tmp_path / "data", NO_DATABASE)
    await servers.start()
    try:
        pool = redis_pool(servers.redis_url)
        (found,) = await Positions(pool, [ShardRef("default", "fake", 0)]).read()
        await pool.close()
    finally:
        await servers.stop()
    assert found.captured
    assert found.captured == found.dispatched
    assert found.emitted == found.stored


async def test_account_receivers_start_before_the_receivers_and_end_with_them(make: Make, tmp_path: Path) -> None:
    said: list[str] = []
    manager = make(
        None, [Workload("accounts", "main-accounts-0", (), PIPELINE, replica="r0"), *WORKLOADS], say=said.append
    )
    await manager.start()
    assert "starting account receiver, maintenance, processor, distributor" in said
    await until(lambda: manager.status().ready)
    starts = [line.split()[0] for line in trace(tmp_path) if line.endswith("start")]
    assert starts[-1] == "receiver"
    report = await asyncio.wait_for(manager.stop(), 60)
    assert "stopping receivers and account receivers (they hand over what they hold)" in said
    ends = [line for line in trace(tmp_path) if line.endswith("end")]
    assert set(ends[:2]) == {"accounts end", "receiver end"}
    # The positions of accounts are in the database, which does not answer here: nothing is said to be stored.
    (note,) = report.notes
    assert note.startswith("whether all account events are stored is not known (")


async def test_what_cannot_drain_is_told(make: Make) -> None:
    manager = make({"distributor": "idle"}, stall_timeout=0.3)
    await manager.start()
    assert await manager.service("fake-receiver-0-0").up()
    report = await asyncio.wait_for(manager.stop(), 60)
    assert not report.clean
    assert report.notes == [
        "captured frames of default.fake.0 stay in Redis (nothing moved for 0.3 s): they are handled at the next start"
    ]


async def test_a_crashed_service_is_restarted_while_the_others_go_on(make: Make) -> None:
    manager = make()
    await manager.start()
    receiver, processor = manager.service("fake-receiver-0-0"), manager.service("main-processor-0")
    assert await receiver.up()
    processor_pid = processor.pid
    receiver.signal(9)
    await until(lambda: receiver.restarts == 1 and receiver.state is State.RUNNING)
    assert processor.pid == processor_pid
    found = next(item for item in manager.status().services if item.name == receiver.name)
    assert (found.restarts, found.last_exit) == (1, "killed by SIGKILL")
    with pytest.raises(KeyError, match=r"no service 'x': there are main-maintenance, main-processor-0"):
        manager.service("x")
    await manager.stop()


async def test_a_killed_redis_comes_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make()
    await manager.start()
    server = manager.servers.redis
    assert server is not None
    port = server.port
    # Who watches it may start it again before it is asked here: not until then.
    start, asked = server.start, threading.Event()
    monkeypatch.setattr(server, "start", lambda: (asked.wait(60), start()))
    server.kill()
    assert manager.redis is not None
    positions = Positions(manager.redis, manager.shards)
    try:
        with pytest.raises(PositionsAway):
            await positions.read()
    finally:
        asked.set()
    await until(lambda: manager.servers.status()[0].restarts == 1)
    assert server.port == port
    await positions.read()
    await manager.stop()
    assert manager.redis is None


async def test_refused_configuration_ends_the_start_with_its_words(make: Make) -> None:
    manager = make({"processor": "badconfig"})
    with pytest.raises(ManagerError, match=r"main-processor-0 refuses its configuration: feed.yaml: spec.shards: 0"):
        await manager.start()
    status = manager.status()
    assert status.phase == "stopped"
    assert all(item.state in ("stopped", "waiting") for item in status.services)
    assert all(item.pid is None for item in status.services)
    assert manager.servers.redis is not None
    assert not manager.servers.redis.running


async def test_a_redis_out_of_reach_ends_the_start(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedmill.local.manager.REDIS_WAIT", 0.2)
    manager = make()
    manager.servers = LocalServers(tmp_path / "data", NO_DATABASE | {"REDIS_URL": "redis://:hush-hush@127.0.0.1:1/0"})
    with pytest.raises(ManagerError, match=r"Redis \(redis://127.0.0.1:1/0\) cannot be reached: .*refused|Error 111"):
        await manager.start()
    assert manager.status().phase == "stopped"
    assert manager.redis is None


async def test_a_second_manager_on_the_same_folder_is_refused(make: Make) -> None:
    first, second = make(), make()
    await first.start()
    with pytest.raises(DataDirInUse, match=r"in use by feedmill process \d+: stop it first, or choose another"):
        await second.start()
    assert first.status().phase == "running"
    await first.stop()
    await second.start()
    await second.stop()


@pytest.mark.parametrize("after", ["servers", "maintenance", "running"])
async def test_cancelling_the_start_or_the_wait_leaves_nothing(make: Make, after: str, tmp_path: Path) -> None:
    manager = make({"maintenance": "silent"} if after == "maintenance" else None)
    task = asyncio.create_task(manager.start())
    if after == "servers":
        await until(lambda: manager.step != "")
    elif after == "maintenance":
        await until(lambda: (tmp_path / "trace").exists())
    else:
        await task
    pids = [item.pid for item in manager.status().services if item.pid]
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.done()
    if after == "running":
        await asyncio.wait_for(manager.close(), 60)
    assert manager.phase == "stopped"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert manager.servers.redis is not None
    assert not manager.servers.redis.running


async def test_force_cuts_the_drain_short(make: Make) -> None:
    manager = make({"receiver": "stubborn"}, grace=3600.0)
    await manager.start()
    receiver = manager.service("fake-receiver-0-0")
    assert await receiver.up()
    stop = asyncio.create_task(manager.stop())
    await until(lambda: receiver.state is State.STOPPING)
    manager.force()
    report = await asyncio.wait_for(stop, 30)
    assert not report.clean
    assert report.notes == ["forced: what was not stored yet stays in Redis and is handled at the next start"]
