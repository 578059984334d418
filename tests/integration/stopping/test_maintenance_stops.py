"""SIGTERM to the maintenance service, whatever it is doing: it ends in order, and the next run does the rest."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .places import BlackHole, Place, Service, frozen, locked, until, waits_for_lock

pytestmark = pytest.mark.slow
AGED = "dead_letters"
"""Its old rows are removed by a statement that waits for its lock. Where one of the tables that have a part for each
day is locked a run gives up after five seconds, and may be over before it is stopped."""


async def assert_goes_on(place: Place) -> None:
    again = await place.start("maintenance")
    await again.said("maintenance.done")
    assert await again.end() == 0, again.text
    again.assert_clean()


async def waiting_for_a_lock(place: Place, *more: str) -> Service:
    service = await place.start("maintenance", *more)
    await waits_for_lock(place)
    return service


async def test_while_connecting_to_a_server_that_says_nothing(place: Place, hole: BlackHole) -> None:
    service = await place.start("maintenance", database_url=place.database_at(hole.address))
    await until(lambda: hole.came)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place)


async def test_in_back_off_from_a_server_that_is_away(place: Place) -> None:
    await asyncio.to_thread(place.postgres.stop)
    service = await place.start("maintenance")
    await service.said("maintenance.failed", 2)
    assert await service.end() == 0, service.text
    service.assert_clean()
    await asyncio.to_thread(place.postgres.start)
    await assert_goes_on(place)


async def test_between_two_runs(place: Place) -> None:
    service = await place.start("maintenance")
    await service.said("maintenance.done")
    assert await service.end() == 0, service.text
    service.assert_clean()


@pytest.mark.parametrize("hangs", [False, True])
async def test_in_the_middle_of_a_run(place: Place, hangs: bool) -> None:
    """``hangs``: the server stops answering at all while a statement of the run waits for a lock."""
    async with locked(place, AGED):
        service = await waiting_for_a_lock(place)
        if hangs:
            with frozen(place.postgres):
                service.signal()
                await service.said("stopping")
                service.again(signal.SIGINT)
                assert await service.ended() == 0, service.text
        else:
            assert await service.end() == 0, service.text
    service.assert_clean()
    await assert_goes_on(place)


async def test_a_single_run_that_is_cut_short_has_failed(place: Place) -> None:
    async with locked(place, AGED):
        service = await waiting_for_a_lock(place, "--once")
        with frozen(place.postgres):
            assert await service.end() == 1
    assert not {"stop.overdue", "stop.stuck"} & set(service.events())
    assert "asked to stop before the run was over" in service.text
    await assert_goes_on(place)
