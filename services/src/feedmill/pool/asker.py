"""One connection to Redis for what a member asks seldom: made when needed, made again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect

AWAY = (OSError, TimeoutError, WireError)
"""What :meth:`Asker.ask` raises when it is not known what Redis did."""
ANSWER = 3.0
T = TypeVar("T")


class Asker:
    """Several may ask at once."""

    def __init__(self, redis_url: RedisUrl, name: str) -> None:
        self._url = redis_url
        self._name = name
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()

    async def ask(self, work: Callable[[Wire], Awaitable[T]]) -> T:
        """Raises one of AWAY."""
        wire: Wire | None = None
        try:
            async with asyncio.timeout(ANSWER):
                async with self._lock:
                    if self._wire is None or not self._wire.is_open:
                        self._wire = await connect(self._url, name=self._name)
                    wire = self._wire
                return await work(wire)
        except AWAY:
            if wire is not None:
                wire.abort()
            raise

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()
