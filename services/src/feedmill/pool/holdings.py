"""The accounts that are a member's own for now: which they are, what becomes of each, and the markets they are at."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from feedmill.accounts.places import without_place
from feedmill.accounts.store import Account, Listed
from feedmill.exchanges.account_base import Credentials
from feedmill.pool.fleets import Fleets
from feedmill.pool.held import Held
from feedmill.pool.markets import Market, MarketKey, NotSupported, market_of
from feedmill.pool.slots import slot_of
from feedmill.pool.vault import Vault
from feedmill.processor.accounts.worker import AccountWorker
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared.events import Instrument
from feedmill.shared.redis.url import RedisUrl


class Holdings:
    """``open_for`` it is told of the client for REST requests before the first account comes."""

    def __init__(
        self, streams: AccountStreams, worker: AccountWorker, fleets: Fleets, vault: Vault, redis_url: RedisUrl,
        gone: Callable[[str], None], log: Any,
    ) -> None:  # fmt: skip
        """``gone``: called with an account that is no longer worked on."""
        self._gone = gone
        self._streams = streams
        self._worker = worker
        self._fleets = fleets
        self._vault = vault
        self._redis_url = redis_url
        self._log = log
        self._http: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.slots: set[int] = set()
        """Whose accounts are worked on."""
        self.held: dict[str, Held] = {}
        self.markets: dict[MarketKey, Market] = {}

    def open_for(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    def of(self, slot: int) -> list[Held]:
        return [held for name, held in self.held.items() if slot_of(name) == slot]

    # -- which, and what becomes of them

    def sort(self, accounts: Mapping[str, Listed]) -> None:
        """``accounts``: all there are. Do what follows from them and from the slots."""
        placeless = without_place(each.account for each in accounts.values() if not each.removed)
        wanted = {name: listed for name, listed in accounts.items() if slot_of(name) in self.slots}
        for name in self.held.keys() - wanted.keys():
            self._let_go(name)
        for name, listed in wanted.items():
            held = self.held.get(name)
            if held is not None and held.listed.account.id != listed.account.id:
                # Another account of the same name: nothing of the former one's is kept.
                self._let_go(name)
                self._share_out()
                held = None
            if held is None:
                held = self.held[name] = Held(listed)
            self._update(held, listed, placeless.get(name, ""))
        self._share_out()

    def _let_go(self, name: str) -> None:
        self.quiet(self.held.pop(name))
        self._gone(name)

    def _update(self, held: Held, listed: Listed, placeless: str) -> None:
        held.listed = listed
        now, held.version = listed.account, self._vault.version(listed)
        if held.secrets != held.opened:
            # Secrets that changed may be revoked already: nothing is asked for with the former ones.
            held.credentials = None
            held.known.clear()
        told = now.enabled, now.endpoints, now.allow_withdraw, held.secrets, placeless
        if told != held.told:
            held.told, held.tries, held.again_at = told, 0, 0.0
            held.problem, held.final = "", False
        held.placeless = placeless
        if not held.wanted:
            held.problem, held.final = placeless, bool(placeless)
            self.quiet(held)
            return
        held.dry = False
        try:
            market = self._market_of(now)
        except NotSupported as error:
            self.quiet(held)
            held.market, held.problem, held.final = None, str(error), True
            return
        if held.market is not market:
            self.quiet(held)
        held.market = market

    def quiet(self, held: Held) -> None:
        """Listen to it no longer. What was heard is still distributed and stored."""
        if held.given and held.market is not None:
            held.market.lines.remove(held.name)
            self._streams.close(held.name)
        held.given = False
        held.credentials, held.opened = None, (0, 0)
        held.known.clear()

    def give(self, held: Held, credentials: Credentials) -> None:
        """Listen to it, or with these instead of others from now on."""
        assert held.market is not None
        held.problem, held.final, held.tries = "", False, 0
        held.credentials, held.opened = credentials, held.secrets
        held.known.set()
        self._streams.open(held.name)
        held.market.listen(held.name, credentials)
        held.given = True

    async def _credentials(self, name: str) -> Credentials:
        """Those of an account that is ours, once they are known."""
        held = self.held[name]
        while held.credentials is None:
            await held.known.wait()
        return held.credentials

    # -- markets

    def ssl_of(self, url: str) -> ssl.SSLContext | None:
        """One context for all: reading the machine's certificates takes 15 ms and 1 MiB each time."""
        if self._ssl is None and url.startswith(("wss:", "https:")):
            self._ssl = ssl.create_default_context()
        return self._ssl

    def _market_of(self, account: Account) -> Market:
        """Raises NotSupported."""
        key, venue, accounts = market_of(account)
        found = self.markets.get(key)
        if found is None:
            assert self._http is not None
            try:
                found = Market(
                    key, venue, accounts, streams=self._streams, fleets=self._fleets, redis_url=self._redis_url,
                    http=self._http, ssl_context=self.ssl_of(key.rest), credentials=self._credentials, log=self._log,
                )  # fmt: skip
            except ValueError as error:
                # One account with odd addresses must not be the end of all.
                raise NotSupported(f"its addresses cannot be used ({error}): check its endpoints") from error
            self.markets[key] = found
            found.start()
        return found

    def _share_out(self) -> None:
        """Tell each distributor and the worker what is theirs; end the markets that have nothing to do."""
        of: dict[MarketKey, set[str]] = {}
        for name, held in self.held.items():
            if held.market is None and held.owned and not held.dry:
                # What was heard of it before is still to be distributed, and needs its market for that.
                try:
                    held.market = self._market_of(held.listed.account)
                except NotSupported:
                    continue
            if held.market is not None and held.owned and not held.dry:
                of.setdefault(held.market.key, set()).add(name)
        wanted = of.keys() | {held.market.key for held in self.held.values() if held.market is not None}
        for key in self.markets.keys() - wanted:
            market = self.markets.pop(key)
            market.work_on(set())
            task = asyncio.create_task(market.close(), name="close market")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for key, market in self.markets.items():
            market.work_on(of.get(key, set()))
        self._worker.work_on(name for name, held in self.held.items() if held.owned and not held.dry)

    async def describe(self, exchange: str, market: str, symbols: Sequence[str]) -> list[Instrument]:
        """What the venue says of these instruments, as far as it was asked for its list."""
        at = [each for key, each in self.markets.items() if (key.exchange, key.market) == (exchange, market)]
        return [found for each in at for found in await each.catalogue.find(symbols)]

    def distributed_to(self, name: str) -> str:
        """The entry of an account's raw stream up to which it is distributed; empty = not known."""
        held = self.held.get(name)
        return held.market.distributor.position(name) if held is not None and held.market is not None else ""

    async def close(self) -> None:
        markets, self.markets = self.markets, {}
        await asyncio.gather(*(market.close() for market in markets.values()), *self._closing)
