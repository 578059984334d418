"""Asks a market what a key may do: the I/O behind :class:`feedmill.accounts.hygiene.KeyReader`."""

from __future__ import annotations

import secrets as random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from yarl import URL

from feedmill.accounts.fields import Secrets
from feedmill.accounts.hygiene import Level, Permissions, Verdict, judge
from feedmill.exchanges.account_base import AccountVenue, Credentials, Mend, Rejection, SignedRequest
from feedmill.exchanges.base import MapError
from feedmill.exchanges.registry import get_venue
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.http_body import read_body

TIMEOUT = 15.0
MAX_BODY = 1024 * 1024


class KeyRefused(Exception):
    """The venue refuses the key itself: nothing but the user can mend that. The text names no secret."""

    @property
    def verdict(self) -> Verdict:
        return Verdict(Level.REFUSED, (str(self),))


class NotTold(OSError):
    """The venue does not answer the question for now. The text names no secret."""


class RightsReader:
    """Of one market. A second question is signed by the venue's clock, if the first was refused for its time."""

    def __init__(self, exchange: str, market: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        """Raises UnknownVenue, or LookupError when accounts of the market are not supported."""
        venue = get_venue(exchange, market)
        if venue.accounts is None:
            raise LookupError(f"accounts of {venue.name} are not supported")
        self._accounts: AccountVenue = venue.accounts
        self._endpoints = venue.endpoints
        self._name = venue.name
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context

    async def __call__(self, endpoints: Mapping[str, str], environment: str, secrets: Secrets) -> Permissions:
        """Raises KeyRefused, NotTold (an OSError) or TimeoutError."""
        base = endpoints.get("rest") or self._endpoints[environment]["rest"]
        credentials = Credentials.of(secrets)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            now_ms, checked = now_ns() // 1_000_000, False
            while True:
                asked = self._accounts.ask_rights(base, credentials, now_ms, random.token_hex(8))
                status, headers, body = await self._call(http, asked)
                refused = self._accounts.judge(status, headers, body, checked)
                if refused is None:
                    return self._read(body)
                if refused.mend is not Mend.CLOCK or checked:
                    return self._give_up(refused)
                now_ms, checked = await self._venues_ms(http, base, credentials), True

    async def _venues_ms(self, http: aiohttp.ClientSession, base: str, credentials: Credentials) -> int:
        request = self._accounts.sign(base, self._accounts.time, credentials, 0, "")
        status, headers, body = await self._call(http, request)
        refused = self._accounts.judge(status, headers, body, True)
        if refused is not None:
            raise NotTold(f"{self._name}: {refused.text}")
        try:
            return self._accounts.server_ms(body)
        except MapError as error:
            raise NotTold(f"{self._name}: the answer cannot be read: {error.reason}") from None

    async def _call(self, http: aiohttp.ClientSession, request: SignedRequest) -> tuple[int, Mapping[str, str], bytes]:
        url = URL(request.url.get_secret_value(), encoded=True)
        body: Any = request.body or None
        try:
            async with http.request(
                request.method, url, headers=request.headers, data=body, ssl=self._ssl, allow_redirects=False
            ) as answer:
                return answer.status, answer.headers, await read_body(answer, MAX_BODY)
        except aiohttp.ClientError as error:
            # Its own text may hold the URL, and that a signature.
            raise NotTold(f"{self._name} at {url.host}: {type(error).__name__}") from None

    def _read(self, body: bytes) -> Permissions:
        try:
            return self._accounts.rights(body)
        except MapError as error:
            raise NotTold(f"{self._name}: the answer cannot be read: {error.reason}") from None

    def _give_up(self, refused: Rejection) -> Permissions:
        if refused.mend in (Mend.USER, Mend.CLOCK):
            raise KeyRefused(refused.text)
        if refused.mend is Mend.REFUSED:
            return Permissions()  # A market that does not answer this question (a test network).
        raise NotTold(f"{self._name}: {refused.text}")


@dataclass(frozen=True, slots=True)
class Judged:
    """What is to be made of a key, and when it expires (None: never, or the venue does not say)."""

    verdict: Verdict
    expires_at: datetime | None = None


async def judge_key(
    exchange: str,
    market: str,
    endpoints: Mapping[str, str],
    environment: str,
    secrets: Secrets,
    *,
    allow_withdraw: bool,
    ssl_context: ssl.SSLContext | None = None,
) -> Judged:
    """Ask and judge. Raises what :class:`RightsReader` raises, but KeyRefused: that is a verdict."""
    read = RightsReader(exchange, market, ssl_context=ssl_context)
    try:
        found = await read(endpoints, environment, secrets)
    except KeyRefused as error:
        return Judged(error.verdict)
    ends = None if found.expires_ns is None else datetime.fromtimestamp(found.expires_ns / SECOND, UTC)
    return Judged(judge(found, allow_withdraw=allow_withdraw, now_ns=now_ns()), ends)
