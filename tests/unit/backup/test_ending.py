"""Work in a thread is waited for, also by who is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from feedmill.general.backup.ending import to_its_end


async def test_who_is_cancelled_waits_for_the_thread_and_is_cancelled_then() -> None:
    began, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go.wait(60)
        done.set()

    waiting = asyncio.create_task(to_its_end(asyncio.to_thread(work)))
    await asyncio.to_thread(began.wait, 60)
    waiting.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done.is_set()


async def test_what_it_answers_or_raises_is_passed_on() -> None:
    async def fails() -> None:
        raise ValueError("no")

    assert await to_its_end(asyncio.sleep(0, 7)) == 7
    with pytest.raises(ValueError, match="no"):
        await to_its_end(fails())
