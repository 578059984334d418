"""One supervised process: restarts, stops, kills, cancellation in every state."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from feedmill.local.process import ProcessSpec, ServiceProcess, State

FAKE = Path(__file__).with_name("fake_service.py")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ServiceProcess]:
    def build(behave: str = "", **changes: object) -> ServiceProcess:
        port_file = tmp_path / "fake.port"
        command = [sys.executable, str(FAKE), "maintenance", "--port-file", str(port_file)]
        command += ["--trace", str(tmp_path / "trace"), "--behave", behave]
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        settings: dict[str, object] = {
            "name": "fake",
            "command": command,
            "environment": environment,
            "folder": tmp_path,
            "log_file": tmp_path / "fake.log",
            "port_file": port_file,
            "backoff_base": 0.01,
            "backoff_cap": 0.02,
            **changes,
        }
        return ServiceProcess(ProcessSpec(**settings))  # type: ignore[arg-type]

    return build


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_start_and_orderly_stop(make: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    service = make()
    assert service.state is State.WAITING
    service.start()
    assert await service.up()
    assert service.port is not None
    assert service.pid is not None
    assert service.uptime is not None
    pid = service.pid
    await service.stop()
    assert (service.state, service.port, service.pid, service.last_exit) == (State.STOPPED, None, None, "exit code 0")
    assert not service.forced
    assert gone(pid)
    lines = (tmp_path / "trace").read_text().splitlines()
    assert lines == [f"maintenance {what}" for what in ("start", "term", "end")]


async def test_a_crash_is_followed_by_a_new_start(make: Callable[..., ServiceProcess]) -> None:
    service = make("crash-once")
    service.start()
    assert await service.up()
    assert service.restarts == 1
    assert service.last_exit == "exit code 1"
    assert service.log.last_error == "RuntimeError: the first life ends here"
    assert not service.crash_loop
    service.signal(9)
    await until(lambda: service.restarts == 2 and service.state is State.RUNNING)
    assert service.last_exit == "killed by SIGKILL"
    await service.stop()


async def test_a_crash_loop_is_seen_and_can_be_stopped(make: Callable[..., ServiceProcess]) -> None:
    service = make("crash")
    service.start()
    assert not await service.up()
    assert service.crash_loop
    assert service.restarts >= 4
    assert service.log.last_error == "ERROR about to fail why=told to"
    await service.stop()
    assert service.state is State.STOPPED


async def test_waits_grow_and_are_jittered(make: Callable[..., ServiceProcess]) -> None:
    service = make("crash", backoff_base=3600.0, backoff_cap=7200.0)
    service.start()
    await until(lambda: service.state is State.BACKOFF)
    assert service.next_start is not None
    await asyncio.wait_for(service.stop(), 30)
    assert service.state is State.STOPPED


async def test_bad_configuration_is_not_tried_again(make: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    service = make("badconfig")
    service.start()
    assert not await service.up()
    assert service.state is State.FAILED
    assert service.restarts == 0
    assert service.log.last_line == "feed.yaml: spec.shards: 0: write 1 or more"
    await service.stop()
    assert (tmp_path / "trace").read_text().count("start") == 1


async def test_a_stubborn_child_is_killed_after_its_grace(make: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    service = make("stubborn")
    service.start()
    assert await service.up()
    pid = service.pid
    assert pid is not None
    await asyncio.wait_for(service.stop(grace=5.0), 60)  # Time enough to hear it.
    assert service.forced
    assert service.last_exit == "killed by SIGKILL"
    assert gone(pid)
    assert "maintenance term" in (tmp_path / "trace").read_text()


async def test_hurry_cuts_the_grace_short(make: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    service = make("stubborn", grace=3600.0)
    service.start()
    assert await service.up()
    stop = asyncio.create_task(service.stop())
    await until(lambda: "term" in (tmp_path / "trace").read_text())
    assert service.state is State.STOPPING
    service.hurry()
    await asyncio.wait_for(stop, 30)
    assert service.forced


async def test_a_program_that_does_not_exist(make: Callable[..., ServiceProcess]) -> None:
    service = make(command=["/nonexistent/program"])
    service.start()
    assert not await service.up()
    assert service.log.last_error is not None or service.log.last_line is not None
    assert "No such file" in str(service.log.last_line)
    await service.stop()


@pytest.mark.parametrize("behave", ["", "crash", "silent", "stubborn", "badconfig"])
async def test_cancelling_the_supervisor_leaves_no_process(make: Callable[..., ServiceProcess], behave: str) -> None:
    service = make(behave, backoff_base=3600.0, backoff_cap=3600.0)
    service.start()
    reached = {"": State.RUNNING, "stubborn": State.RUNNING, "silent": State.STARTING, "badconfig": State.FAILED}
    await until(lambda: service.state is reached.get(behave, State.BACKOFF))
    if behave == "silent":
        await until(lambda: service.pid is not None)
    pid = service.pid
    task = service._task
    assert task is not None
    task.cancel()
    await asyncio.wait({task}, timeout=30)
    assert task.done()
    assert service.state is State.STOPPED
    assert pid is None or gone(pid)


async def test_stopping_before_starting() -> None:
    spec = ProcessSpec("never", ["/bin/true"], {}, Path("/"), Path("/nonexistent/log"))
    service = ServiceProcess(spec)
    await service.stop()
    assert service.state is State.STOPPED
