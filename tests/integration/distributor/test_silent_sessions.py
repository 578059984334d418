"""A receiver that was killed tells no end of its session, and the one that takes its place has another name."""

from __future__ import annotations

import asyncio

from .stage import Stage


async def test_who_was_killed_is_missed_though_another_one_goes_on_without_a_pause(stage: Stage) -> None:
    killed, other = stage.producer("r0", 1), stage.producer("r1", 2)
    await killed.begin()
    await other.begin()

    async def go_on() -> None:
        number = 0
        while True:
            number += 1
            await other.trades(number, number)
            await asyncio.sleep(0.01)  # The distributor keeps up with it.

    going = asyncio.create_task(go_on())
    try:
        running = stage.start(session_silence=3.0)
        await stage.until(lambda: running.figures.connections == 2)
        await stage.until(lambda: running.figures.connections == 1)
        assert running.health.document()["sessions"]["known"] == [killed.session, other.session]
        assert not going.done()
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
