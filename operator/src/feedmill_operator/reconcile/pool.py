"""The account receivers of a pipeline, as its ExchangeAccounts and its own status need them. Pure."""

from __future__ import annotations

from dataclasses import replace

from feedmill_operator.reconcile import judge
from feedmill_operator.reconcile.account_said import AccountSaid, Counts, best
from feedmill_operator.reconcile.conditions import Finding, no
from feedmill_operator.reconcile.facts import PoolView, Role
from feedmill_operator.reconcile.reasons import Reason

WHAT = "account receiver"


def view(role: Role | None, namespace: str, pipeline: str, *, suspended: bool) -> PoolView:
    """``role`` None: there are none, since nobody asks for any."""
    if suspended:
        look = f"see `kubectl -n {namespace} get fpl {pipeline}`"
        return PoolView(no(Reason.SUSPENDED, f"its FeedPipeline {pipeline} is suspended (spec.suspend): {look}"))
    if role is None:
        return PoolView()
    heard: dict[str, list[AccountSaid]] = {}
    for _, answer in sorted(role.answers.items()):
        current = bool(role.config_hash) and answer.config_hash == role.config_hash
        for name, said in answer.manifests.items():
            heard.setdefault(name, []).append(replace(said, current=current))
    chosen = {name: best(told) for name, told in sorted(heard.items())}
    return PoolView(_trouble(role, namespace), {name: said for name, said in chosen.items() if said is not None})


def _trouble(role: Role, namespace: str) -> Finding | None:
    found = judge.availability(role, WHAT, namespace)
    return None if found.holds else no(found.reason, found.message)


def counts(role: Role) -> Counts | None:
    """Of all accounts together; None unless every member that works has said."""
    told = [role.answers.get(pod.name) for pod in role.pods if pod.ready]
    known = [answer.accounts for answer in told if answer is not None and answer.accounts is not None]
    if not known or len(known) < len(told):
        return None
    return Counts(
        sum(each.enabled for each in known), sum(each.listening for each in known), sum(each.refused for each in known)
    )
