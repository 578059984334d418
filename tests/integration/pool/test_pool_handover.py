"""Several members: accounts are shared, and move as a whole when a member stops, dies, or comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pool_stage import DERIBIT, SPOT, USDM, Bed, until

from feedmill.pool.slots import slots_of

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


async def shared(bed: Bed) -> None:
    """Every slot has one holder, and nobody more than a fair part."""

    def so() -> bool:
        held = [member.pool.seats.held for member in bed.members.values()]
        all_held = set().union(*held)
        slots = {slot for member in bed.members.values() for slot in slots_of(member.pool.roster.accounts)}
        fair = -(-len(slots) // len(held))
        return all_held == slots and sum(map(len, held)) == len(slots) and max(map(len, held)) <= fair

    await until(so)


async def test_accounts_are_shared_and_move_when_a_member_stops_in_order(start_bed: Start) -> None:
    bed = await start_bed(USDM, accounts=8)
    names = bed.names(USDM)
    await bed.add(USDM, *names)
    bed.member("r0")
    await bed.listened(*names)
    await bed.step(60)
    second = bed.member("r1")
    await shared(bed)
    await bed.listened(*names)
    assert second.pool.holdings.held
    await bed.step(60)
    await bed.equal()

    before = await bed.rows("SELECT count(*) FROM fills")
    first = bed.members["r0"]
    await bed.step(40)
    await bed.stop("r0")
    # All that it had heard is stored: nobody else could have done it.
    assert (await bed.rows("SELECT count(*) FROM fills"))[0][0] > before[0][0]
    assert first.pool.seats.held == set()
    await bed.listened(*names)
    await bed.step(40)
    await bed.equal()
    causes = {row["cause"] for row in await bed.rows("SELECT DISTINCT cause FROM gaps WHERE channel = 'Account'")}
    assert causes <= {"first", "shutdown"}, causes


async def test_a_member_that_is_killed_leaves_its_accounts_to_the_other(start_bed: Start) -> None:
    bed = await start_bed(SPOT, DERIBIT, accounts=4)
    names = [*bed.names(SPOT), *bed.names(DERIBIT)]
    await bed.add(SPOT, *bed.names(SPOT))
    await bed.add(DERIBIT, *bed.names(DERIBIT))
    bed.member("r0")
    bed.member("r1")
    await bed.listened(*names)
    await shared(bed)
    await bed.listened(*names)
    await bed.step(60)
    victim = bed.members.pop("r0")
    theirs = set(victim.pool.holdings.held)
    assert theirs
    # As if the process were gone: nothing is closed, told or given up.
    victim.pool.seats.link.close()
    victim.pool.seats._closed = True
    for seat in victim.pool.seats._seats.values():
        assert seat.task is not None
        seat.lease.held = False
        seat.task.cancel()
    victim.task.cancel()
    await asyncio.wait({victim.task})
    await bed.step(60)
    await bed.listened(*names)
    assert theirs <= set(bed.members["r1"].pool.holdings.held)
    await bed.step(40)
    await bed.equal()
