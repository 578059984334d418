"""Binance Spot, a private connection: up to 1,000 accounts, each with its subscription. Dossier section 7.2.

Every account subscribes by its own signature, whatever its key: a log-on would make the connection that of one account.
Numbers of subscriptions are not used again within a connection's life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials, Mend, Rejection
from feedmill.exchanges.account_session import (
    ACK_TIMEOUT,
    NEVER,
    Action,
    Call,
    Close,
    Connect,
    Lost,
    Place,
    PrivateConnection,
    Ready,
    Received,
    Send,
)
from feedmill.exchanges.base import FrameKind, MapError
from feedmill.exchanges.binance_signed import judge, server_ms, sign
from feedmill.exchanges.binance_spot import account as calls


@dataclass(slots=True)
class _Asked:
    account: str
    deadline: float
    timed: bool
    """Signed by the venue's time."""
    outdated: bool = False
    """The account was dropped since, and is wanted again: the venue has one subscription of an account."""


class SpotConnection(PrivateConnection):
    capacity = calls.SUBSCRIPTIONS

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._open = False
        self._asked: dict[int, _Asked] = {}
        """Subscriptions under way, by the number of their request."""
        self._of: dict[int, str] = {}
        """Subscription -> account."""
        self._given = 0
        self._time_call = 0
        self._waiting: list[str] = []
        """Accounts that subscribe once the venue's time is known."""

    @property
    def full(self) -> bool:
        return super().full or self._given + len(self._asked) >= calls.SUBSCRIPTIONS_EVER

    @property
    def due(self) -> float:
        return min((asked.deadline for asked in self._asked.values()), default=NEVER)

    def want(self, account: str, credentials: Credentials, now: float) -> list[Action]:
        self.wanted[account] = credentials
        if not self._open or account in self._waiting:
            return []
        for asked in self._asked.values():
            if asked.account == account:
                asked.outdated = True
                return []
        return [self._subscribe(account, now)]

    def drop(self, account: str) -> list[Action]:
        """Listen to it no longer."""
        self.wanted.pop(account, None)
        found = [at for at, other in self._of.items() if other == account]
        actions: list[Action] = []
        for at in found:
            del self._of[at]
            actions += [Send(calls.unsubscribe(self.number(), at).payload, calls.CALL_WEIGHT), Lost(account, "", None)]
        return actions

    def start(self, now: float) -> list[Action]:
        return [Connect(SecretStr(calls.url(self.place.stream)))]

    def opened(self, now: float) -> list[Action]:
        self._open = True
        return [self._subscribe(account, now) for account in self.wanted]

    def _subscribe(self, account: str, now: float) -> Action:
        number = self.number()
        self._asked[number] = _Asked(account, now + ACK_TIMEOUT, self.place.clock.trusted(now))
        message = calls.subscribe(self.wanted[account], number, self.place.venue_ms())
        return Send(message.payload, calls.CALL_WEIGHT)

    def frame(self, payload: bytes, now: float) -> Received:
        verdict = calls.classify(payload)
        if verdict.kind is FrameKind.SHUTDOWN:
            return Received([Close("shutdown")])
        if verdict.kind is FrameKind.DATA:
            if verdict.subscription is None:
                return Received([Close("unreadable")])
            # One before its acknowledgement is in what REST says then.
            account = self._of.get(verdict.subscription, "")
            if not verdict.ended:
                return Received([], bool(account), account)
            self._of.pop(verdict.subscription, None)
            return Received(self._lost(account, "expired", None), bool(account), account)
        asked = self._asked.pop(verdict.request_id, None) if verdict.request_id is not None else None
        if asked is None:
            # Of a request that was given up, or of none: every subscription that ends says so by itself.
            return Received([])
        if verdict.rejection is not None:
            return Received(self._refused(asked, verdict.rejection, now))
        if verdict.subscription is None:
            return Received([])
        self._given += 1
        if asked.outdated or asked.account not in self.wanted:  # Dropped while it was asked for.
            unsubscribe = calls.unsubscribe(self.number(), verdict.subscription)
            return Received([Send(unsubscribe.payload, calls.CALL_WEIGHT), *self._anew(asked, now)])
        self._of[verdict.subscription] = asked.account
        return Received([Ready(asked.account)])

    def _anew(self, asked: _Asked, now: float) -> list[Action]:
        return [self._subscribe(asked.account, now)] if asked.account in self.wanted else []

    def _lost(self, account: str, cause: str, why: Rejection | None) -> list[Action]:
        return [Lost(account, cause, why)] if self.wanted.pop(account, None) is not None else []

    def _refused(self, asked: _Asked, why: Rejection, now: float) -> list[Action]:
        account = asked.account
        if account not in self.wanted or asked.outdated:
            return self._anew(asked, now)
        if why.mend is Mend.CLOCK and not asked.timed:
            if self.place.clock.trusted(now):
                return [self._subscribe(account, now)]
            self._waiting.append(account)
            return self._ask_time()
        if why.mend is Mend.RECONNECT:
            self._given = calls.SUBSCRIPTIONS_EVER
        # Subscribed already (-2035): one account stands here under two names.
        return self._lost(account, "refused", why)

    def _ask_time(self) -> list[Action]:
        if self._time_call:
            return []
        self._time_call = self.number()
        request = sign(self.place.rest, calls.TIME, Credentials(SecretStr("")), 0)
        return [Call(self._time_call, request, calls.TIME.weight)]

    def answered(self, number: int, status: int, headers: Mapping[str, str], body: bytes, now: float) -> list[Action]:
        if number != self._time_call:
            return []
        self._time_call, waiting, self._waiting = 0, self._waiting, []
        why = judge(status, headers, body) if status else Rejection(Mend.RETRY, 0, "the venue cannot be reached")
        try:
            if why is None:
                self.place.clock.told(server_ms(body), self.place.wall_ms(), now)
        except MapError as error:
            why = Rejection(Mend.RETRY, 0, f"the venue's time cannot be read: {error.reason}")
        if why is not None:
            return [action for account in waiting for action in self._lost(account, "refused", why)]
        return [self._subscribe(account, now) for account in waiting if account in self.wanted]

    def tick(self, now: float) -> list[Action]:
        if self.due > now:
            return []
        # Whether the others are heard is not known either.
        return [Close("unanswered")]
