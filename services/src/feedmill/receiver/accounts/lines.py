"""The accounts of one market: which connection each is on, and when one that was lost is tried again.

An account that only the user can mend is tried again seldom; everything else with full-jitter back-off, which begins
anew once an account was heard for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from feedmill import __version__
from feedmill.exchanges.account_base import AccountVenue, Credentials, Mend, Rejection
from feedmill.exchanges.account_session import Close, Place, VenueClock
from feedmill.receiver.accounts.line import Line, wall_ms
from feedmill.receiver.accounts.sink import Sink
from feedmill.shared.backoff import Backoff
from feedmill.shared.budget import Budget
from feedmill.shared.clock import monotonic

USER_RETRY = 300.0
"""Seconds before a key that was refused is tried again: the user may have mended it at the exchange."""
STABLE = 10.0
"""Seconds of being heard after which back-off begins anew."""


@dataclass(slots=True)
class _Account:
    credentials: Credentials
    backoff: Backoff
    not_before: float = 0.0
    line: Line | None = None
    ready_at: float = 0.0
    """0 = it is not listened to."""
    problem: str = field(default="", repr=False)
    refused: bool = False
    """The last problem was one that only the user can mend."""


class AccountLines:
    """``run`` until cancelled; ``add`` and ``remove`` at any time, from the same loop."""

    def __init__(
        self,
        venue: AccountVenue,
        stream: str,
        rest: str,
        sink: Sink,
        *,
        weight: Budget,
        connects: Budget,
        silence: float,
        min_backoff: float = 0.5,
        max_backoff: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        log: Any,
        clock: VenueClock | None = None,
    ) -> None:
        """``clock``: of the venue, where others ask it too."""
        self._venue = venue
        self._place = Place(stream, rest, clock or VenueClock(), wall_ms, lambda: secrets.token_hex(8))
        self._sink = sink
        self._weight = weight
        self._connects = connects
        self._silence = silence
        self._bounds = min_backoff, max_backoff
        self._ssl = ssl_context
        self._log = log
        self._accounts: dict[str, _Account] = {}
        self._lines: dict[Line, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def add(self, account: str, credentials: Credentials) -> None:
        """Listen to it. One that is there already gets other credentials: it is lost and made ready anew."""
        self.remove(account)
        self._accounts[account] = _Account(credentials, Backoff(*self._bounds))
        self._changed.set()

    def remove(self, account: str) -> None:
        gone = self._accounts.pop(account, None)
        if gone is None or gone.line is None:
            return
        line = gone.line
        if line.connection.capacity == 1:
            line.finish(Close(""))
        else:
            line.drop(account, line.connection.drop(account))
        self._changed.set()

    @property
    def ready(self) -> set[str]:
        return {name for name, account in self._accounts.items() if account.ready_at}

    def is_ready(self, account: str) -> bool:
        found = self._accounts.get(account)
        return found is not None and bool(found.ready_at)

    def is_refused(self, account: str) -> bool:
        """Only the user can help."""
        found = self._accounts.get(account)
        return found is not None and found.refused

    def problem_of(self, account: str) -> str:
        """Why it is not listened to; empty while it is. No secret in it."""
        found = self._accounts.get(account)
        return found.problem if found is not None and not found.ready_at else ""

    @property
    def connections(self) -> int:
        return len(self._lines)

    @property
    def problems(self) -> dict[str, str]:
        """Why accounts are not listened to; no secret in it."""
        return {name: each.problem for name, each in self._accounts.items() if each.problem and not each.ready_at}

    async def run(self) -> None:
        try:
            # Each connection of an account holds its place among the client's for as long as it lives.
            connector = aiohttp.TCPConnector(limit=0)
            headers = {"User-Agent": f"feedmill/{__version__}"}
            async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
                while True:
                    self._changed.clear()
                    wait = await self._assign(http)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await self._changed.wait()
        finally:
            tasks = list(self._lines.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _assign(self, http: aiohttp.ClientSession) -> float | None:
        """Put accounts that are due on connections; gives the seconds until the next one is."""
        now = monotonic()
        waiting = [(name, each) for name, each in self._accounts.items() if each.line is None]
        for name, account in waiting:
            if account.not_before > now:
                continue
            line = next((line for line in self._lines if line.room), None)
            if line is None:
                await self._connects.take()
                if self._accounts.get(name) is not account:
                    continue  # Removed while it waited.
                line = self._new_line(http)
            account.line = line
            line.want(name, account.credentials)
            if line not in self._lines:
                self._lines[line] = asyncio.create_task(self._live(line), name="account-line")
        left = [each.not_before - monotonic() for _, each in waiting if each.line is None]
        return max(0.0, min(left)) if left else None

    def _new_line(self, http: aiohttp.ClientSession) -> Line:
        return Line(
            self._venue.connection(self._place), http, self._sink, self._weight, silence=self._silence,
            ssl_context=self._ssl, on_lost=self._lost, on_ready=self._ready, log=self._log,
        )  # fmt: skip

    async def _live(self, line: Line) -> None:
        close = Close("")
        try:
            close = await line.run()
        finally:
            del self._lines[line]
            on_it = [name for name, account in self._accounts.items() if account.line is line]
            if close.cause:
                why = "" if close.why is None else str(close.why)
                self._log.info("account.line_over", cause=close.cause, why=why, accounts=len(on_it))
            for name in on_it:
                self._lost(name, close.why)
            self._changed.set()

    def _ready(self, name: str) -> None:
        account = self._accounts.get(name)
        if account is not None:
            account.ready_at, account.problem, account.refused = monotonic(), "", False

    def _lost(self, name: str, why: Rejection | None) -> None:
        account = self._accounts.get(name)
        if account is None:
            return
        now = monotonic()
        if account.ready_at and now - account.ready_at >= STABLE:
            account.backoff.reset()
        account.line, account.ready_at = None, 0.0
        account.problem = "the connection ended" if why is None else str(why)
        wait = account.backoff.next()
        account.refused = why is not None and why.mend in (Mend.USER, Mend.DONE)
        if why is not None and account.refused:
            wait = USER_RETRY
            self._log.error("account.refused", account=name, cause=why.text, retry_in=USER_RETRY)
        elif why is not None and why.wait is not None:
            wait = max(wait, why.wait)
        account.not_before = now + wait
        self._changed.set()
