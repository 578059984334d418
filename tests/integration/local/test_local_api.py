"""The manager's API over HTTP, with stand-in services."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from feedmill.local.api import ApiServer
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager
from feedmill.local.servers import LocalServers
from feedmill.plan import Workload

FAKE = Path(__file__).with_name("fake_service.py")
WORKLOADS = [
    Workload("processor", "main-processor-0", (), ("default", "main"), replica="r0"),
    Workload("distributor", "fake-distributor-0-0", (), ("default", "main"), ("default", "fake"), 0, "r0"),
]


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ServiceManager]:
    environ = dict(os.environ) | {"DATABASE_URL": "postgresql://u:n0thing-here@127.0.0.1:1/none"}
    environ.pop("REDIS_URL", None)
    built = ServiceManager(
        WORKLOADS,
        config=[],
        data_dir=tmp_path / "data",
        servers=LocalServers(tmp_path / "data", environ),
        migrate=False,
        environ=environ,
        command_of=lambda load, port_file: [
            sys.executable, str(FAKE), load.role, "--port-file", str(port_file), "--trace", str(tmp_path / "trace"),
        ],
    )  # fmt: skip
    await built.start()
    yield built
    built.force()
    await built.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


async def get_json(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(url) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_every_path(manager: ServiceManager, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    api = ApiServer(manager)
    before = signal.getsignal(signal.SIGINT)
    await api.start()
    assert signal.getsignal(signal.SIGINT) is before
    try:
        assert (tmp_path / "data" / "run" / "api.port").read_text() == f"{api.port}\n"
        async with http.get(f"{api.url}/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        said: tuple[int, str] = 0, ""
        async with asyncio.timeout(60):  # A service that is late with one answer is not ready until the next look.
            while said != (200, "ready\n"):
                async with http.get(f"{api.url}/readyz") as answer:
                    said = answer.status, await answer.text()
        scraped = await get_json(http, f"{api.url}/targets")
        assert [each["labels"] for each in scraped] == [
            {
                "namespace": "default",
                "pod": "main-processor-0",
                "instance": "main-processor-0",
                "app_kubernetes_io_component": "processor",
                "feedmill_dev_pipeline": "main",
            },
            {
                "namespace": "default",
                "pod": "fake-distributor-0-0",
                "instance": "fake-distributor-0-0",
                "app_kubernetes_io_component": "distributor",
                "feedmill_dev_pipeline": "main",
                "feedmill_dev_feed": "fake",
                "feedmill_dev_shard": "0",
            },
        ]
        for (address,) in (each["targets"] for each in scraped):
            async with http.get(f"http://{address}/metrics") as answer:
                assert answer.status == 200
        status = await get_json(http, f"{api.url}/status")
        assert status["phase"] == "running"
        assert {item["name"]: item["state"] for item in status["services"]} == {
            "main-processor-0": "running",
            "fake-distributor-0-0": "running",
        }
        health = await get_json(http, f"{api.url}/health")
        async with asyncio.timeout(60):  # Each is asked anew, and is null where it is late with its answer.
            while not (
                health["services"]["main-processor-0"]["ready"]
                and health["redis"]["asked"]["reachable"]
                and health["shards"]
            ):
                health = await get_json(http, f"{api.url}/health")
        assert health["services"]["main-processor-0"]["ready"] is True
        assert health["redis"]["asked"]["reachable"] is True
        assert health["redis"]["asked"]["usedBytes"] > 0
        assert health["redis"]["asked"]["breaker"]["state"] == "closed"
        assert health["postgres"]["asked"]["reachable"] is False
        assert "n0thing" not in str(health) + str(status)
        assert health["shards"]["default.fake.0"] == dict.fromkeys(("captured", "dispatched", "emitted", "stored"))
        assert health["freshness"] == {}
        families: dict[str, Any] = {}

        def processes() -> set[str]:
            shown = families.get("fake_metric")
            return {sample.labels["process"] for sample in shown.samples} if shown else set()

        async with asyncio.timeout(60):
            while processes() != set(manager.ports()):
                async with http.get(f"{api.url}/metrics") as answer:
                    families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
        assert all(sample.value == 1 for sample in families["feedmill_local_service_up"].samples)
        async with http.get(f"{api.url}/status", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 400
    finally:
        await api.stop()
    assert not (tmp_path / "data" / "run" / "api.port").exists()


async def test_what_does_not_answer_is_null(
    manager: ServiceManager, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = ApiServer(manager)
    await api.start()
    processor = manager.service("main-processor-0")
    asked = threading.Event()
    try:
        processor.signal(signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        began = loop.time()
        health = await get_json(http, f"{api.url}/health")
        assert loop.time() - began < 8  # A look takes 2 seconds at most.
        assert health["services"]["main-processor-0"]["ready"] is None
        async with asyncio.timeout(60):
            while health["services"]["fake-distributor-0-0"]["ready"] is not True:
                health = await get_json(http, f"{api.url}/health")
        assert health["connections"] == {"main-processor-0": None}
        redis = manager.servers.redis
        assert redis is not None
        # Who watches it may start it again while it is asked: not until then.
        start = redis.start
        monkeypatch.setattr(redis, "start", lambda: (asked.wait(60), start()))
        redis.kill()
        health = await get_json(http, f"{api.url}/health")
        assert health["redis"]["asked"]["reachable"] is False
        assert health["shards"] is None
        asked.set()
        async with asyncio.timeout(60):  # A start that is on its way at the end would outlive the test.
            while not manager.servers.status()[0].restarts:
                await asyncio.sleep(0.01)
    finally:
        asked.set()
        processor.signal(signal.SIGCONT)
        await api.stop()


async def test_a_silent_redis_opens_the_breaker_and_then_costs_nothing(
    manager: ServiceManager, http: aiohttp.ClientSession
) -> None:
    api = ApiServer(manager)
    await api.start()
    assert manager.servers.redis is not None
    pid = manager.servers.redis.pid
    assert pid is not None

    async def asked() -> Any:
        return (await get_json(http, f"{api.url}/health"))["redis"]["asked"]

    try:
        os.kill(pid, signal.SIGSTOP)
        found = await asked()
        assert found["reachable"] is False
        while found["breaker"]["state"] == "closed":
            found = await asked()
        assert found["breaker"]["failures"] == 3
        async with asyncio.timeout(60):  # A look that comes late is let through once more, and waits.
            while not (found := await asked())["problem"].startswith("redis: open after "):
                assert found["reachable"] is False
        assert "failures (TimeoutError" in found["problem"]
        os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while not (found := await asked())["reachable"]:
                await asyncio.sleep(0.1)
        assert found["breaker"] == {"state": "closed", "failures": 0, "retryInSeconds": 0.0, "lastError": ""}
    finally:
        os.kill(pid, signal.SIGCONT)
        await api.stop()


async def test_a_taken_port(manager: ServiceManager) -> None:
    first = ApiServer(manager)
    await first.start()
    with pytest.raises(ManagerError, match=rf"--api-port {first.port}: Address already in use: choose another"):
        await ApiServer(manager, port=first.port).start()
    await first.stop()


async def test_two_that_take_one_port_at_a_time(manager: ServiceManager) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    both = [ApiServer(manager, port=port) for _ in range(2)]
    try:
        one, other = await asyncio.gather(*(each.start() for each in both), return_exceptions=True)
        assert one is None
        assert isinstance(other, ManagerError), "a plain word, after which feedmill up takes another port"
    finally:
        await both[0].stop()
