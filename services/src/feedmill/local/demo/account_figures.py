"""What the stored data says of accounts: orders by state, fills, balances, what happened last. Small questions, asked
again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg

from feedmill.shared import postgres

OPEN = frozenset(("new", "partially_filled"))
"""States in which an order can still be filled."""
LATEST = 6
"""Changes of orders that are kept for show."""

_ACCOUNTS = """
SELECT id, name, exchange || '/' || market AS venue, namespace || '.@' || name || '.0' AS shard
FROM accounts WHERE removed_at IS NULL ORDER BY namespace, name"""
_ORDERS = "SELECT account_id, status, count(*) AS found FROM orders GROUP BY 1, 2"
_IN_PARTS = """
SELECT o.account_id, count(*) AS found FROM orders o WHERE o.filled > 0 AND (o.filled < o.size OR 1 < (
    SELECT count(*) FROM fills f
    WHERE (f.account_id, f.instrument_id, f.order_id) = (o.account_id, o.instrument_id, o.order_id)))
GROUP BY 1"""
_FILLS = "SELECT account_id, count(*) AS found FROM fills GROUP BY 1"
_BALANCES = "SELECT account_id, asset, total FROM balances WHERE total <> 0 ORDER BY asset"
_GAPS = """
SELECT shard, count(*) AS found, count(*) FILTER (WHERE state = 'open') AS open, max(to_ns) FILTER (
    WHERE state = 'closed') AS closed_ns FROM gaps WHERE channel = 'Account' GROUP BY 1"""
_LATEST = """
SELECT a.exchange, to_char(h.time AT TIME ZONE 'UTC', 'HH24:MI:SS') AS at, i.symbol, h.side, h.type, h.price, h.size,
       h.filled, h.status
FROM order_history h JOIN accounts a ON a.id = h.account_id JOIN instruments i ON i.id = h.instrument_id
ORDER BY h.id DESC LIMIT $1"""


@dataclass(slots=True)
class AccountFigures:
    name: str
    venue: str
    orders: dict[str, int] = field(default_factory=dict)
    """Status -> how many."""
    in_parts: int = 0
    """Orders that were filled by more than one fill, or are filled in part."""
    fills: int = 0
    balances: dict[str, Decimal] = field(default_factory=dict)
    gaps: int = 0
    gaps_open: int = 0
    closed_ns: int = 0
    """Until when the latest gap that was closed went."""

    @property
    def open_orders(self) -> int:
        return sum(self.orders.get(status, 0) for status in OPEN)

    @property
    def flowing(self) -> bool:
        """Listened to, and what was before is known."""
        return self.gaps > 0 and not self.gaps_open

    def as_dict(self) -> dict[str, Any]:
        return {
            "account": self.name,
            "venue": self.venue,
            "orders": dict(sorted(self.orders.items())),
            "ordersInParts": self.in_parts,
            "fills": self.fills,
            "balances": {asset: format(total, "f") for asset, total in self.balances.items()},
            "gaps": self.gaps,
            "openGaps": self.gaps_open,
        }


@dataclass(slots=True)
class OrderChange:
    """One state that an order came to."""

    exchange: str
    at: str
    """Time of day, UTC."""
    symbol: str
    side: int
    type: str
    price: Decimal | None
    size: Decimal | None
    filled: Decimal
    status: str


@dataclass(slots=True)
class AccountsSeen:
    accounts: list[AccountFigures] = field(default_factory=list)
    latest: list[OrderChange] = field(default_factory=list)
    """Newest first."""


async def look(connection: asyncpg.Connection) -> AccountsSeen:
    """As of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found: dict[int, AccountFigures] = {}
        shards: dict[str, AccountFigures] = {}
        for row in await connection.fetch(_ACCOUNTS):
            shards[row["shard"]] = found[row["id"]] = AccountFigures(row["name"], row["venue"])
        for row in await connection.fetch(_ORDERS):
            found[row["account_id"]].orders[row["status"]] = row["found"]
        for row in await connection.fetch(_IN_PARTS):
            found[row["account_id"]].in_parts = row["found"]
        for row in await connection.fetch(_FILLS):
            found[row["account_id"]].fills = row["found"]
        for row in await connection.fetch(_BALANCES):
            found[row["account_id"]].balances[row["asset"]] = row["total"]
        for row in await connection.fetch(_GAPS):
            account = shards.get(row["shard"])
            if account is not None:
                account.gaps, account.gaps_open = row["found"], row["open"]
                account.closed_ns = row["closed_ns"] or 0
        latest = [OrderChange(**dict(row)) for row in await connection.fetch(_LATEST, LATEST)]
    return AccountsSeen(list(found.values()), latest)


class Watch:
    """Keeps ``seen`` up to date while it runs. A database that is away is no reason to end."""

    def __init__(self, every: float = 0.5) -> None:
        self.seen = AccountsSeen()
        self._every = every

    async def run(self, database_url: Callable[[], str]) -> None:
        """Until it is cancelled. ``database_url``: as it is when a connection is made."""
        connection: asyncpg.Connection | None = None
        try:
            while True:
                try:
                    if connection is None or connection.is_closed():
                        connection = await postgres.connect(
                            database_url(), name="feedmill-demo-view", timeout=1.0, command_timeout=2.0
                        )
                    self.seen = await look(connection)
                except Exception as error:
                    if not postgres.is_retryable(error):
                        raise
                await asyncio.sleep(self._every)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await postgres.close(connection)
