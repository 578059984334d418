"""SIGTERM to a distributor, whatever it is doing: it ends in order, and the next one goes on without a hole."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .places import BlackHole, Place, Service, frozen, until

pytestmark = pytest.mark.slow


async def assert_goes_on(place: Place, last: int) -> None:
    """Another one makes the chain whole; each trade stands in it once."""
    again = await place.start("distributor")

    async def done() -> bool:
        return last in await place.dispatched()

    await until(done)
    assert await again.end() == 0, again.text
    again.assert_clean()
    assert await place.dispatched() == list(range(1, last + 1))


async def working(place: Place, last: int = 20) -> Service:
    await place.open_session()
    await place.raw_trades(1, last)
    service = await place.start("distributor")

    async def done() -> bool:
        return last in await place.dispatched()

    await until(done)
    return service


async def test_while_connecting_to_a_redis_that_says_nothing(place: Place, hole: BlackHole) -> None:
    service = await place.start("distributor", redis_url=place.redis_at(hole.address))
    await until(lambda: hole.came)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await place.open_session()
    await place.raw_trades(1, 5)
    await assert_goes_on(place, 5)


async def test_in_back_off_from_a_redis_that_never_was_there(place: Place) -> None:
    await asyncio.to_thread(place.redis.stop)
    service = await place.start("distributor")
    await service.said("lease.redis_away")
    assert await service.end() == 0, service.text
    service.assert_clean()


async def test_in_back_off_from_a_redis_that_went(place: Place) -> None:
    service = await working(place)
    await asyncio.to_thread(place.redis.stop)
    await service.said("session.ended", 2)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await asyncio.to_thread(place.redis.start)
    await place.raw_trades(21, 25)
    await assert_goes_on(place, 25)


@pytest.mark.parametrize("signals", [1, 3])
async def test_while_redis_does_not_answer(place: Place, signals: int) -> None:
    service = await working(place)
    await place.raw_trades(21, 60)
    with frozen(place.redis):
        service.signal()
        service.again(signal.SIGINT)
        for _ in range(signals - 1):
            service.again()
            service.again(signal.SIGINT)
        await service.said("stopping")
        for _ in range(signals):
            service.again()
        assert await service.ended() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place, 60)


async def test_while_another_one_works(place: Place) -> None:
    first = await working(place)
    standby = await place.start("distributor")
    await standby.shows(lambda seen: seen["dispatch"]["standby"] and seen["ready"])
    assert await standby.end() == 0, standby.text
    standby.assert_clean()
    await place.raw_trades(21, 25)
    assert await first.end() == 0, first.text
    first.assert_clean()
    await assert_goes_on(place, 25)


async def test_while_much_is_under_way(place: Place) -> None:
    await place.open_session()
    await place.raw_trades(1, 3000)
    service = await place.start("distributor")
    await service.said("lease.held")
    assert await service.end() == 0, service.text
    service.assert_clean()
    found = await place.dispatched()
    assert found == list(range(1, len(found) + 1))
    await assert_goes_on(place, 3000)
