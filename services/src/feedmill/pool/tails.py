"""Whether everything that is in the streams of accounts was taken over: raw into events, events into the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from feedmill.pool.asker import Asker
from feedmill.shared.keys import account_ref
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.wire import Wire

Position = Callable[[str], str]
"""The entry up to which an account's stream was taken over; empty = not known."""


class Tails:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def distributed(self, accounts: Iterable[str], position: Position) -> set[str]:
        """Those whose raw streams are. Raises one of asker.AWAY."""
        return await self._reached({name: account_ref(name).raw for name in accounts}, position)

    async def stored(self, accounts: Iterable[str], position: Position) -> set[str]:
        """Those whose events are. Raises one of asker.AWAY."""
        return await self._reached({name: account_ref(name).events for name in accounts}, position)

    async def _reached(self, streams: dict[str, str], position: Position) -> set[str]:
        async def last(wire: Wire) -> list[Any]:
            return await asyncio.gather(
                *(wire.send("XREVRANGE", key, "+", "-", "COUNT", 1) for key in streams.values())
            )

        answers = await self._asker.ask(last)
        return {
            name
            for name, answer in zip(streams, answers, strict=True)
            if not answer or ((at := position(name)) and id_of(answer[0][0].decode()) <= id_of(at))
        }
