"""A receiver that was killed tells no end of its session, and the one that takes its place has another name."""

from __future__ import annotations

import asyncio

from .stage import Stage


async def test_who_was_killed_is_missed_though_another_one_goes_on_without_a_pause(stage: Stage) -> None:
    killed, other = stage.producer("r0", 1), stage.producer("r1", 2)
    await killed.begin()
    await other.begin()

    enough = False

    async def go_on() -> None:
        number = 0
        while not enough:  # Not cancelled: redis-py forgets that, on Python 3.11, where its write has just been done.
            number += 1
            await other.trades(number, number)
            await asyncio.sleep(0.01)  # The distributor keeps up with it.

    going = asyncio.create_task(go_on())
    try:
        running = stage.start(session_silence=3.0)
        # Both are known; that both are connected is not looked for: a busy machine may look too late.
        await stage.until(lambda: len(running.figures.sessions) == 2)
        await stage.until(lambda: running.figures.connections == 1)
        assert running.health.document()["sessions"]["known"] == [killed.session, other.session]
        assert not going.done()
    finally:
        enough = True
        await going
