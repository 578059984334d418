"""The numbers of the live view: per feed and per account, from the services' health documents and small queries.

None = not known. Rates are differences between looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from feedmill.local import account_figures
from feedmill.local.account_figures import PoolFigures
from feedmill.local.notices import connection_trouble, is_flowing
from feedmill.local.status import ManagerStatus, ServiceStatus
from feedmill.resources.feed import ExchangeFeed
from feedmill.shared import postgres
from feedmill.shared.keys import ShardRef

QUERY_INTERVAL = 2.0
REPLAYED_MS = 3_600_000.0
"""An event this much older than its commit is a recorded one."""
_PER_SHARD = """
SELECT shard, count(*) AS all, count(*) FILTER (WHERE state = 'open') AS open FROM gaps GROUP BY shard"""
_LETTERS = "SELECT shard, count(*) AS all FROM dead_letters GROUP BY shard"


@dataclass(slots=True)
class FeedFigures:
    feed: str
    venue: str
    state: str = "starting"
    """For people: flowing, starting, or why not."""
    flowing: bool = False
    selected: int | None = None
    """Instruments that `instruments.select` came to."""
    frames_per_second: float | None = None
    rows_per_second: float | None = None
    rows: int | None = None
    """Stored by this life of the processors."""
    lag_seconds: float | None = None
    """Age of the oldest event not stored yet."""
    latency_since: str = "exchange"
    """exchange: since the exchange's time; receive: since receiving."""
    p50_ms: float | None = None
    """Exchange time to commit, recent."""
    p99_ms: float | None = None
    books: int | None = None
    books_valid: int | None = None
    gaps: int | None = None
    gaps_open: int | None = None
    dead_letters: int | None = None


@dataclass(slots=True)
class _Rate:
    at: float = 0.0
    value: float = 0.0
    rate: float | None = None

    def update(self, at: float, value: float | None) -> float | None:
        """Per second, smoothed over about three looks; a counter that went back starts anew.

        ``at``: when ``value`` was asked for. The same one again, shown twice, is not taken for a standstill.
        """
        if value is None or at <= self.at:
            return self.rate
        if self.at:
            if value < self.value:
                self.rate = None
            else:
                now = (value - self.value) / (at - self.at)
                self.rate = now if self.rate is None else 0.6 * self.rate + 0.4 * now
        self.at, self.value = at, value
        return self.rate


@dataclass(slots=True)
class Collector:
    """Keeps what is needed between looks. ``close`` it."""

    feeds: Sequence[ExchangeFeed]
    database_url: Callable[[], str] = field(repr=False)
    """As it is when a connection is made."""
    _rates: dict[str, _Rate] = field(default_factory=dict)
    _gaps: dict[str, tuple[int, int]] | None = None
    _letters: dict[str, int] | None = None
    _accounts: list[account_figures.Row] | None = None
    _connection: asyncpg.Connection | None = None
    _asked: float = 0.0

    async def look(self, status: ManagerStatus) -> list[FeedFigures]:
        """The figures of every feed now."""
        await self._ask_database()
        return [self._of_feed(feed, status) for feed in self.feeds]

    def accounts(self, status: ManagerStatus) -> PoolFigures:
        """Of the accounts, as the database had them at the last :meth:`look`."""
        members = [service.health for service in status.services if service.role == "accounts"]
        found = account_figures.of(members, self._accounts)
        if status.phase != "running":
            # They end with the receivers, and say nothing any more.
            for item in found.shown:
                item.state = status.phase if item.state == "?" else item.state
        return found

    def _of_feed(self, feed: ExchangeFeed, status: ManagerStatus) -> FeedFigures:
        exchange = feed.spec.exchange
        name, venue = "/".join(feed.key), f"{exchange.name}/{exchange.market}"
        found = FeedFigures(name, venue)
        shards = [str(ShardRef(*feed.key, number)) for number in range(feed.spec.receiver.shards)]
        mine = [service for service in status.services if service.feed == name]
        _capture(found, [service for service in mine if service.role == "receiver"], status.phase)
        _dispatch(found, [service.health for service in mine if service.role == "distributor" and service.health])
        processors = [item.health for item in status.services if item.role == "processor" and item.health]
        self._store(found, shards, processors, status.looked_at)
        if self._gaps is not None:
            found.gaps = sum(self._gaps.get(shard, (0, 0))[0] for shard in shards)
            found.gaps_open = sum(self._gaps.get(shard, (0, 0))[1] for shard in shards)
        if self._letters is not None:
            found.dead_letters = sum(self._letters.get(shard, 0) for shard in shards)
        return found

    def _store(
        self, found: FeedFigures, shards: Sequence[str], documents: Sequence[dict[str, Any]], looked_at: float
    ) -> None:
        own = [
            document["shards"][shard]
            for document in documents
            for shard in shards
            if isinstance((document.get("shards") or {}).get(shard), dict)
        ]
        rows = [item["rows"] for item in own if item.get("rows") is not None]
        found.rows = sum(rows) if rows else None
        rate = self._rates.setdefault(found.feed, _Rate())
        found.rows_per_second = rate.update(looked_at, found.rows)
        lags = [item["lagSeconds"] for item in own if item.get("owned") and item.get("lagSeconds") is not None]
        found.lag_seconds = max(lags) if lags else None
        for document in documents:
            stretches = (document.get("latency") or {}).get(found.venue) or {}
            for since in ("exchange", "receive"):
                latency = stretches.get(f"{since}ToCommit") or {}
                p50 = latency.get("p50Ms")
                # Recorded frames bear the time of their recording: then only receiving says something.
                if p50 is not None and (since == "receive" or p50 < REPLAYED_MS):
                    found.p50_ms, found.p99_ms, found.latency_since = p50, latency["p99Ms"], since
                    break

    async def _ask_database(self) -> None:
        now = time.monotonic()
        if now - self._asked < QUERY_INTERVAL:
            return
        self._asked = now
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await postgres.connect(
                    self.database_url(), name="feedmill-view", timeout=1.0, command_timeout=2.0
                )
            gaps = await self._connection.fetch(_PER_SHARD)
            letters = await self._connection.fetch(_LETTERS)
            accounts = await account_figures.read(self._connection)
        except Exception as error:
            if not postgres.is_retryable(error):
                raise
            self._gaps = self._letters = self._accounts = None
            await self.close()
            return
        self._gaps = {row["shard"]: (row["all"], row["open"]) for row in gaps}
        self._letters = {row["shard"]: row["all"] for row in letters}
        self._accounts = accounts

    async def close(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await postgres.close(self._connection)
        self._connection = None


def _capture(found: FeedFigures, receivers: Sequence[ServiceStatus], phase: str) -> None:
    sections: list[dict[str, Any]] = []
    for receiver in receivers:
        connections = (receiver.health or {}).get("connections")
        if isinstance(connections, dict):
            sections += [item for item in connections.values() if isinstance(item, dict)]
    chosen = [(receiver.health or {}).get("selection") or {} for receiver in receivers]
    counts = [item["instruments"] for item in chosen if item.get("selecting") and item.get("instruments") is not None]
    found.selected = max(counts, default=None)
    waits = [why for receiver in receivers for why in receiver.waiting_for.values()]
    rates = [item["framesPerSecond"] for item in sections if item.get("framesPerSecond") is not None]
    found.frames_per_second = sum(rates) if rates else None
    found.flowing = bool(sections) and all(is_flowing(item) for item in sections)
    troubles = [trouble for item in sections if (trouble := connection_trouble(item)) is not None]
    if troubles:
        found.state = troubles[0]
    elif found.flowing:
        found.state = "flowing"
    elif phase == "draining":
        found.state = "draining"
    elif sections or waits:
        found.state = waits[0] if waits else "connecting"
    elif any(receiver.state in ("backoff", "failed") for receiver in receivers):
        found.state = "receiver is down"


def _dispatch(found: FeedFigures, documents: Sequence[dict[str, Any]]) -> None:
    books = [document["books"] for document in documents if isinstance(document.get("books"), dict)]
    totals = [book["total"] for book in books if book.get("total") is not None]
    valid = [book["valid"] for book in books if book.get("valid") is not None]
    found.books = sum(totals) if totals else None
    found.books_valid = sum(valid) if valid else None
