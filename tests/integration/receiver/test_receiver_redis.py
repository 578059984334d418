"""Redis goes away, hangs, forgets or fills up: nothing is lost that was received, nothing is doubled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from feedmill.receiver.service import Undrained
from feedmill.shared import control

from .traffic import repeated

HOLD = 2.0
"""As services are run: a write to the append-only file may wait that long for an fsync under way, and is gone with a
server that is killed meanwhile, whatever WAITAOF said."""


@asynccontextmanager
async def traffic(venue: Any) -> AsyncIterator[None]:
    """About 2,000 frames a second until the block ends."""
    async with repeated(lambda: venue.publish(10)):
        yield


async def all_received(running: Any, venue: Any) -> None:
    await running.received(len(venue.sent) + len(venue.requests))


async def test_redis_killed_and_restarted(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch(confirm_hold=HOLD)
    await running.ready()
    async with traffic(venue):
        for _ in range(2):
            await kit.until(lambda: running.receiver.appender.up)
            await asyncio.sleep(0.3)
            redis_server.kill()
            await kit.until(lambda: running.receiver.appender.state == "away")
            await asyncio.sleep(0.3)
            assert running.receiver.health.ready()[0]
            redis_server.start()
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert len(raw.batches) == 1


async def test_append_only_file_cut_in_a_crash(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch(confirm_hold=HOLD)
    await running.ready()
    appender, confirmer = running.receiver.appender, running.receiver.confirmer
    backlog = running.receiver.producer.backlog
    async with traffic(venue):
        while True:
            await kit.until(lambda: backlog.confirmed >= 5 and backlog.acked > backlog.confirmed)
            redis_server.kill()
            # Answers that were on their way when it died still count, and may confirm everything: then once more.
            await kit.until(lambda: confirmer.problem or backlog.acked == backlog.confirmed)
            await kit.until(lambda: appender.state == "away")
            confirmed, acked = backlog.confirmed, backlog.acked
            (part,) = redis_server.aof_dir.glob("*.incr.aof")
            data = part.read_bytes()
            marker = f"\r\n{confirmed + 1}\r\n".encode()
            at = data.rfind(marker)
            # Nor may it be missing from the file, since it waited for an fsync that was under way.
            if acked > confirmed and at > 0:
                break
            redis_server.start()
            await kit.until(lambda: appender.up)
        # Cut the file so that some acknowledged batches are gone, but no confirmed one.
        part.write_bytes(data[: at + len(marker) + 3])
        redis_server.start()
        await kit.until(lambda: backlog.acked > acked)
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert len(raw.batches) == 1


async def test_what_the_server_calls_on_disk_too_early_is_still_held(
    venue: Any, launch: Any, redis_server: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAITAOF may answer before the fsync: half of the file is gone after a crash, and nothing is lost."""
    monkeypatch.setattr("feedmill.receiver.service.CONFIRM_WAIT", 60.0)  # A disk may be busy with others' work.
    running = launch(confirm_hold=60.0)
    await running.ready()
    backlog = running.receiver.producer.backlog
    async with traffic(venue):
        await kit.until(lambda: running.receiver.confirmer.aof and backlog.acked >= 20)
        assert backlog.confirmed == 0
        redis_server.kill()
        await kit.until(lambda: running.receiver.appender.state == "away")
        (part,) = redis_server.aof_dir.glob("*.incr.aof")
        data = part.read_bytes()
        part.write_bytes(data[: len(data) // 2])
        acked = backlog.acked
        redis_server.start()
        await kit.until(lambda: backlog.acked > acked)
    await all_received(running, venue)
    await running.stop()
    assert backlog.confirmed == backlog.last
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert len(raw.batches) == 1


async def test_server_forgot_confirmed_batches(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    backlog = running.receiver.producer.backlog
    await venue.publish(100)
    await all_received(running, venue)
    await kit.until(lambda: backlog.confirmed == backlog.last > 3 and running.receiver.producer.idle)
    old = running.receiver.producer.id
    client = redis_asyncio.Redis.from_url(redis_server.url)
    await client.flushall()
    await client.aclose()
    before = len(venue.sent)
    await venue.publish(50)
    await kit.until(lambda: running.receiver.producer.id != old)
    await venue.publish(50)
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert list(raw.batches) == [running.receiver.producer.id]
    assert raw.data() == venue.sent[before:]
    controls = [value for value in raw.controls() if not isinstance(value, control.Alive)]
    assert isinstance(controls[0], control.Session)
    assert controls[0].lost_session == old
    assert isinstance(controls[1], control.Connected)
    assert isinstance(controls[2], control.Subscribed)
    assert len(controls[2].topics) == 4
    assert [type(value) for value in controls[3:]] == [control.Disconnected, control.SessionEnd]


async def test_stopped_redis_is_a_failure_and_memory_stays_bounded(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch(memory=300_000, append_deadline=0.3, pause_limit=60.0, breaker_failures=2)
    await running.ready()
    await kit.until(lambda: running.receiver.appender.up)
    async with traffic(venue):
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            await kit.until(lambda: running.receiver.budget.full)
            await kit.until(lambda: running.receiver.breaker.state == "open")
            link = running.receiver.supervisor.links[0]
            assert link.connection.held
            held_at = link.connection.received
            await asyncio.sleep(0.5)
            assert link.connection.received == held_at
            assert running.receiver.budget.peak < 600_000
            document = running.receiver.health.document()
            assert document["breaker"]["state"] in ("open", "half-open")
            assert document["redis"]["state"] in ("away", "connecting")
        finally:
            # Within the traffic: what is sent may wait for a receiver that reads again.
            os.kill(redis_server.pid, signal.SIGCONT)
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    assert venue.connects == 1


async def test_pause_limit_closes_connections_until_redis_is_back(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch(memory=200_000, pause_limit=0.3, append_deadline=0.3)
    await running.ready()
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: running.receiver.flow.closed_for_room)
        await kit.until(lambda: not venue.clients)
        connects = venue.connects
        await asyncio.sleep(0.5)
        assert venue.connects == connects
        assert not running.receiver.health.ready()[0]
        await kit.until(lambda: running.receiver.supervisor.keepers[0].state == "waiting")
        redis_server.start()
        await kit.until(lambda: venue.connects > connects)
        await running.ready()
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.controls(control.Disconnected)[0].cause == "backpressure"
    # What stands there is a gapless part of each connection, in order.
    positions = [venue.sent.index(payload) for payload in raw.data()]
    assert positions == sorted(set(positions))


async def test_a_long_rest_of_the_breaker_ends_when_redis_is_back(
    venue: Any, launch: Any, redis_server: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedmill.receiver.service.FIRST_RESET", 600.0)
    # One append that a busy machine makes late must not open it again.
    running = launch(breaker_failures=1, breaker_reset=600.0, append_deadline=60.0)
    await running.ready()
    redis_server.kill()
    await kit.until(lambda: running.receiver.breaker.state == "open" and running.receiver.confirmer.problem)
    assert running.receiver.breaker.retry_in > 500
    redis_server.start()
    await kit.until(lambda: running.receiver.appender.up)
    await venue.publish(10)
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent


async def test_full_server_counts_as_away_and_is_tried_again(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch(breaker_failures=3)
    await running.ready()
    client = redis_asyncio.Redis.from_url(redis_server.url)
    await client.config_set("maxmemory", "1mb")
    await venue.publish(50)
    await kit.until(lambda: running.receiver.breaker.state == "open")
    assert "OOM" in running.receiver.breaker.last_error
    assert "OOM" in running.receiver.health.document()["redis"]["problem"]
    await client.config_set("maxmemory", "0")
    await client.aclose()
    await kit.until(lambda: running.receiver.breaker.state == "closed")
    await all_received(running, venue)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent


async def test_without_append_only_file_acknowledged_is_confirmed(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    client = redis_asyncio.Redis.from_url(redis_server.url)
    await client.config_set("appendonly", "no")
    await client.aclose()
    running = launch()
    await running.ready()
    await venue.publish(100)
    backlog = running.receiver.producer.backlog
    await kit.until(lambda: backlog.confirmed == backlog.last > 1)
    assert "append-only file is off" in running.receiver.health.document()["redis"]["confirms"]
    await running.stop()


async def test_cancellation_while_redis_is_away_and_reading_paused(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch(memory=100_000)
    await running.ready()
    redis_server.kill()
    async with traffic(venue):
        await kit.until(lambda: running.receiver.budget.full)
        await running.cancel()


async def test_stop_without_redis_says_what_is_lost(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch(drain_timeout=0.5)
    await running.ready()
    await kit.until(lambda: running.receiver.appender.up)
    redis_server.kill()
    await kit.until(lambda: running.receiver.appender.state == "away")
    await venue.publish(10)  # Without a connection so few make no batch: all the same they are missing.
    await all_received(running, venue)
    running.stop_event.set()
    with pytest.raises(Undrained, match=r"batches were not appended within 0\.5 s"):
        await running.task
