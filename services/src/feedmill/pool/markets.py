"""What all accounts of one market share: connections to the venue, the desk, the distributor.

Made when the first account of it is held, ended when the last one is gone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from feedmill.accounts.store import Account
from feedmill.distributor.accounts.service import AccountDistributor
from feedmill.exchanges.account_base import NOBODY, AccountRequest, AccountVenue, Credentials
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.account_session import VenueClock
from feedmill.exchanges.base import Venue
from feedmill.exchanges.registry import UnknownVenue, get_venue
from feedmill.pool.catalogue import Catalogue
from feedmill.pool.fleets import FRONT, SWEEP, Fleets
from feedmill.receiver.accounts.answers import AccountAnswers
from feedmill.receiver.accounts.desk import AccountDesk
from feedmill.receiver.accounts.lines import AccountLines
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared.backoff import Backoff
from feedmill.shared.lease import sleep_or
from feedmill.shared.redis.url import RedisUrl

CredentialsOf = Callable[[str], Awaitable[Credentials]]
"""Those of an account, once they are known."""


class NotSupported(ValueError):
    """There is no such market, or its accounts cannot be listened to; the message says what to change."""


@dataclass(frozen=True, slots=True)
class MarketKey:
    """Which accounts share lines: those at the same addresses."""

    exchange: str
    market: str
    environment: str
    stream: str
    rest: str

    @property
    def venue(self) -> str:
        return f"{self.exchange}.{self.market}.{self.environment}"


def market_of(account: Account) -> tuple[MarketKey, Venue, AccountVenue]:
    """Raises NotSupported."""
    try:
        venue = get_venue(account.exchange, account.market)
    except UnknownVenue as error:
        raise NotSupported(str(error)) from None
    if venue.accounts is None:
        raise NotSupported(f"accounts of {venue.name} are not supported by this version")
    environment = account.environment
    stream = account.endpoints.get("stream") or venue.accounts.streams.get(environment, "")
    rest = account.endpoints.get("rest") or venue.endpoints.get(environment, {}).get("rest", "")
    if not stream or not rest:
        raise NotSupported(f"{venue.name} has no addresses for {environment}: give the account endpoints of its own")
    return MarketKey(account.exchange, account.market, environment, stream, rest), venue, venue.accounts


class Market:
    """``start`` it, ``close`` it. What fails inside is begun again."""

    def __init__(
        self,
        key: MarketKey,
        venue: Venue,
        accounts: AccountVenue,
        *,
        streams: AccountStreams,
        fleets: Fleets,
        redis_url: RedisUrl,
        http: aiohttp.ClientSession,
        ssl_context: ssl.SSLContext | None,
        credentials: CredentialsOf,
        log: Any,
    ) -> None:
        self.key = key
        self.accounts: set[str] = set()
        """That are distributed here."""
        self._venue = accounts
        self._credentials = credentials
        self._log = log.bind(exchange=key.exchange, market=key.market)
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._known: dict[str, Credentials] = {}
        feed = venue.feed(key.stream, authenticated=True)
        budgets = fleets.of(key.venue, feed.limits)
        self.weight = budgets.weight
        """Of the venue, for what cannot wait."""
        clock = VenueClock()
        self.lines = AccountLines(
            accounts, key.stream, key.rest, streams, weight=budgets.weight, connects=budgets.connects,
            silence=feed.limits.silence, ssl_context=ssl_context, log=self._log, clock=clock,
        )  # fmt: skip
        self.desk = AccountDesk(
            accounts, key.rest, http, clock=clock, budgets=budgets.behind,
            read_limits=venue.rest(key.rest).read_limits, limit=budgets.limit, ssl_context=ssl_context, log=self._log,
        )  # fmt: skip
        self.catalogue = Catalogue(venue)
        self._answers = AccountAnswers(self.desk, streams, self._known.__getitem__)
        self.distributor = AccountDistributor(redis_url, accounts, self._ask, self._instruments, log=self._log)

    async def _ask(self, account: str, command: str, request: AccountRequest) -> None:
        self._known[account] = await self._credentials(account)
        if request.bucket == "weight" and self.distributor.is_sweeping(account):
            request = replace(request, bucket=SWEEP)
        await self._answers(account, command, request)

    async def _instruments(self) -> Mapping[str, Traded]:
        request = self._venue.instruments
        if request.bucket == "weight":
            request = replace(request, bucket=FRONT)
        listed = await self.desk.ask(NOBODY, request)
        if listed.refused is not None:
            raise OSError(str(listed.refused))
        traded = self._venue.traded(listed.body)
        await self.catalogue.keep(listed.body, traded)
        return traded

    def work_on(self, accounts: set[str]) -> None:
        """Distribute these, from now on."""
        for name in self.accounts - accounts:
            self._known.pop(name, None)
        self.accounts = set(accounts)
        self.distributor.work_on(accounts)

    def listen(self, account: str, credentials: Credentials) -> None:
        self._known[account] = credentials
        self.lines.add(account, credentials)

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._again(self.lines.run), name="account-lines"),
            asyncio.create_task(self._again(lambda: self.distributor.run(self._stop)), name="account-distributor"),
        ]

    async def _again(self, work: Callable[[], Awaitable[None]]) -> None:
        """A fault of the code in one market costs the others nothing."""
        backoff = Backoff(1.0, 30.0, floor=0.5)
        while not self._stop.is_set():
            try:
                await work()
            except Exception:
                wait = backoff.next()
                self._log.exception("market.fault", retry_in=round(wait, 3))
                await sleep_or(self._stop, wait)

    async def close(self) -> None:
        """What was read is committed; then all ends."""
        self._stop.set()
        lines, distributor = self._tasks
        lines.cancel()
        await asyncio.wait({distributor}, timeout=2.0)
        distributor.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
