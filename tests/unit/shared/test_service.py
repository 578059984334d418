"""How a service process lives and ends: signals, exit codes, the health server, the port file."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parents[3] / "services" / "src"
SCRIPT = """
import asyncio, sys
from pathlib import Path
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.service import ServiceContext, run_service

async def orderly(context):
    context.health.condition("data", lambda: (True, ""))
    context.log.info("working")
    await context.stop.wait()
    context.log.info("draining")
    await asyncio.sleep(0)
    context.log.info("drained")

async def stubborn(context):
    context.log.info("working")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            context.log.info("cancelled")
            raise

async def deaf(context):
    context.log.info("working")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            context.log.info("not listening")

async def threaded(context):
    import threading
    import time
    begun = threading.Event()
    asyncio.get_running_loop().run_in_executor(None, lambda: (begun.set(), time.sleep(600)))
    begun.wait()
    context.log.info("working")
    await context.stop.wait()

async def failing(context):
    raise RuntimeError("cannot go on: redis://:hunter2222@h")

async def failing_at_the_end(context):
    context.log.info("working")
    await context.stop.wait()
    raise RuntimeError("the drain failed")

async def finishing(context):
    context.log.info("done")

name, folder, host, port, grace = sys.argv[1:]
code = run_service(
    name, globals()[name], redis_url=RedisUrl.parse("redis://h"), database_url="postgresql://me@h/d",
    host=host, port=int(port), port_file=Path(folder) / "port", grace=float(grace),
)
sys.exit(code)
"""


class Service:
    """A service in a process of its own."""

    def __init__(self, folder: Path, name: str, *, host: str = "127.0.0.1", port: int = 0, grace: float = 20.0) -> None:
        self.port_file = folder / "port"
        self._log = (folder / "log").open("w+")
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), name, str(folder), host, str(port), str(grace)]
        environment = os.environ | {"PYTHONPATH": str(SOURCES)}
        self.process = subprocess.Popen(command, stderr=self._log, env=environment)

    def lines(self) -> list[dict[str, Any]]:
        self._log.seek(0)
        return [json.loads(line) for line in self._log.read().splitlines() if line.endswith("}")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    def until(self, event: str) -> None:
        deadline = time.monotonic() + 120
        while True:
            ended = self.process.poll() is not None  # Before its lines are read: it may say it and end meanwhile.
            if event in self.events():
                return
            assert not ended, self.lines()
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.01)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(120)

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port_file.read_text().strip()}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Service] = []

    def begin(name: str, **options: Any) -> Service:
        started.append(Service(tmp_path, name, **options))
        return started[-1]

    yield begin
    for service in started:
        service.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_order(start: Any, number: int) -> None:
    service = start("orderly")
    service.until("working")
    assert service.ask("/healthz") == (200, "ok\n")
    assert service.ask("/readyz") == (200, "ready\n")
    document = json.loads(service.ask("/health")[1])
    assert document["process"]["pid"] == service.process.pid
    assert service.ask("/metrics")[0] == 200
    assert service.end(number) == 0
    # "stopping" is only said to those who do not drain at once.
    assert [event for event in service.events() if event != "stopping"] == ["working", "draining", "drained", "stopped"]
    assert {line["service"] for line in service.lines()} == {"orderly"}


def test_every_service_measures_how_late_its_loop_is(start: Any) -> None:
    service = start("orderly")
    service.until("working")
    deadline = time.monotonic() + 120
    while "feedmill_process_loop_lag_seconds_count 0.0" in (text := service.ask("/metrics")[1]):
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
    assert "feedmill_process_loop_lag_seconds_count" in text
    assert "feedmill_process_loop_lag_max_seconds" in text
    assert service.end() == 0


def test_a_main_that_returns_by_itself_ends_the_process(start: Any) -> None:
    service = start("finishing")
    assert service.process.wait(120) == 0
    assert service.events() == ["done", "stopped"]


def test_a_failure_is_told_with_its_cause_and_without_secrets(start: Any) -> None:
    service = start("failing")
    assert service.process.wait(120) == 1
    [line] = service.lines()
    assert (line["event"], line["level"]) == ("service.failed", "error")
    assert "RuntimeError: cannot go on" in line["exception"]
    assert "hunter2222" not in json.dumps(line)


def test_a_failure_while_draining_is_one_too(start: Any) -> None:
    service = start("failing_at_the_end")
    service.until("working")
    assert service.end() == 1
    assert service.events()[-1] == "service.failed"


def test_after_its_grace_time_it_is_cancelled_which_is_not_in_order(start: Any) -> None:
    service = start("stubborn", grace=0.05)
    service.until("working")
    assert service.end() == 1
    assert service.events() == ["working", "stopping", "stop.overdue", "cancelled"]


def test_one_that_does_not_even_hear_the_cancellation_ends(start: Any) -> None:
    service = start("deaf", grace=0.05)
    service.until("working")
    assert service.end() == 1
    assert service.events() == ["working", "stopping", "stop.overdue", "not listening", "stop.stuck"]


def test_a_thread_that_does_not_end_is_not_waited_for(start: Any) -> None:
    """Such as one that asks a name server which does not answer."""
    service = start("threaded")
    service.until("working")
    assert service.end() == 0
    assert service.events()[-1] == "stopped"


def test_a_second_signal_does_not_cut_the_drain_short(start: Any) -> None:
    service = start("stubborn", grace=0.5)
    service.until("working")
    service.process.send_signal(signal.SIGTERM)
    service.until("stopping")
    assert service.end() == 1
    assert service.events() == ["working", "stopping", "stop.overdue", "cancelled"]


def test_a_port_that_is_taken_is_a_matter_of_configuration(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = start("orderly", port=taken.getsockname()[1])
        assert service.process.wait(120) == 2
    [line] = service.lines()
    assert line["event"] == "health.failed"
    assert "choose another --health-host or --health-port" in line["remedy"]
    assert not service.port_file.exists()


def test_the_port_file_is_written_whole(start: Any, tmp_path: Path) -> None:
    service = start("orderly")
    service.until("working")
    assert service.port_file.read_text().strip().isdigit()
    assert not (tmp_path / "port.tmp").exists()
