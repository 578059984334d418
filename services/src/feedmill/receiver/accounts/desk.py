"""Signed REST requests of accounts: within the venue's budget, by its clock, again where that helps.

A request that is refused for its time is signed anew by the venue's clock; 429 and 418 stop everybody who shares the
budget; what only the user or nobody can mend is given back as it is. What is told and logged holds no key and no URL.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from feedmill.exchanges.account_base import AccountRequest, AccountVenue, Credentials, Mend, Rejection, SignedRequest
from feedmill.exchanges.account_session import VenueClock
from feedmill.exchanges.base import MapError, RestLimits
from feedmill.receiver.accounts.line import wall_ms
from feedmill.shared.backoff import Backoff
from feedmill.shared.budget import Budget
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.http_body import read_body

ATTEMPTS = 6
MAX_BODY = 64 * 1024 * 1024
ReadLimits = Callable[[int, Mapping[str, str], bytes], RestLimits]


@dataclass(frozen=True, slots=True)
class Answered:
    """``refused`` None: ``body`` is the answer."""

    status: int
    body: bytes
    sent_ns: int
    at_ns: int
    refused: Rejection | None = None


class AccountDesk:
    """``budgets``: by the name a request draws on. ``read_limits``: what headers say is used of ``limit`` weight."""

    def __init__(
        self,
        venue: AccountVenue,
        rest: str,
        http: aiohttp.ClientSession,
        *,
        clock: VenueClock,
        budgets: Mapping[str, Budget],
        read_limits: ReadLimits,
        limit: float,
        timeout: float = 15.0,
        min_backoff: float = 0.5,
        ssl_context: ssl.SSLContext | None = None,
        log: Any,
    ) -> None:
        self._venue = venue
        self._rest = rest
        self._http = http
        self._clock = clock
        self._budgets = budgets
        self._read_limits = read_limits
        self._limit = limit
        self._timeout = timeout
        self._min_backoff = min_backoff
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._log = log

    async def ask(self, credentials: Credentials, request: AccountRequest) -> Answered:
        """The answer, or why there is none (after ATTEMPTS the last refusal). Raises ValueError."""
        backoff = Backoff(self._min_backoff, 30.0)
        budget = self._budgets[request.bucket]
        attempt = 0
        while True:
            attempt += 1
            await budget.take(request.weight)
            checked = self._clock.trusted(monotonic())
            now_ms = wall_ms() + self._clock.offset_ms
            signed = self._venue.sign(self._rest, request, credentials, now_ms, secrets.token_hex(8))
            answer = await self._once(signed, request, checked=checked)
            why = answer.refused
            if why is None or attempt == ATTEMPTS:
                return answer
            if why.mend is Mend.CLOCK:
                if not checked:
                    await self._ask_time(credentials)
            elif why.mend is not Mend.RETRY:
                return answer
            elif why.wait is not None:
                for each in self._budgets.values():
                    each.block(why.wait)
                continue
            await asyncio.sleep(backoff.next())

    async def _ask_time(self, credentials: Credentials) -> None:
        request = self._venue.time
        await self._budgets[request.bucket].take(request.weight)
        signed = self._venue.sign(self._rest, request, credentials, 0, "")
        answer = await self._once(signed, request, checked=True)
        if answer.refused is None:
            try:
                self._clock.told(self._venue.server_ms(answer.body), wall_ms(), monotonic())
            except MapError as error:
                self._log.warning("account.time_unreadable", reason=error.reason)

    async def _once(self, signed: SignedRequest, request: AccountRequest, *, checked: bool) -> Answered:
        sent, began = now_ns(), monotonic()
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.request(
                    signed.method, URL(signed.url.get_secret_value(), encoded=True), headers=signed.headers,
                    data=signed.body or None, ssl=self._ssl, allow_redirects=False,
                ) as got,
            ):  # fmt: skip
                body = await read_body(got, MAX_BODY)
                status, headers = got.status, got.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._log.warning("account.rest_failed", kind=request.kind, error=type(error).__name__)
            why = Rejection(Mend.RETRY, 0, f"the venue cannot be reached: {type(error).__name__}")
            return Answered(0, b"", sent, now_ns(), why)
        at = now_ns()
        if len(body) > MAX_BODY:
            return Answered(status, b"", sent, at, Rejection(Mend.REFUSED, 0, f"more than {MAX_BODY} bytes"))
        if request.bucket != "instruments":
            used = self._read_limits(status, headers, body).used_weight
            if used is not None:
                self._budgets["weight"].correct(self._limit - used, monotonic() - began)
        refused = self._venue.judge(status, headers, body, checked)
        if refused is not None:
            self._log.warning("account.rest_refused", kind=request.kind, status=status, cause=str(refused))
        return Answered(status, body if refused is None else b"", sent, at, refused)
