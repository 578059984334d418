"""A run of local mode from start to end, with stand-in services: signals, errors, and a killed manager."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from feedmill.local.errors import ManagerError
from feedmill.local.figures import FeedFigures
from feedmill.local.manager import ServiceManager
from feedmill.local.servers import LocalServers
from feedmill.local.session import LocalSession
from feedmill.local.status import ManagerStatus
from feedmill.plan import Workload

FAKE = Path(__file__).with_name("fake_service.py")
SOURCES = Path(__file__).parents[3] / "services" / "src"
PIPELINE, FEED = ("default", "main"), ("default", "fake")
WORKLOADS = [
    Workload("processor", "main-processor-0", (), PIPELINE, replica="r0"),
    Workload("distributor", "fake-distributor-0-0", (), PIPELINE, FEED, 0, "r0"),
    Workload("receiver", "fake-receiver-0-0", (), PIPELINE, FEED, 0, "r0"),
]


class Recorder:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[ManagerStatus] = []
        self.stopped = False

    def start(self) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, status: ManagerStatus, figures: Sequence[FeedFigures]) -> None:
        self.shown.append(status)

    def stop(self) -> None:
        self.stopped = True


Make = Callable[..., LocalSession]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(behave: dict[str, str] | None = None) -> LocalSession:
        def command_of(load: Workload, port_file: Path) -> list[str]:
            own = ["--port-file", str(port_file), "--trace", str(tmp_path / "trace")]
            return [sys.executable, str(FAKE), load.role, *own, "--behave", (behave or {}).get(load.role, "")]

        environ = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        environ["DATABASE_URL"] = "postgresql://u:n0thing@127.0.0.1:1/none"
        display = Recorder()
        manager = ServiceManager(
            WORKLOADS,
            config=[],
            data_dir=tmp_path / "data",
            servers=LocalServers(tmp_path / "data", environ),
            migrate=False,
            environ=environ,
            command_of=command_of,
            say=display.say,
        )
        return LocalSession(manager, [], display, api_port=0)

    return build


def recorder(session: LocalSession) -> Recorder:
    assert isinstance(session.display, Recorder)
    return session.display


async def test_a_run_from_start_to_end(make: Make) -> None:
    session = make()

    async def during(running: LocalSession) -> None:
        assert running.api_url.startswith("http://127.0.0.1:")
        receiver = running.manager.service("fake-receiver-0-0")
        assert await receiver.up()
        while not recorder(running).shown:
            await asyncio.sleep(0.01)

    outcome = await asyncio.wait_for(session.run(during), 60)
    assert outcome.drain.clean, outcome.drain.notes
    assert not outcome.interrupted
    assert outcome.seconds > 0
    assert session.manager.phase == "stopped"
    assert recorder(session).stopped
    assert recorder(session).said[-1] == "stopping processors"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_end_in_order(make: Make, number: signal.Signals, tmp_path: Path) -> None:
    session = make()

    async def during(running: LocalSession) -> None:
        assert await running.manager.service("fake-receiver-0-0").up()
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    outcome = await asyncio.wait_for(session.run(during), 60)
    assert outcome.interrupted
    assert outcome.drain.clean, outcome.drain.notes
    assert "stopping in order (once more = now)" in recorder(session).said
    ends = [line.split()[0] for line in (tmp_path / "trace").read_text().splitlines() if line.endswith("end")]
    assert ends == ["receiver", "distributor", "processor"]


async def test_the_second_signal_ends_at_once(make: Make) -> None:
    session = make({"receiver": "stubborn"})

    async def during(running: LocalSession) -> None:
        receiver = running.manager.service("fake-receiver-0-0")
        assert await receiver.up()
        running.interrupt()
        await asyncio.Event().wait()

    run = asyncio.create_task(session.run(during))
    async with asyncio.timeout(90):
        while session.manager.phase != "draining":
            await asyncio.sleep(0.01)
    began = time.monotonic()
    session.interrupt()
    outcome = await asyncio.wait_for(run, 30)
    assert time.monotonic() - began < 20  # Less than the grace of 25 seconds.
    assert not outcome.drain.clean


async def test_an_interrupt_during_the_start(make: Make) -> None:
    session = make({"processor": "silent"})

    async def never(_: LocalSession) -> None:
        raise AssertionError("it must not come to this")

    run = asyncio.create_task(session.run(never))
    async with asyncio.timeout(90):
        while not any(item.pid for item in session.manager.status().services):
            await asyncio.sleep(0.01)
    session.interrupt()
    outcome = await asyncio.wait_for(run, 60)
    assert outcome.interrupted
    assert session.manager.phase == "stopped"
    assert all(item.pid is None for item in session.manager.status().services)


async def test_an_error_on_the_way_still_drains(make: Make, tmp_path: Path) -> None:
    session = make()

    async def during(running: LocalSession) -> None:
        assert await running.manager.service("fake-receiver-0-0").up()
        raise ManagerError("enough")

    with pytest.raises(ManagerError, match="enough"):
        await asyncio.wait_for(session.run(during), 60)
    assert session.manager.phase == "stopped"
    assert (tmp_path / "trace").read_text().count("end") == 3


async def test_a_failed_start_is_raised(make: Make) -> None:
    session = make({"receiver": "", "processor": "badconfig"})

    async def never(_: LocalSession) -> None:
        raise AssertionError("it must not come to this")

    with pytest.raises(ManagerError, match="refuses its configuration"):
        await asyncio.wait_for(session.run(never), 60)
    assert recorder(session).stopped


HOLDER = """
import asyncio, json, os, sys
from pathlib import Path
from feedmill.local.manager import ServiceManager
from feedmill.local.servers import LocalServers
from feedmill.plan import Workload

folder, fake = Path(sys.argv[1]), sys.argv[2]
loads = [Workload(role, f"{role}-0", (), ("default", "main")) for role in ("processor", "receiver")]
environ = dict(os.environ) | {"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none"}
environ.pop("REDIS_URL", None)

async def main():
    manager = ServiceManager(
        loads, config=[], data_dir=folder / "data", servers=LocalServers(folder / "data", environ), migrate=False,
        environ=environ, command_of=lambda load, port: [
            sys.executable, fake, load.role, "--port-file", str(port), "--trace", str(folder / "trace")])
    await manager.start()
    assert await manager.service("receiver-0").up() and await manager.service("processor-0").up()
    pids = [item.pid for item in manager.status().services] + [manager.servers.redis.pid]
    print(json.dumps(pids), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_manager_leaves_no_process_behind(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), str(FAKE)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    assert len(pids) == 3
    assert all(alive(pid) for pid in pids)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        time.sleep(0.01)
    # Asked to end in order, not cut; perhaps more than once, as each thread of the manager that ends asks.
    trace = (tmp_path / "trace").read_text()
    assert all(f"{role} term" in trace for role in ("processor", "receiver"))
