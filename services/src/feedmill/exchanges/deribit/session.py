"""Deribit, a private connection: one account, logged on by signature, its token renewed in time. Dossier section 7.1.

A token that the venue ends before its time silences the connection without a word; only the next renewal shows it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials, Grant, Mend, Rejection
from feedmill.exchanges.account_session import (
    ACK_TIMEOUT,
    NEVER,
    Action,
    Call,
    Close,
    Connect,
    Place,
    PrivateConnection,
    Ready,
    Received,
    Send,
)
from feedmill.exchanges.base import FrameKind, MapError
from feedmill.exchanges.deribit import account as calls


class DeribitConnection(PrivateConnection):
    capacity = 1

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._logon = self._subscribe = self._time_call = 0
        """Numbers of the requests that are under way; 0 = none is."""
        self._ready = False
        self._timed = False
        """The log-on under way was signed by the venue's time."""
        self._deadline = NEVER
        self._renew_at = NEVER
        self._grant: Grant | None = None

    @property
    def due(self) -> float:
        return min(self._deadline, self._renew_at)

    @property
    def _account(self) -> str:
        return next(iter(self.wanted))

    def want(self, account: str, credentials: Credentials, now: float) -> list[Action]:
        """Before ``start``."""
        self.wanted[account] = credentials
        return []

    def start(self, now: float) -> list[Action]:
        return [Connect(SecretStr(calls.url(self.place.stream)))]

    def opened(self, now: float) -> list[Action]:
        return [Send(calls.heartbeat(self.number()).payload), self._log_on(now)]

    def _log_on(self, now: float) -> Action:
        self._logon, self._deadline = self.number(), now + ACK_TIMEOUT
        self._timed = self.place.clock.trusted(now)
        credentials = self.wanted[self._account]
        return Send(calls.logon(credentials, self._logon, self.place.venue_ms(), self.place.nonce()).payload)

    def frame(self, payload: bytes, now: float) -> Received:
        verdict = calls.classify(payload, clock_checked=self._timed)
        if verdict.kind is FrameKind.DATA:
            return Received([], True, self._account) if verdict.record else Received([Close("unreadable")])
        if verdict.kind is FrameKind.HEARTBEAT:
            return Received([Send(verdict.reply)] if verdict.reply is not None else [])
        if verdict.rejection is not None:
            return Received(self._refused(verdict.request_id, verdict.rejection, now))
        if verdict.request_id == self._logon:
            return Received(self._granted(verdict.grant, now))
        if verdict.request_id == self._subscribe:
            return Received(self._subscribed(verdict.accepted or frozenset()))
        return Received([])

    def _granted(self, granted: Grant | None, now: float) -> list[Action]:
        self._logon, self._deadline = 0, NEVER
        if granted is None:
            return [Close("refused", Rejection(Mend.RETRY, 0, "the answer to the log-on cannot be read"))]
        self._grant, self._renew_at = granted, now + granted.renew_after
        if self._ready:
            return []  # Renewed: the subscriptions stay.
        self._subscribe, self._deadline = self.number(), now + ACK_TIMEOUT
        return [Send(calls.subscribe(self._subscribe).payload)]

    def _subscribed(self, accepted: frozenset[str]) -> list[Action]:
        self._subscribe, self._deadline = 0, NEVER
        missing = sorted(set(calls.CHANNELS) - accepted)
        if missing:
            return [Close("refused", Rejection(Mend.USER, 0, f"the exchange does not offer {', '.join(missing)}"))]
        self._ready = True
        return [Ready(self._account)]

    def _refused(self, number: int | None, why: Rejection, now: float) -> list[Action]:
        if why.mend is Mend.RECONNECT:
            return [Close("refused", why)]
        if number is None or number not in (self._logon, self._subscribe):
            return []
        if not self._ready and number == self._logon and why.mend is Mend.CLOCK:
            if self.place.clock.trusted(now):
                return [self._log_on(now)]
            self._time_call = self.number()
            request = calls.sign(self.place.rest, calls.TIME, self.wanted[self._account], 0, "")
            return [Call(self._time_call, request, calls.TIME.weight)]
        return [Close("expired" if self._ready else "refused", why)]

    def answered(self, number: int, status: int, headers: Mapping[str, str], body: bytes, now: float) -> list[Action]:
        if number != self._time_call:
            return []
        self._time_call = 0
        why = calls.judge(status, headers, body) if status else Rejection(Mend.RETRY, 0, "the venue cannot be reached")
        try:
            if why is None:
                self.place.clock.told(calls.server_ms(body), self.place.wall_ms(), now)
        except MapError as error:
            why = Rejection(Mend.RETRY, 0, f"the venue's time cannot be read: {error.reason}")
        return [self._log_on(now)] if why is None else [Close("refused", why)]

    def tick(self, now: float) -> list[Action]:
        if now >= self._deadline:
            return [Close("unanswered")]
        if now < self._renew_at or self._grant is None:
            return []
        self._renew_at = NEVER
        self._logon, self._deadline = self.number(), now + ACK_TIMEOUT
        return [Send(calls.refresh(self._grant, self._logon).payload)]
