"""How each ExchangeAccount is, for whoever shows it: the operator writes its status by this section of ``/health``.

ExchangeAccounts are few, so all of them are named, unlike the accounts of the credential store. No secret is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from feedmill.accounts.declared import is_declared
from feedmill.accounts.hygiene import MAY_WITHDRAW, Level
from feedmill.pool.held import Held, State
from feedmill.pool.mounts import Mounts
from feedmill.shared.clock import SECOND

MOST = 1000
LONGEST = 300
"""Characters of a text: the whole section stays below a MiB."""


class Why(StrEnum):
    """Words for programs; docs/conditions.md explains them by the operator's reasons."""

    NAME_TAKEN = "NameTaken"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - a reason
    NOT_SUPPORTED = "NotSupported"
    MAY_WITHDRAW = "MayWithdraw"
    REFUSED_BY_VENUE = "RefusedByVenue"
    CONNECTION_LIMIT = "ConnectionLimit"


def manifests(held: Mapping[str, Held], refused: Mapping[str, str], mounts: Mounts) -> dict[str, dict[str, Any]]:
    """By ``namespace/name``: those whose slot this member holds, and those that nobody can have (``refused``)."""
    found = {name: {"state": State.REFUSED.value, "reason": Why.NAME_TAKEN.value, "message": _cut(why)}
             for name, why in refused.items()}  # fmt: skip
    for name, each in held.items():
        # One of that name in the credential store is another account.
        if is_declared(each.listed.account) and name not in found:
            found[name] = _one(each, mounts)
    return dict(sorted(found.items())[:MOST])


def _one(held: Held, mounts: Mounts) -> dict[str, Any]:
    account = held.listed.account
    state, reason, message = held.state, _reason(held, mounts), held.why or held.placeless
    if reason is Why.SECRET_MISSING:
        state = State.WAITING
    warning = account.verdict_detail if account.verdict == Level.WARNING.value else ""
    if held.given and (unusable := mounts.error_of(held.name)):
        warning = f"the changed Secret cannot be used, the former keys stay in use: {unusable}"
    return {
        "state": state.value,
        "reason": reason.value if reason is not None else "",
        "message": _cut(message),
        "key": account.verdict,
        "warning": _cut(warning),
        "lastFill": _time(held.last_fill_ns),
    }


def _reason(held: Held, mounts: Mounts) -> Why | None:
    """None where there is nothing to say, or nothing that the user could do."""
    if held.placeless:
        return Why.CONNECTION_LIMIT
    if held.state is not State.REFUSED:
        return None
    if held.given:
        return Why.REFUSED_BY_VENUE
    if held.market is None:
        return Why.NOT_SUPPORTED
    if mounts.version(held.name) <= 0:
        return Why.SECRET_INVALID if mounts.is_invalid(held.name) else Why.SECRET_MISSING
    return Why.MAY_WITHDRAW if held.problem.startswith(MAY_WITHDRAW) else Why.REFUSED_BY_VENUE


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _time(ns: int) -> str | None:
    """RFC 3339, None = no fill is known."""
    return datetime.fromtimestamp(ns // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ns else None
