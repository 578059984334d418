"""A flow of messages for as long as a test needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def traffic(venue: Any, receiver: Any = None, *, size: int = 1000, pause: float = 0.003) -> AsyncIterator[None]:
    """Some megabytes a second until the block ends, fewer with a longer ``pause``.

    With ``receiver`` no more than its disk takes, unless that is full: a disk is slow while others sync theirs.
    """
    stop = asyncio.Event()

    def takes_more() -> bool:
        return receiver is None or receiver.producer.stuck or receiver.budget.used < receiver.budget.limit // 2

    async def send() -> None:
        while not stop.is_set():
            if takes_more():
                await venue.publish(20, size=size)
            await asyncio.sleep(pause)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        stop.set()
        await task
