"""Who makes accounts listened to waits for one of those who reconcile, not for all of them."""

from __future__ import annotations

import asyncio

from feedmill.pool.lanes import Behind
from feedmill.shared.budget import TokenBucket


class Slow(TokenBucket):
    """Lets one through at a time, when it is told to."""

    def __init__(self) -> None:
        super().__init__(1.0, 1.0)
        self.served: list[float] = []
        self.go = asyncio.Semaphore(0)
        self._line = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> None:
        async with self._line:
            await self.go.acquire()
            self.served.append(amount)


async def test_one_of_those_who_can_wait_stands_in_the_line() -> None:
    budget = Slow()
    behind = Behind(budget, TokenBucket(1000.0, 1000.0))
    waiting = [asyncio.create_task(behind.take(20.0)) for _ in range(50)]
    await asyncio.sleep(0)
    while not budget._line.locked():
        await asyncio.sleep(0)
    urgent = [asyncio.create_task(budget.take(2.0)) for _ in range(10)]
    await asyncio.sleep(0)
    for _ in range(60):
        budget.go.release()
    await asyncio.gather(*waiting, *urgent)
    assert budget.served[0] == 20.0
    assert budget.served[1:11] == [2.0] * 10
    assert len(budget.served) == 60


async def test_what_the_venue_says_holds_for_both_lanes() -> None:
    budget = TokenBucket(100.0, 1.0, clock=lambda: 1000.0)  # It would fill again while a busy machine pauses.
    behind = Behind(budget, TokenBucket(100.0, 1.0))
    behind.correct(5.0)
    assert budget.level < 6.0
    behind.block(30.0)
    assert budget.blocked_for > 29.0
    assert behind.blocked_for > 29.0
