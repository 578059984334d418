"""The pool's health conditions and sections, and the gauges that are read rather than kept.

Accounts are named where they are few, or something is wrong with them: no more than NAMED of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from feedmill.accounts.hygiene import Level
from feedmill.pool import measures
from feedmill.pool.held import State
from feedmill.pool.manifests import manifests
from feedmill.processor.status import breaker
from feedmill.shared.postgres import remedy_of

if TYPE_CHECKING:
    from feedmill.pool.service import Pool

NAMED = 50


def install(pool: Pool) -> None:
    """Register health conditions and sections."""
    health = pool.health
    health.condition("accounts", lambda: working(pool))
    health.detail("accounts", lambda: accounts(pool))
    health.detail("manifests", lambda: manifests(pool.holdings.held, pool.declaring.refused, pool.mounts))
    health.detail("leases", pool.seats.document)
    health.detail("latency", pool.meter.latencies.document)
    health.detail("redis", lambda: redis(pool))
    health.detail("postgres", lambda: postgres(pool))
    health.detail("breaker", lambda: {"redis": breaker(pool.redis), "postgres": breaker(pool.postgres)})
    health.detail("fleets", pool.fleets.document)
    health.detail("work", lambda: work(pool))
    health.detail("keyFile", lambda: {"error": pool.vault.error})
    measures.slots_held.set_function(lambda: len(pool.holdings.slots))


def working(pool: Pool) -> tuple[bool, str]:
    """The list is known and leases are taken: not that every account is listened to, which the venue may prevent."""
    if not pool.roster.read:
        return False, f"the list of accounts was not read yet{_because(pool.roster.error)}"
    if pool.seats.share.alive is None:
        return False, f"Redis did not answer yet{_because(pool.seats.link.error)}"
    return True, ""


def _because(error: str) -> str:
    return f" ({error})" if error else ""


def accounts(pool: Pool) -> Mapping[str, Any]:
    """Counts of all states, of this member's own accounts; those with a problem by name, and while they are few all."""
    states: Counter[State] = Counter()
    problems: dict[str, dict[str, str]] = {}
    for name, why in pool.declaring.refused.items():
        problems[name] = {"state": State.REFUSED.value, "why": why}
    for name, held in pool.holdings.held.items():
        state = held.state
        states[state] += 1
        why = held.why
        if why and state is not State.DISABLED and len(problems) < NAMED:
            problems[name] = {"state": state.value, "why": why}
    every = pool.holdings.held
    return {
        "known": sum(not each.removed for each in pool.roster.accounts.values()),
        "held": len(every),
        **{state.value: states[state] for state in State},
        "connections": sum(market.lines.connections for market in pool.holdings.markets.values()),
        "states": {name: each.state.value for name, each in every.items()} if len(every) <= NAMED else {},
        "problems": problems,
        "listError": pool.roster.error,
    }


def work(pool: Pool) -> Mapping[str, Any]:
    """What was done since the start, of storing and of each market's distributor; ``error`` empty while all is well."""
    markets = pool.holdings.markets.values()
    return {
        "storing": asdict(pool.worker.figures),
        "distributing": {
            f"{market.key.exchange}/{market.key.market} {market.key.rest}": asdict(market.distributor.figures)
            for market in islice(markets, NAMED)
        },
    }


def count(pool: Pool) -> None:
    """Bring the gauges of states up to date."""
    found: Counter[tuple[str, str, str]] = Counter()
    keys: Counter[str] = Counter()
    for held in pool.holdings.held.values():
        account = held.listed.account
        found[account.exchange, account.market, held.state.value] += 1
        keys[account.verdict] += held.wanted
    for level in Level:
        measures.keys.labels(level.value).set(keys[level.value])
    measures.accounts.clear()
    for labels, number in found.items():
        measures.accounts.labels(*labels).set(number)


def redis(pool: Pool) -> Mapping[str, Any]:
    error = pool.seats.link.error or pool.streams.problem
    return {"reachable": not error, "lastError": error}


def postgres(pool: Pool) -> Mapping[str, Any]:
    """As the storing sees it, and the list where nothing is stored."""
    away = pool.postgres.state != "closed"
    error = pool.postgres.last_error if away else pool.roster.error
    if not error:
        return {"reachable": True if pool.roster.read else None, "lastError": ""}
    return {"reachable": False, "lastError": error, "remedy": remedy_of(error)}
