"""Accounts at venues that count the connections of an address: which have a place, and which must wait. Pure.

Every member of a pool, and whoever lists accounts, comes to the same answer from the same rows: the accounts that were
added first have the places, so an account more takes none from those that are listened to.
"""

from __future__ import annotations

from collections.abc import Iterable

from feedmill.accounts.store import Account
from feedmill.exchanges.registry import UnknownVenue, get_venue


def without_place(accounts: Iterable[Account]) -> dict[str, str]:
    """``namespace/name`` -> why, of those enabled ones that are more than their venue's connections."""
    found: dict[str, str] = {}
    taken: dict[tuple[str, str], int] = {}
    for account in sorted(accounts, key=lambda each: each.id):
        places = _places(account)
        if not account.enabled or not places:
            continue
        where = account.exchange, account.environment
        taken[where] = taken.get(where, 0) + 1
        if taken[where] > places:
            found[str(account.name)] = (
                f"{account.exchange} counts the connections of an address, and {places} are for accounts, one each: "
                f"this is number {taken[where]}. Disable another one (feedmill accounts disable), or move this one to "
                "a pipeline behind another address (spec.egress)"
            )
    return found


def _places(account: Account) -> int:
    """0 = as many as there are."""
    try:
        venue = get_venue(account.exchange, account.market)
    except UnknownVenue:
        return 0
    return venue.accounts.places if venue.accounts is not None else 0
