"""A budget with lanes: what makes accounts listened to goes before what reconciles them, and that before sweeps.

A budget serves in the order of asking. A thousand accounts that reconcile would stand before each subscription of the
accounts that a killed member leaves behind; so of those who reconcile one at a time stands in the line. They may not
spend all there is either, or whoever comes next would wait for the venue's next minute: a part is left for subscribing,
and for the feeds behind the same address.
"""

from __future__ import annotations

import asyncio

from feedmill.shared.budget import Budget


class Behind:
    """The lane of those who can wait; who cannot takes from ``budget`` itself. A :class:`Budget` too."""

    def __init__(self, budget: Budget, part: Budget) -> None:
        """``part``: what all who can wait may spend together."""
        self._budget = budget
        self._part = part
        self._turn = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> None:
        async with self._turn:
            await self._part.take(amount)
            await self._budget.take(amount)

    def block(self, seconds: float) -> None:
        self._budget.block(seconds)

    @property
    def blocked_for(self) -> float:
        return self._budget.blocked_for

    def correct(self, left: float, age: float = 0.0) -> None:
        self._budget.correct(left, age)
