"""What account receivers say of accounts in ``/health``, in steps coarse enough to be compared. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from feedmill_operator.reconcile.reading import mapping, number, words

MOST = 2000
"""Accounts that are read of one process."""
LONGEST = 600
_STATES = ("Listening", "Reconciling", "Connecting", "Waiting", "Refused", "Disabled", "Suspended")
"""The better ones first: of two members the one that took over tells how it is, not the one that gave up."""
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?=:\d{2}(\.\d+)?(Z|\+00:00)$)")


@dataclass(frozen=True, slots=True)
class AccountSaid:
    """Of one account."""

    state: str = ""
    """One of the words above; empty = it did not say."""
    reason: str = ""
    message: str = ""
    last_fill: str = ""
    """RFC 3339, whole minutes: an account that trades all the time is news once a minute."""
    key: str = ""
    """What was found of its key: ok, warning, refused; empty = nothing."""
    warning: str = ""
    current: bool = False
    """By one who works with the newest configuration."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the accounts a member holds, those of the credential store included."""

    enabled: int = 0
    listening: int = 0
    refused: int = 0


def read_accounts(section: Any) -> dict[str, AccountSaid]:
    """By ``namespace/name``."""
    found = sorted(mapping(section).items())[:MOST]
    return {str(name): _account(mapping(item)) for name, item in found if isinstance(item, Mapping)}


def _account(item: Mapping[str, Any]) -> AccountSaid:
    state, key = words(item.get("state")).capitalize(), words(item.get("key"))
    minute = _TIME.match(words(item.get("lastFill")))
    return AccountSaid(
        state=state if state in _STATES else "",
        reason=words(item.get("reason"), 64),
        message=words(item.get("message"), LONGEST),
        last_fill=f"{minute[0]}:00Z" if minute else "",
        key=key if key in ("ok", "warning", "refused") else "",
        warning=words(item.get("warning"), LONGEST),
    )


def read_counts(section: Any) -> Counts | None:
    """None where there are none."""
    found = mapping(section)
    states = {state: number(found.get(state.lower())) for state in _STATES}
    if states["Listening"] is None:
        return None
    count = {state: int(value or 0) for state, value in states.items()}
    listening = count["Listening"] + count["Reconciling"]
    others = count["Connecting"] + count["Waiting"] + count["Refused"]
    return Counts(listening + others, listening, count["Refused"])


def best(said: Iterable[AccountSaid]) -> AccountSaid | None:
    """Of what several members say of one account; while accounts move two may have a word, or none."""
    known = [each for each in said if each.state]
    if not known:
        return None
    return min(known, key=lambda each: (not each.current, _STATES.index(each.state), each.message, each.last_fill))
