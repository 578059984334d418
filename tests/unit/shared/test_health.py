"""Health: conditions and sections over HTTP."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import structlog
from prometheus_client import REGISTRY

from feedmill.shared import metrics
from feedmill.shared.health import Health, HealthServer


def test_ready_when_every_condition_holds() -> None:
    health = Health("receiver")
    assert health.ready() == (True, {})
    holds = {"redis": False, "connections": True}
    for name in holds:
        health.condition(name, lambda name=name: (holds[name], f"{name} is away"))  # type: ignore[misc]
    assert health.ready() == (False, {"redis": "redis is away"})
    holds["redis"] = True
    assert health.ready() == (True, {})


def test_the_document_reads_its_sections_anew_each_time() -> None:
    health = Health("receiver")
    lag = {"entries": 1}
    health.detail("lag", lambda: lag)
    assert health.document() == {"service": "receiver", "ready": True, "waitingFor": {}, "lag": {"entries": 1}}
    lag["entries"] = 2
    health.condition("data", lambda: (False, "none yet"))
    assert health.document() == {
        "service": "receiver", "ready": False, "waitingFor": {"data": "none yet"}, "lag": {"entries": 2},
    }  # fmt: skip


def test_a_section_that_fails_is_told_and_costs_the_others_nothing() -> None:
    health = Health("receiver")
    health.detail("spill", lambda: {"oldest": [][0]})
    health.detail("lag", lambda: {"entries": 1})
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            document = health.document()
            assert document["spill"] == {"error": "IndexError: list index out of range"}
            assert document["lag"] == {"entries": 1}
    assert [(line["event"], line["section"]) for line in lines] == [("health.section_failed", "spill")]


async def test_a_gauge_that_fails_is_told_once_and_costs_the_others_nothing(served: tuple[Health, str]) -> None:
    _, url = served
    plain = metrics.Gauge("feedmill_test_plain", "Holds.")
    labelled = metrics.Gauge("feedmill_test_labelled", "By shard.", ["shard"])
    labelled.labels("good").set_function(lambda: 7)
    labelled.labels("bad").set_function(lambda: [][0])
    plain.set_function(lambda: 5)
    try:
        with structlog.testing.capture_logs() as lines:
            async with aiohttp.ClientSession(url) as client:
                for count in (1.0, 2.0):
                    async with client.get("/metrics") as answer:
                        assert answer.status == 200
                        told = (await answer.text()).splitlines()
                    assert 'feedmill_test_labelled{shard="bad"} NaN' in told
                    assert 'feedmill_test_labelled{shard="good"} 7.0' in told
                    assert "feedmill_test_plain 5.0" in told
                    seen = REGISTRY.get_sample_value(
                        "feedmill_process_unreadable_gauges_total", {"gauge": "feedmill_test_labelled"}
                    )
                    assert seen == count
        assert [(line["event"], line["gauge"]) for line in lines] == [
            ("metrics.gauge_failed", "feedmill_test_labelled")
        ]
    finally:
        REGISTRY.unregister(plain)
        REGISTRY.unregister(labelled)


def test_every_gauge_is_one_that_may_fail() -> None:
    for tree in ("services/src", "operator/src"):
        for source in (Path(__file__).parents[3] / tree).rglob("*.py"):
            taken = re.findall(r"^from prometheus_client import .*$", source.read_text(encoding="utf-8"), re.MULTILINE)
            assert not [line for line in taken if re.search(r"\bGauge\b", line)], f"{source}: feedmill.shared.metrics"


@pytest.fixture
async def served() -> AsyncIterator[tuple[Health, str]]:
    health = Health("distributor")
    server = HealthServer(health, "127.0.0.1", 0)
    await server.start()
    yield health, f"http://127.0.0.1:{server.port}"
    await server.stop()
    await server.stop()  # twice does nothing


async def test_over_http(served: tuple[Health, str]) -> None:
    health, url = served
    ready = False
    health.condition("data", lambda: (ready, "none yet"))
    health.detail("lag", lambda: {"entries": 3, "oldest": None})
    async with aiohttp.ClientSession(url) as client:
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n"), "alive is not the same as ready"
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "data: none yet\n")
        async with client.get("/health") as answer:
            assert answer.content_type == "application/json"
            assert (await answer.json())["lag"] == {"entries": 3, "oldest": None}
        ready = True
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "ready\n")
        async with client.get("/metrics") as answer:
            assert "feedmill_process_loop_lag_seconds_bucket" in await answer.text()
        async with client.get("/else") as answer:
            assert answer.status == 404


def measured() -> float:
    return REGISTRY.get_sample_value("feedmill_process_loop_lag_seconds_count") or 0.0


async def test_the_lag_of_the_loop_is_measured() -> None:
    before = measured()
    task = asyncio.create_task(metrics.watch_loop_lag(interval=0.0))
    while measured() < before + 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (REGISTRY.get_sample_value("feedmill_process_loop_lag_max_seconds") or 0.0) >= 0


def lag(what: str) -> float:
    return REGISTRY.get_sample_value(f"feedmill_process_loop_lag_{what}") or 0.0


async def test_a_call_that_blocks_the_loop_shows() -> None:
    before = lag("seconds_sum")
    task = asyncio.create_task(metrics.watch_loop_lag(interval=0.01))
    await asyncio.sleep(0)  # It has begun to wait.
    time.sleep(0.3)
    seen = measured()
    while measured() == seen:
        await asyncio.sleep(0)
    task.cancel()
    assert lag("seconds_sum") - before >= 0.25
    assert lag("max_seconds") >= 0.25
