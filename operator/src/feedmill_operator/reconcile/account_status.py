"""Facts of an ExchangeAccount -> its ``status``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedmill_operator.reconcile.account_said import AccountSaid
from feedmill_operator.reconcile.conditions import Finding, by_type, conditions, no, unknown, yes
from feedmill_operator.reconcile.facts import AccountFacts
from feedmill_operator.reconcile.reasons import Reason, Type

_UNACCEPTED = {
    "NameTaken": Reason.NAME_TAKEN,
    "SecretInvalid": Reason.SECRET_INVALID,
    "NotSupported": Reason.EXCHANGE_UNKNOWN,
}
"""What only the processes find out of an account itself."""
_UNHEARD = {
    "RefusedByVenue": Reason.REFUSED_BY_VENUE,
    "MayWithdraw": Reason.MAY_WITHDRAW,
    "ConnectionLimit": Reason.CONNECTION_LIMIT,
    "ExchangeUnreachable": Reason.EXCHANGE_UNREACHABLE,
}
"""Why it is not listened to."""
_SAID = frozenset({Reason.LISTENING, Reason.RECONCILING, Reason.CONNECTING, Reason.SECRET_PENDING, *_UNHEARD.values()})
"""Reasons of Listening that come from the processes' own words."""
_PENDING = (
    "its Secret is not in the pods yet: the kubelet brings it there within about a minute (`kubectl feedmill reload "
    "pipeline/NAME` hastens it)"
)


def account_status(facts: AccountFacts, now: str) -> dict[str, Any]:
    """The whole status. ``now``: RFC 3339."""
    said, kept = _counts(facts), _kept(facts)
    accepted = _accepted(facts, said)
    listening = kept.get(Type.LISTENING) or _listening(facts, said)
    findings = {
        Type.READY: _ready(facts, accepted, listening),
        Type.ACCEPTED: accepted,
        Type.LISTENING: listening,
        Type.KEY_SOUND: kept.get(Type.KEY_SOUND) or _key(said),
        Type.SUSPENDED: _suspended(facts),
    }
    status = {
        "observedGeneration": facts.generation,
        "conditions": conditions(findings, facts.before.get("conditions") or (), facts.generation, now),
        "state": facts.before.get("state") if kept else _state(facts, accepted, said),
        "lastFill": _last_fill(facts),
    }
    return {name: value for name, value in status.items() if value is not None}


def _counts(facts: AccountFacts) -> AccountSaid | None:
    """What was said, if it is of the spec as it is now: by one who has it, or after somebody who had it has spoken."""
    said = facts.said
    if said is None or said.current:
        return said
    last: Mapping[str, Any] = by_type(facts.before.get("conditions") or ()).get(Type.LISTENING, {})
    return said if last.get("reason") in _SAID and last.get("observedGeneration") == facts.generation else None


def _kept(facts: AccountFacts) -> dict[Type, Finding]:
    """What was said last counts on while nobody was asked: an operator that has just begun takes nothing back."""
    blocked = facts.refusal is not None or facts.suspended or facts.trouble is not None
    if facts.said is not None or not facts.awaited or blocked:
        return {}
    last = by_type(facts.before.get("conditions") or ())
    if last.get(Type.LISTENING, {}).get("reason") not in _SAID:
        return {}
    kept = {}
    for kind in (Type.LISTENING, Type.KEY_SOUND):
        found = last.get(kind, {})
        if found.get("observedGeneration") != facts.generation or found.get("reason") not in set(Reason):
            return {}
        kept[kind] = Finding(found["status"], Reason(found["reason"]), str(found.get("message", "")))
    return kept


def _accepted(facts: AccountFacts, said: AccountSaid | None) -> Finding:
    if facts.refusal is not None:
        return no(facts.refusal.reason, facts.refusal.message)
    if said is not None and said.state == "Refused" and said.reason in _UNACCEPTED:
        return no(_UNACCEPTED[said.reason], said.message)
    return yes(Reason.VALID, "the spec can be carried out")


def _listening(facts: AccountFacts, said: AccountSaid | None) -> Finding:
    # What still listens is told whatever stands in the spec by now; but nothing can be, where no process is.
    if facts.trouble is not None:
        return no(facts.trouble.reason, facts.trouble.message)
    if said is not None and said.state in ("Listening", "Reconciling"):
        return _heard(facts, said)
    if facts.suspended:
        return no(Reason.SUSPENDED, "it is suspended (spec.suspend)")
    if facts.refusal is not None:
        return no(Reason.NOT_ACCEPTED, "it is not listened to until it is accepted")
    if said is None:
        if facts.said is not None:
            return unknown(Reason.CONFIG_PENDING, "the present spec is on its way to the account receivers")
        return unknown(Reason.NOBODY_ANSWERED, "no account receiver has said anything about it yet")
    return _unheard(said)


def _heard(facts: AccountFacts, said: AccountSaid) -> Finding:
    if facts.suspended:
        return yes(Reason.LISTENING, "it is still listened to: the suspension is on its way to the account receivers")
    if said.state == "Reconciling":
        return yes(Reason.RECONCILING, "it is listened to; what happened before is being asked for")
    return yes(Reason.LISTENING, "orders, fills, balances and positions are heard")


def _unheard(said: AccountSaid) -> Finding:
    if said.reason in _UNACCEPTED:
        return no(Reason.NOT_ACCEPTED, "it is not listened to until it is accepted")
    if said.reason == "SecretMissing":
        return no(Reason.SECRET_PENDING, _PENDING)
    if said.reason in _UNHEARD:
        return no(_UNHEARD[said.reason], said.message)
    if said.state == "Refused":
        return no(Reason.REFUSED_BY_VENUE, said.message)
    return no(Reason.CONNECTING, said.message or "the connection is being made")


def _key(said: AccountSaid | None) -> Finding:
    if said is None or not said.key:
        return unknown(Reason.NOBODY_ANSWERED, "the exchange has not said yet what the key may do")
    if said.key == "ok":
        return yes(Reason.NOTHING_FOUND, "the key can neither withdraw nor is anything else known against it")
    if said.key == "warning":
        return no(Reason.KEY_WARNING, said.warning)
    if said.state != "Refused":
        return unknown(Reason.NOBODY_ANSWERED, "the exchange is asked again what the key may do")
    return no(_UNHEARD.get(said.reason, Reason.REFUSED_BY_VENUE), said.message)


def _ready(facts: AccountFacts, accepted: Finding, listening: Finding) -> Finding:
    if not accepted.holds:
        return accepted
    if facts.suspended:
        return no(Reason.SUSPENDED, "it is suspended (spec.suspend)")
    return listening


def _suspended(facts: AccountFacts) -> Finding:
    if facts.suspended:
        return yes(Reason.SUSPENDED, "the account is suspended: set spec.suspend to false to go on")
    return no(Reason.NOT_SUSPENDED)


def _state(facts: AccountFacts, accepted: Finding, said: AccountSaid | None) -> str:
    """The word for ``kubectl get``."""
    if facts.suspended:
        return "Suspended"
    if not accepted.holds:
        return "Refused"
    if facts.trouble is not None or said is None:
        return "Unknown" if facts.trouble is None else "Stopped"
    return "Connecting" if said.state in ("Waiting", "Disabled", "Suspended") else said.state


def _last_fill(facts: AccountFacts) -> str | None:
    """A member that has just begun may not know of any yet."""
    known = [facts.before.get("lastFill"), facts.said.last_fill if facts.said is not None else ""]
    return max((str(each) for each in known if each), default=None)
