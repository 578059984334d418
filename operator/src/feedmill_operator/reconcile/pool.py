"""The account receivers of a pipeline, as its ExchangeAccounts and its own status need them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from feedmill_operator.reconcile.account_said import AccountSaid, Counts, best
from feedmill_operator.reconcile.conditions import Finding, no
from feedmill_operator.reconcile.facts import PoolView, Role
from feedmill_operator.reconcile.reasons import Reason

WHAT = "account receiver"


def view(
    role: Role | None,
    available: Finding | None,
    pipeline: str,
    generations: Mapping[str, int] | None = None,
    *,
    awaited: bool = False,
) -> PoolView:
    """``available``: what their pipeline says of them. None: there are none, since nobody asks for any."""
    if role is None or available is None:
        return PoolView()
    if available.reason is Reason.SUSPENDED:
        return PoolView(no(Reason.SUSPENDED, f"its FeedPipeline {pipeline} is suspended (spec.suspend)"))
    heard: dict[str, list[AccountSaid]] = {}
    for _, answer in sorted(role.answers.items()):
        current = bool(role.config_hash) and answer.config_hash == role.config_hash
        for name, said in answer.manifests.items():
            heard.setdefault(name, []).append(replace(said, current=current))
    chosen = ((name, best(told)) for name, told in sorted(heard.items()))
    known = {name: found for name, found in chosen if found is not None}
    return PoolView(None if available.holds else available, known, generations or {}, awaited)


def counts(role: Role) -> Counts | None:
    """Of all accounts together; None unless every member that works has said."""
    told = [role.answers.get(pod.name) for pod in role.pods if pod.ready]
    known = [answer.accounts for answer in told if answer is not None and answer.accounts is not None]
    if not known or len(known) < len(told):
        return None
    return Counts(
        sum(each.enabled for each in known), sum(each.listening for each in known), sum(each.refused for each in known)
    )
