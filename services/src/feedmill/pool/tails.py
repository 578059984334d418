"""Whether everything that is in the streams of accounts was taken over: raw into events, events into the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from feedmill.shared.keys import account_ref
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect

AWAY = (OSError, TimeoutError, WireError)
ANSWER = 2.0
Position = Callable[[str], str]
"""The entry up to which an account's stream was taken over; empty = not known."""


class Tails:
    """Over a connection of its own."""

    def __init__(self, redis_url: RedisUrl) -> None:
        self._url = redis_url
        self._wire: Wire | None = None

    async def distributed(self, accounts: Iterable[str], position: Position) -> set[str]:
        """Those whose raw streams are. Raises one of AWAY."""
        return await self._reached({name: account_ref(name).raw for name in accounts}, position)

    async def stored(self, accounts: Iterable[str], position: Position) -> set[str]:
        """Those whose events are. Raises one of AWAY."""
        return await self._reached({name: account_ref(name).events for name in accounts}, position)

    async def _reached(self, streams: dict[str, str], position: Position) -> set[str]:
        try:
            async with asyncio.timeout(ANSWER):
                wire = self._wire
                if wire is None or not wire.is_open:
                    wire = self._wire = await connect(self._url, name="feedmill-accounts-tails")
                calls = [wire.send("XREVRANGE", key, "+", "-", "COUNT", 1) for key in streams.values()]
                answers = await asyncio.gather(*calls)
        except AWAY:
            self.abort()
            raise
        return {
            name
            for name, answer in zip(streams, answers, strict=True)
            if not answer or ((at := position(name)) and id_of(answer[0][0].decode()) <= id_of(at))
        }

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
