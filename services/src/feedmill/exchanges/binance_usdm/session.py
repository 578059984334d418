"""Binance USD-M, a private connection: one account, by its listen key. Dossier section 7.1."""

from __future__ import annotations

from collections.abc import Mapping

from feedmill.exchanges.account_base import AccountRequest, Credentials, Grant, Mend, Rejection
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
)
from feedmill.exchanges.base import MapError
from feedmill.exchanges.binance_signed import judge, sign
from feedmill.exchanges.binance_usdm import account as calls

RETRY_AFTER = 30.0
"""Seconds after which a renewal that failed is tried again; the key is good for half an hour more."""


class UsdmConnection(PrivateConnection):
    capacity = 1

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._grant: Grant | None = None
        self._call = 0
        self._renewing = False
        self._due = NEVER
        self._ends = NEVER

    @property
    def due(self) -> float:
        return min(self._due, self._ends)

    def want(self, account: str, credentials: Credentials, now: float) -> list[Action]:
        """Before ``start``."""
        self.wanted[account] = credentials
        return []

    def start(self, now: float) -> list[Action]:
        return [self._ask(calls.CREATE, now)]

    def _ask(self, request: AccountRequest, now: float) -> Action:
        self._call, self._due = self.number(), now + ACK_TIMEOUT
        credentials = next(iter(self.wanted.values()))
        return Call(self._call, sign(self.place.rest, request, credentials, 0), request.weight)

    def opened(self, now: float) -> list[Action]:
        """A wrong listen key is not refused, so this is all that is known; the reconciliation tells the rest."""
        return [Ready(account) for account in self.wanted]

    def frame(self, payload: bytes, now: float) -> Received:
        verdict = calls.classify(payload)
        account = next(iter(self.wanted), "")
        if verdict.record:
            return Received([], True, account)
        return Received([Close("expired" if verdict.ended else "unreadable")])

    def answered(self, number: int, status: int, headers: Mapping[str, str], body: bytes, now: float) -> list[Action]:
        if number != self._call:
            return []
        self._call, self._due = 0, NEVER
        why = judge(status, headers, body) if status else Rejection(Mend.RETRY, 0, "the venue cannot be reached")
        if why is None:
            try:
                return self._granted(calls.grant(body), now)
            except MapError as error:
                why = Rejection(Mend.RETRY, 0, f"the listen key cannot be read: {error.reason}")
        if not self._renewing:
            return [Close("refused", why)]
        if why.mend is Mend.RENEW:
            return [Close("expired", why)]
        if why.mend is Mend.USER:
            return [Close("refused", why)]
        self._due = now + (RETRY_AFTER if why.wait is None else why.wait)
        return []

    def _granted(self, granted: Grant, now: float) -> list[Action]:
        before, self._grant = self._grant, granted
        self._due, self._ends = now + granted.renew_after, now + 2 * granted.renew_after
        self._renewing = True
        if before is None:
            return [Connect(calls.url(self.place.stream, granted.token))]
        # Another key than the connection's: what it carries has ended.
        return [Close("expired")] if granted.token != before.token else []

    def tick(self, now: float) -> list[Action]:
        if now >= self._ends:
            return [Close("expired")]
        if now < self._due:
            return []
        if self._call and not self._renewing:
            return [Close("unanswered")]
        return [self._ask(calls.RENEW, now)]
