"""What a member of the pool knows of an account that is its own for now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from feedmill.accounts.store import Listed
from feedmill.exchanges.account_base import Credentials
from feedmill.pool.markets import Market


class State(StrEnum):
    """Of an account, in a word."""

    LISTENING = "listening"
    """And as the venue has it."""
    RECONCILING = "reconciling"
    """Listened to; what happened before is being asked for."""
    CONNECTING = "connecting"
    WAITING = "waiting"
    """For its secrets."""
    REFUSED = "refused"
    """Only the user can help."""
    DISABLED = "disabled"
    """What was heard before is stored."""


@dataclass(slots=True, eq=False)
class Held:
    """One account."""

    listed: Listed
    market: Market | None = None
    credentials: Credentials | None = None
    version: int = 0
    """Of the secrets as they are now; 0 = there are none, below = they were not looked at yet."""
    opened: tuple[int, int] = (0, 0)
    """Which secrets ``credentials`` are."""
    told: tuple[object, ...] = ()
    """What a problem hangs on: when it changes, what was wrong may be mended."""
    placeless: str = ""
    """Why the venue has no connection left for it."""
    checked: tuple[int, int] = (0, 0)
    """Which secrets this process has asked the venue about."""
    checked_at: float = 0.0
    """When it did."""
    given: bool = False
    """Whether the lines have it."""
    problem: str = ""
    """Why the lines do not have it; no secret in it."""
    final: bool = False
    """Only the user can mend that."""
    tries: int = 0
    again_at: float = 0.0
    last_fill_ns: int = 0
    """Of the newest fill stored since it is held; 0 = none."""
    owned: bool = False
    """Whether the streams of its name are known to be its own."""
    leaving: bool = False
    """Its slot is being given up: it is not listened to any more, what was heard is stored."""
    dry: bool = False
    """It is not listened to, and all that was in its streams is stored."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while there are credentials."""

    @property
    def name(self) -> str:
        return str(self.listed.account.name)

    @property
    def wanted(self) -> bool:
        """Whether it is to be listened to."""
        return self.listed.account.enabled and not self.listed.removed and not self.placeless

    @property
    def secrets(self) -> tuple[int, int]:
        """Which secrets it is to be listened to with: others mean a new connection."""
        return self.listed.account.id, self.version

    @property
    def state(self) -> State:
        if not self.wanted:
            return State.REFUSED if self.placeless else State.DISABLED
        market = self.market
        if not self.given or market is None:
            return State.REFUSED if self.final else State.WAITING
        if not market.lines.is_ready(self.name):
            return State.REFUSED if market.lines.is_refused(self.name) else State.CONNECTING
        return State.RECONCILING if market.distributor.has_gap(self.name) else State.LISTENING

    @property
    def why(self) -> str:
        """Of a state that is none of the good ones."""
        told = self.market.lines.problem_of(self.name) if self.given and self.market is not None else ""
        return told or self.problem
