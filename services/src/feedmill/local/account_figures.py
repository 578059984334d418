"""The accounts in the live view: counts and troubles from the account receivers' health, the rest from one query.

None = not known. Any number of accounts may be there: only the first few are shown by name, and those with a problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

SHOWN = 12
"""Accounts shown by name."""
MANY = 10_000
"""Fills of an account are counted up to here."""
_ACCOUNTS = f"""
SELECT a.namespace || '/' || a.name AS account, a.exchange || '/' || a.market AS venue, a.enabled, a.verdict,
    (SELECT count(*) FROM orders o WHERE o.account_id = a.id AND NOT o.terminal) AS orders_open,
    (SELECT count(*) FROM (SELECT FROM fills f WHERE f.account_id = a.id LIMIT {MANY + 1}) f) AS fills,
    (SELECT max(f.exchange_ns) FROM fills f WHERE f.account_id = a.id) AS last_fill_ns,
    a.accounts, a.all_enabled
FROM (
    SELECT *, count(*) OVER () AS accounts, count(*) FILTER (WHERE enabled) OVER () AS all_enabled
    FROM accounts WHERE removed_at IS NULL ORDER BY namespace, name LIMIT {SHOWN}
) a ORDER BY a.namespace, a.name
"""  # noqa: S608 (constants of this file)
"""Only of those that are shown the orders and fills are counted."""


@dataclass(slots=True)
class AccountFigures:
    """One account."""

    account: str
    venue: str
    state: str = "?"
    """In a word: listening, reconciling, connecting, waiting, refused, disabled, not run; ? = not known."""
    why: str = ""
    """Where the state is none of the good ones."""
    key: str = "unknown"
    """Verdict on what the key may do."""
    orders_open: int | None = None
    fills: int | None = None
    """No more than :data:`MANY` + 1."""
    last_fill_ns: int | None = None


@dataclass(slots=True)
class PoolFigures:
    """All accounts of the database."""

    pool: bool = False
    """Whether account receivers are to run at all."""
    accounts: int | None = None
    enabled: int | None = None
    listening: int | None = None
    reconciling: int | None = None
    refused: int | None = None
    shown: list[AccountFigures] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    """Account -> state, of those the account receivers name: all while they are few, else those with a problem."""
    problems: dict[str, str] = field(default_factory=dict)
    """Account -> why it is not listened to, of those the account receivers name."""

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return self.pool or bool(self.accounts)


@dataclass(slots=True)
class PoolSeen:
    """Where a session puts what it saw last, for its display."""

    figures: PoolFigures = field(default_factory=PoolFigures)


Row = Mapping[str, Any]
Health = Mapping[str, Any] | None
"""What an account receiver said of itself; None = it did not answer."""


async def read(connection: asyncpg.Connection) -> list[Row]:
    """What the database knows of the first accounts."""
    return [dict(row) for row in await connection.fetch(_ACCOUNTS)]


def of(members: Sequence[Health], rows: Sequence[Row] | None) -> PoolFigures:
    """``members``: those that are to run; ``rows``: from :func:`read`, None = the database did not answer. Pure."""
    found = PoolFigures(pool=bool(members))
    states = found.states
    sections = [section for member in members if isinstance(section := (member or {}).get("accounts"), dict)]
    for section in sections:
        states |= section.get("states") or {}
    for section in sections:
        for name, problem in (section.get("problems") or {}).items():
            # An ExchangeAccount whose name is another account's is refused, and the other one listened to.
            states.setdefault(name, str(problem.get("state", "?")))
            found.problems[name] = str(problem.get("why") or "")
    whole = bool(members) and len(sections) == len(members)
    if whole:
        found.listening, found.reconciling, found.refused = (
            sum(section.get(word) or 0 for section in sections) for word in ("listening", "reconciling", "refused")
        )
        found.enabled = sum((section.get("held") or 0) - (section.get("disabled") or 0) for section in sections)
    if rows is None:
        return found
    found.accounts = rows[0]["accounts"] if rows else 0
    found.enabled = rows[0]["all_enabled"] if rows else 0
    # Of many accounts those that are well are not named: where all others are listened to, so is each of them.
    well = found.listening is not None and found.listening >= found.enabled - len(found.problems)
    for row in rows:
        item = AccountFigures(row["account"], row["venue"], key=row["verdict"])
        item.orders_open, item.fills, item.last_fill_ns = row["orders_open"], row["fills"], row["last_fill_ns"]
        if not row["enabled"]:
            item.state = "disabled"
        elif not members:
            item.state = "not run"
        elif item.account in states:
            item.state, item.why = states[item.account], found.problems.get(item.account, "")
        elif well:
            item.state = "listening"
        found.shown.append(item)
    return found
