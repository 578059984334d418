"""One life of one private connection, as a pure state machine: what is connected, sent and asked, and for whom.

Frames, answers and the time go in; actions come out, to be carried out in their order. No socket, no clock, no stream:
who hosts it keeps frames whose :class:`Received` says ``record``, under the account that it names. Secrets come in by
``want`` and go out inside actions that do not show them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials, Rejection, SignedRequest

ACK_TIMEOUT = 15.0
"""Seconds for the answer to a log-on or a subscription."""
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the socket; then call ``opened``. The URL may be a secret (USD-M)."""

    url: SecretStr


@dataclass(frozen=True, slots=True)
class Send:
    """``weight`` is of the same budget as REST."""

    payload: bytes = field(repr=False)
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """Make a REST request and hand the answer to ``answered``; failing to reach the venue is status 0."""

    number: int
    request: SignedRequest
    weight: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The account is listened to from here on: reconcile it."""

    account: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The account is not listened to from here on; others on the connection are. ``why`` None: by our own wish."""

    account: str
    cause: str
    """expired | refused | unanswered."""
    why: Rejection | None


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection: with it every account of it is lost, and a new one is to be made."""

    cause: str
    """shutdown (the venue's) | expired | refused | unanswered | unreadable."""
    why: Rejection | None = None


Action = Connect | Send | Call | Ready | Lost | Close


@dataclass(frozen=True, slots=True)
class Received:
    """What a frame was. ``account`` empty: of none (heartbeats, answers), or it cannot be told."""

    actions: list[Action]
    record: bool = False
    account: str = ""


CLOCK_TRUSTED = 60.0
"""Seconds for which the venue's time, once asked for, is not asked for again."""


@dataclass(slots=True)
class VenueClock:
    """How far the venue's clock is from ours; shared by all connections to it."""

    offset_ms: int = 0
    _asked_at: float = -NEVER

    def told(self, venue_ms: int, now_ms: int, now: float) -> None:
        self.offset_ms, self._asked_at = venue_ms - now_ms, now

    def trusted(self, now: float) -> bool:
        """Who signs keeps this: by the time of the refusal another connection may have asked."""
        return now - self._asked_at < CLOCK_TRUSTED


@dataclass(frozen=True, slots=True)
class Place:
    """Where connections go, and what they need of the world."""

    stream: str
    rest: str
    clock: VenueClock
    wall_ms: Callable[[], int]
    """ms since the epoch."""
    nonce: Callable[[], str]
    """Random text."""

    def venue_ms(self) -> int:
        return self.wall_ms() + self.clock.offset_ms


class PrivateConnection(ABC):
    """``now`` is seconds of a steady clock."""

    capacity: ClassVar[int]
    """Accounts that one connection carries."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.wanted: dict[str, Credentials] = {}
        self._numbers = 0

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    @property
    def full(self) -> bool:
        """It takes no further account."""
        return len(self.wanted) >= self.capacity

    @property
    @abstractmethod
    def due(self) -> float:
        """When ``tick`` is to be called at the latest."""

    @abstractmethod
    def want(self, account: str, credentials: Credentials, now: float) -> list[Action]:
        """Listen to one more account, at once when the connection is open. Not when it is :attr:`full`."""

    def drop(self, account: str) -> list[Action]:
        """Listen to it no longer, while others go on. Only where one connection carries many."""
        raise NotImplementedError

    @abstractmethod
    def start(self, now: float) -> list[Action]:
        """The first actions of its life."""

    @abstractmethod
    def opened(self, now: float) -> list[Action]: ...

    @abstractmethod
    def frame(self, payload: bytes, now: float) -> Received: ...

    @abstractmethod
    def answered(
        self, number: int, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> list[Action]: ...

    @abstractmethod
    def tick(self, now: float) -> list[Action]: ...
