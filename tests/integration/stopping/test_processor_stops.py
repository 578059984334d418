"""SIGTERM to a processor, whatever it is doing: it ends in order; rows and position are both there or neither."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest

from .places import BlackHole, Place, Service, frozen, locked, until, waits_for_lock

pytestmark = pytest.mark.slow


async def assert_goes_on(place: Place, last: int) -> None:
    """What is stored is a whole beginning, its position says so, and another processor stores the rest once."""
    # Asked for at once: a server that hung does now what it was sent before.
    [(rows, applied)] = await place.fetch_rows(
        "SELECT ARRAY(SELECT trade_id FROM trades ORDER BY 1), ARRAY(SELECT n FROM applied)"
    )
    assert rows == list(range(1, len(rows) + 1))
    assert applied in ([[len(rows)]] if rows else [[], [0]])
    again = await place.start("processor")

    async def done() -> bool:
        return len(await place.stored()) == last

    await until(done)
    assert await again.end() == 0, again.text
    again.assert_clean()
    assert await place.stored() == list(range(1, last + 1))
    assert await place.fetch("SELECT n FROM applied") == [last]


async def working(place: Place, last: int = 20) -> Service:
    await place.events(1, last)
    service = await place.start("processor")

    async def done() -> bool:
        return len(await place.stored()) == last

    await until(done)
    return service


@pytest.mark.parametrize("server", ["redis", "postgres", "both"])
async def test_while_connecting_to_a_server_that_says_nothing(place: Place, hole: BlackHole, server: str) -> None:
    await place.events(1, 5)
    redis = place.redis_at(hole.address) if server != "postgres" else ""
    database = place.database_at(hole.address) if server != "redis" else ""
    service = await place.start("processor", redis_url=redis, database_url=database)
    await until(lambda: hole.came)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place, 5)


@pytest.mark.parametrize("server", ["redis", "postgres"])
@pytest.mark.parametrize("began", [False, True])
async def test_in_back_off_from_a_server_that_is_away(place: Place, server: str, began: bool) -> None:
    gone = place.redis if server == "redis" else place.postgres
    service = await working(place) if began else None
    if not began:
        await place.events(1, 20)
    await asyncio.to_thread(gone.stop)
    service = service or await place.start("processor")
    # While no shard is held nothing but the leases asks Redis, and these have no breaker.
    asks = began or server == "postgres"
    await service.shows(lambda seen: seen[server]["reachable"] is False)
    await service.shows(lambda seen: not asks or seen["breaker"][server]["state"] == "open")
    assert await service.end() == 0, service.text
    service.assert_clean()
    await asyncio.to_thread(gone.start)
    await assert_goes_on(place, 20)


@pytest.mark.parametrize("server", ["redis", "postgres", "both"])
@pytest.mark.parametrize("signals", [1, 3])
async def test_while_a_server_does_not_answer(place: Place, server: str, signals: int) -> None:
    service = await working(place)
    await place.events(21, 80)
    async with AsyncExitStack() as stack:
        if server != "postgres":
            stack.enter_context(frozen(place.redis))
        if server != "redis":
            stack.enter_context(frozen(place.postgres))
        service.signal()
        await service.said("stopping")
        for _ in range(signals - 1):
            service.again(signal.SIGINT)
            service.again()
        assert await service.ended() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place, 80)


async def test_while_a_transaction_waits_for_a_lock(place: Place) -> None:
    """A server that answers, but not with this: the transaction is given up as a whole."""
    service = await working(place)
    async with locked(place):
        await place.events(21, 40)
        await waits_for_lock(place)
        assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place, 40)


async def test_while_much_is_under_way(place: Place) -> None:
    await place.events(1, 3000)
    service = await place.start("processor")
    await service.said("lease.held")
    assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place, 3000)
