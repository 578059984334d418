"""A flow of messages for as long as a test needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def traffic(venue: Any, receiver: Any = None, *, size: int = 1000, pause: float = 0.003) -> AsyncIterator[None]:
    """Some megabytes a second until the block ends, fewer with a longer ``pause``.

    With ``receiver`` no more than its disk takes, unless that is full: a disk is slow while others sync theirs.
    """

    def takes_more() -> bool:
        return receiver is None or receiver.producer.stuck or receiver.budget.used < receiver.budget.limit // 2

    async def send() -> None:
        if takes_more():
            await venue.publish(20, size=size)

    async with repeated(send, pause):
        yield


@asynccontextmanager
async def repeated(send: Callable[[], Awaitable[Any]], pause: float = 0.005) -> AsyncIterator[None]:
    """Again and again until the block ends, ``pause`` seconds after the last time; the last one is not cut off."""
    stop = asyncio.Event()

    async def again() -> None:
        while not stop.is_set():
            await send()
            await asyncio.sleep(pause)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        stop.set()
        await task
