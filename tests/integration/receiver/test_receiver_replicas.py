"""Replicas of Redis that must confirm (``spec.redis.confirm.replicas``): real ones, missing, coming, going."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from feedmill.local.embedded import EmbeddedRedis

from .traffic import traffic

MEMORY = 4 * 1024 * 1024


@pytest.fixture
async def replica_of(redis_server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts a replica of the server."""
    made: list[EmbeddedRedis] = []

    async def start(*, appendonly: bool = True) -> EmbeddedRedis:
        server = EmbeddedRedis(
            tmp_path / f"replica-{len(made)}",
            appendonly=appendonly,
            config={
                "replicaof": f"127.0.0.1 {redis_server.port}",
                "masterauth": redis_server.url.split("@")[0].rsplit(":", 1)[1],
            },
        )
        made.append(server)
        async with redis_asyncio.Redis.from_url(redis_server.url) as primary:
            await primary.config_set("repl-diskless-sync-delay", 0)  # It would wait 5 s for further replicas.
        await asyncio.to_thread(server.start)
        return server

    yield start
    for server in made:
        await asyncio.to_thread(server.stop)


def section(running: Any) -> dict[str, Any]:
    found: dict[str, Any] = running.receiver.health.document()["redis"]
    return found


async def test_without_a_replica_batches_are_held_and_health_says_so(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path, replica_of: Any
) -> None:
    # More room than comes in until a slow replica has caught up: nothing is to be shed.
    running = launch(confirm_replicas=1, memory=MEMORY, spill_dir=tmp_path / "spill", spill_size=1 << 30)
    await running.ready()
    producer, spool = running.receiver.producer, running.receiver.spool
    async with traffic(venue, running.receiver):
        # Redis has them on its own disk, and all the same they are kept: memory stays bounded by the spill.
        await kit.until(lambda: spool.folder.used > MEMORY // 2)
        await kit.until(lambda: section(running)["confirmProblem"].startswith("0 of 1 replicas confirm"))
    assert producer.backlog.confirmed == 0
    assert producer.backlog.acked > 0
    assert running.receiver.budget.peak < MEMORY
    problem = section(running)["confirmProblem"]
    assert problem == (
        "0 of 1 replicas confirm: batches are held in memory and in the spill; connect a replica with appendonly yes, "
        "or lower spec.redis.confirm.replicas"
    )
    assert section(running)["confirmReplicas"] == {"wanted": 1, "seen": 0}
    assert running.receiver.health.ready()[0]

    await replica_of()
    async with traffic(venue, running.receiver):
        await kit.until(lambda: producer.backlog.confirmed > 0 and not section(running)["confirmProblem"], 60)
    await running.received(len(venue.sent) + len(venue.requests))
    last = producer.backlog.last
    await kit.until(lambda: producer.backlog.confirmed >= last and not spool.folder.used, 60)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent


async def test_a_replica_without_a_file_confirms_nothing(venue: Any, launch: Any, kit: Any, replica_of: Any) -> None:
    await replica_of(appendonly=False)
    running = launch(confirm_replicas=1)
    await running.ready()
    await venue.publish(10)
    await kit.until(lambda: section(running)["confirmProblem"].startswith("0 of 1 replicas confirm"))
    assert running.receiver.producer.backlog.confirmed == 0
    await running.stop()


async def test_fewer_are_asked_for_while_it_runs(venue: Any, launch: Any, kit: Any) -> None:
    running = launch(confirm_replicas=1)
    await running.ready()
    backlog = running.receiver.producer.backlog
    await venue.publish(10)
    await kit.until(lambda: section(running)["confirmProblem"])
    assert backlog.confirmed == 0
    running.receiver.reconfigure(replace(running.receiver.settings, confirm_replicas=0))
    await kit.until(lambda: backlog.confirmed > 0)
    assert not section(running)["confirmProblem"]
    await running.stop()


@pytest.mark.parametrize("spill", [False, True])
async def test_when_little_more_can_be_held_the_servers_own_disk_is_enough(
    venue: Any, launch: Any, redis_server: Any, kit: Any, tmp_path: Path, spill: bool
) -> None:
    """Rather than shed what comes in, or close the connections."""
    where = {"spill_dir": tmp_path / "spill", "spill_size": MEMORY} if spill else {}
    running = launch(confirm_replicas=1, memory=MEMORY, pause_limit=120.0, **where)
    await running.ready()
    producer = running.receiver.producer
    for _ in range(3 * MEMORY // 100_000):
        await venue.publish(100, size=1000)
        await running.received(len(venue.sent) + len(venue.requests))
        await kit.until(lambda: producer.budget.used < MEMORY // 2)
    await kit.until(lambda: section(running)["confirmProblem"].startswith("0 of 1 replicas confirm: "))
    assert producer.backlog.confirmed > 0
    await running.received(len(venue.sent) + len(venue.requests))
    await running.stop()
    assert producer.shed.frames == 0
    assert running.receiver.flow.closed_for_room == 0
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
