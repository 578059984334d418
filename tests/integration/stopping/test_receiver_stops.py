"""SIGTERM to a receiver, whatever it is doing: it ends in order, and nothing it captured is lost or half written."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from feedmill.shared import control
from feedmill.shared.frames import RunKind
from feedmill.simulator import Simulator

from .places import SHARD, BlackHole, Place, Service, frozen, until

pytestmark = pytest.mark.slow


def flows(frames: int = 50) -> Callable[[dict[str, Any]], bool]:
    return lambda seen: all(each.get("frames", 0) >= frames for each in seen["connections"].values())


def is_behind(seen: dict[str, Any]) -> bool:
    """Much was captured that the server has not taken."""
    return bool(seen["session"]["heldBytes"] > 20_000)


async def assert_all_there(place: Place) -> None:
    """The session of the first process is in the stream from its first record to its last, whoever brought it."""
    sessions: dict[str, Any] = {}

    async def ended() -> bool:
        nonlocal sessions
        sessions = await place.raw()
        return bool(sessions) and all(_last_record(batches) for batches in sessions.values())

    await until(ended)
    for batches in sessions.values():
        assert [batch.n for batch in batches] == list(range(1, len(batches) + 1))
    place_last = {name.decode(): int(n) for name, n in (await place.client.hgetall(SHARD.sessions)).items()}
    assert place_last == {name: len(batches) for name, batches in sessions.items()}


def _last_record(batches: list[Any]) -> bool:
    run = batches[-1].runs[-1]
    return run.kind == RunKind.CONTROL and isinstance(control.decode_control(run.frames[-1]), control.SessionEnd)


async def bring(place: Place) -> None:
    """Another receiver in the same folder, for long enough to send what was left there."""
    again = await place.start("receiver")

    async def brought() -> bool:
        return any(_last_record(batches) for batches in (await place.raw()).values())

    await until(brought)
    assert await again.end() == 0, again.text
    again.assert_clean()


async def test_while_connecting_to_a_venue_that_says_nothing(place: Place, hole: BlackHole) -> None:
    place.stream, place.rest = f"ws://{hole.address}", f"http://{hole.address}"
    service = await place.start("receiver")
    # The socket and the metadata by REST.
    await until(lambda: hole.came >= 2)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_all_there(place)


async def test_in_back_off_from_a_venue_that_refuses(place: Place) -> None:
    service = await place.start("receiver")
    await service.said("connect.failed", 2)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_all_there(place)


async def test_while_data_flows(place: Place, exchange: Simulator) -> None:
    service = await place.start("receiver")
    await service.shows(flows())
    assert await service.end() == 0, service.text
    service.assert_clean()
    assert "drained" in service.events()
    await assert_all_there(place)


@pytest.mark.parametrize("away", ["says nothing", "from the start", "gone", "frozen"])
async def test_without_redis_it_goes_to_the_disk(place: Place, exchange: Simulator, hole: BlackHole, away: str) -> None:
    if away == "frozen":
        service = await place.start("receiver")
        await service.shows(flows())
        with frozen(place.redis):
            await service.shows(is_behind)
            assert await service.end() == 0, service.text
    else:
        url = place.redis_at(hole.address) if away == "says nothing" else ""
        if away == "from the start":
            await asyncio.to_thread(place.redis.stop)
        service = await place.start("receiver", redis_url=url)
        await service.shows(flows())
        if away == "gone":
            await asyncio.to_thread(place.redis.stop)
            await service.said("redis.away")
        assert await service.end() == 0, service.text
        await asyncio.to_thread(place.redis.start)
    service.assert_clean()
    await bring(place)
    await assert_all_there(place)


async def test_without_redis_and_without_a_folder_it_says_what_is_lost(place: Place, exchange: Simulator) -> None:
    place.spill = None
    service = await place.start("receiver")
    await service.shows(flows())
    with frozen(place.redis):
        assert await service.end() == 1
    assert "drain.overdue" in service.events()
    assert not {"stop.overdue", "stop.stuck"} & set(service.events())
    (failed,) = [line for line in service.lines() if line["event"] == "service.failed"]
    assert "batches were not appended within 15 s: Redis is" in str(failed)


async def test_asked_again_while_draining(place: Place, exchange: Simulator) -> None:
    """More signals change nothing; the drain ends when the server is back."""
    service = await place.start("receiver")
    await service.shows(flows())
    with frozen(place.redis):
        await service.shows(is_behind)
        service.signal()
        await service.said("stopping")
        service.again()
        service.again(signal.SIGINT)
    assert await service.ended() == 0, service.text
    service.assert_clean()
    assert "drained" in service.events()
    await assert_all_there(place)


async def test_before_it_has_begun(place: Place, exchange: Simulator) -> None:
    """At the first moment at which it hears signals."""
    service: Service = await place.start("receiver")
    await service.document()
    assert await service.end() == 0, service.text
    service.assert_clean()


async def test_while_it_replaces_its_connection(place: Place, exchange: Simulator) -> None:
    """The venue has announced an end: the old connection goes on beside the new one for a moment."""
    service = await place.start("receiver")
    await service.shows(flows())
    assert exchange.fault("cut", seconds=60) == 1
    await service.said("connection.open", 2)
    assert await service.end() == 0, service.text
    service.assert_clean()
    assert "drained" in service.events()
    await assert_all_there(place)
