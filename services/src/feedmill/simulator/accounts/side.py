"""What the private side of every venue is: accounts, engine, keys, ledger, the topics of accounts, and its admin."""

from __future__ import annotations

import asyncio
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from feedmill.simulator.accounts.engine import OrderEngine, make_accounts
from feedmill.simulator.accounts.keys import ApiKey, KeyRing
from feedmill.simulator.accounts.lines import Lines
from feedmill.simulator.accounts.model import Account, Update
from feedmill.simulator.accounts.rules import rules_of
from feedmill.simulator.catalog import listings
from feedmill.simulator.config import ConfigError
from feedmill.simulator.market import Market
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

MAX_BACKLOG = 0.25
"""Seconds of actions made up for after the process was held up."""
FIRST_ID = 1_000_000_000
MAX_STEPS = 100_000
FUNDED_MS = 86_400_000
"""So long before the start the accounts got what they begin with."""


class PrivateSide(ABC):
    """``markets``: the public markets by native name; orders follow their prices once they trade."""

    def __init__(self, venue: Venue) -> None:
        config = venue.config
        self.venue = venue
        self.listings = listings(config.venue, config.symbols)
        self.markets: Mapping[str, Market] = {}
        rules = rules_of(config.venue, self.price)
        made = make_accounts(config.venue, config.accounts, venue.seed, rules, config.history, config.account_assets)
        for account in made:
            # Their money came some time: an exchange says 0 only of an account that never had any.
            account.updated_ms = venue.matching_ms() - FUNDED_MS
        self.accounts: dict[str, Account] = {account.name: account for account in made}
        self.keys = KeyRing(made, venue.seed, config.venue, venue.now_ns() // 1_000_000)
        self.engine = OrderEngine(
            made,
            self.listings,
            rules,
            self.price,
            self._tell,
            seed=venue.seed,
            ids=FIRST_ID if venue.id_base is None else venue.id_base,
        )
        self.topics: dict[tuple[str, str], Topic] = {}
        """(account, kind) -> topic."""
        self.lines = Lines(venue.ledger, config.venue)
        self.lines.begin(made, venue.matching_ms())
        self._due = 0.0
        self._ending: list[ApiKey] = []

    def price(self, native: str) -> Decimal:
        """The market's price, in whole ticks."""
        listing = self.listings[native]
        market = self.markets.get(native)
        return (market.mid if market is not None else int(listing.price / listing.tick)) * listing.tick

    # -- time

    def tick(self, elapsed: float) -> None:
        """Do what is due after ``elapsed`` seconds."""
        self._due += self.venue.config.account_rate * min(elapsed, MAX_BACKLOG)
        due = int(self._due)
        self._due -= due
        self.step(due)

    def step(self, count: int) -> None:
        """``count`` actions now."""
        if self.accounts:
            now_ms = self.venue.matching_ms()
            for _ in range(count):
                self.engine.step(now_ms)

    def housekeep(self, now_ms: int) -> None:
        """Keys that came to their end since."""
        for key in [key for key in self._ending if key.until_ms <= now_ms]:
            self._ending.remove(key)
            self.revoked(key)

    def _tell(self, update: Update) -> None:
        self.lines.write(update)
        self.publish(update)

    def topic(self, account: str, kind: str) -> Topic:
        """Its faults name the account as ``symbol`` and ``Account`` as channel."""
        found = self.topics.get((account, kind))
        if found is None:
            found = self.topics[account, kind] = Topic(kind, account, kind, "Account")
            found.started = True
            self.venue.topic_made(found)
        return found

    # -- what a venue adds

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None: ...

    @abstractmethod
    def publish(self, update: Update) -> None:
        """Tell who is subscribed."""

    @abstractmethod
    def revoked(self, key: ApiKey) -> None:
        """The key is refused from now on: end what was opened with it."""

    @abstractmethod
    def expire(self, account: str) -> int:
        """End what is granted for a time (listen keys, tokens, subscriptions) of ``account`` or all; how many."""

    # -- keys on demand

    def end_key(self, key: ApiKey, at_ms: int) -> None:
        key.until_ms = at_ms
        self._ending.append(key)

    def rotate(self, account: str, seconds: float = 0.0) -> list[ApiKey]:
        """New keys now; the old ones are refused ``seconds`` from now. Raises ConfigError."""
        self._known(account)
        now_ms = self.venue.now_ns() // 1_000_000
        old = [key for key in self.keys.of(account) if now_ms < key.until_ms]
        made = self.keys.rotate(account, now_ms, now_ms + int(seconds * 1000))
        self._ending += [key for key in old if key not in self._ending]
        self.venue.log_fault("rotate", account, "Account", f"old keys refused after {seconds} s")
        self.housekeep(now_ms)
        return made

    def change_key(self, account: str, fields: Mapping[str, Any]) -> int:
        """Change the rights of the account's keys: withdraw, ips, seconds (until they end). Raises ConfigError.

        ``replaced``: of those only that have a newer one.
        """
        self._known(account)
        unknown = sorted(set(fields) - {"withdraw", "ips", "seconds", "replaced"})
        if unknown:
            raise ConfigError(f"key {unknown[0]!r} is unknown: use account, rotate, withdraw, ips, seconds, replaced")
        now_ms = self.venue.now_ns() // 1_000_000
        mine = self.keys.of(account)
        keys = [key for key in mine if now_ms < key.until_ms]
        if fields.get("replaced"):
            newest = {key.kind: key for key in mine}
            keys = [key for key in keys if key is not newest[key.kind]]
        for key in keys:
            key.withdraw = bool(fields.get("withdraw", key.withdraw))
            key.ips = tuple(fields.get("ips", key.ips))
            if "seconds" in fields:
                self.end_key(key, now_ms + int(fields["seconds"] * 1000))
        self.housekeep(now_ms)
        return len(keys)

    def _known(self, account: str) -> None:
        if account not in self.accounts:
            raise ConfigError(f"account {account!r} is unknown here: the file of --keys lists them")

    def add_admin(self, router: web.UrlDispatcher) -> None:
        router.add_post("/_sim/accounts/step", self._admin_step)
        router.add_post("/_sim/accounts/key", self._admin_key)
        router.add_get("/_sim/accounts/keys", self._admin_keys)

    async def _admin_step(self, request: web.Request) -> web.Response:
        count = request.query.get("count", "1")
        if not count.isdigit() or not 0 < int(count) <= MAX_STEPS:
            return web.json_response({"error": f"count {count!r}: give 1 to {MAX_STEPS}"}, status=400)
        self.step(int(count))
        return web.json_response(self.stats())

    async def _admin_key(self, request: web.Request) -> web.Response:
        """Answers counts only: keys are in the file of --keys."""
        try:
            fields = await request.json()
            account = str(fields.pop("account", ""))
            if fields.pop("rotate", False):
                hit = len(self.rotate(account, float(fields.pop("seconds", 0.0))))
            else:
                hit = self.change_key(account, fields)
        except (ValueError, TypeError, AttributeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        if self.venue.simulator.keys_file is not None:
            await self.venue.write_keys()
        return web.json_response({"hit": hit})

    async def _admin_keys(self, request: web.Request) -> web.Response:
        """How often each key of an account was used, and tried after its end; oldest first. No key is in it."""
        account = request.query.get("account", "")
        now_ms = self.venue.now_ns() // 1_000_000
        return web.json_response(
            [
                {"type": key.kind, "ended": now_ms >= key.until_ms, "uses": key.uses, "refused": key.refused}
                for key in self.keys.of(account)
            ]
        )

    def stats(self) -> dict[str, int]:
        return {
            "accounts": len(self.accounts),
            "steps": self.engine.steps,
            "listened": len({account for (account, _), topic in self.topics.items() if topic.outlets}),
            "open_orders": sum(len(account.open) for account in self.accounts.values()),
        }


def write_keys(path: Path, sides: Iterable[PrivateSide]) -> None:
    """All keys as JSON, readable by the owner only: venue -> stream, rest, accounts."""
    content = {}
    for side in sides:
        venue = side.venue
        now_ms = venue.now_ns() // 1_000_000
        # The one place where keys leave the process.
        content[venue.config.venue] = {
            "stream": venue.stream,
            "rest": venue.rest,
            "accounts": side.keys.written(now_ms),
        }
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    temporary.replace(path)


async def write_keys_aside(path: Path, sides: list[PrivateSide]) -> None:
    """In a thread: the private keys of a thousand accounts take a moment to print."""
    await asyncio.to_thread(write_keys, path, sides)
