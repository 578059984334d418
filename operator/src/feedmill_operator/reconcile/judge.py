"""Facts -> findings: what is said of availability, progress, servers and data. Pure.

Messages say what is wrong and what to do. They hold no number that changes from look to look, so that a status is
written when something happens and not because time passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from feedmill_operator.reconcile import troubles
from feedmill_operator.reconcile.answer import Answer, Connection, Server
from feedmill_operator.reconcile.conditions import Finding, by_type, no, unknown, yes
from feedmill_operator.reconcile.facts import Common, FeedFacts, Role, Rollout
from feedmill_operator.reconcile.reasons import Reason, Type
from feedmill_operator.reconcile.troubles import Trouble

Data = Literal["Fresh", "Partial", "Stale", "Unknown", "Suspended"]
_LAGS = ("<1s", "<10s", "<1m", "<10m", ">=10m")


def availability(role: Role, what: str, namespace: str) -> Finding:
    """Whether every shard (or the one Deployment) has a process that is able to work."""
    lacking = [each for each in role.rollouts if each.ready < 1]
    if not lacking:
        one = f"an {what}" if what[0] in "aeiou" else f"a {what}"
        return yes(Reason.AVAILABLE, f"every shard has {one} that is ready" if _sharded(role) else f"{one} is ready")
    trouble = trouble_of(role, lacking) or _said(role, lacking)
    where = _where(lacking, role, what)
    if trouble is not None:
        return no(trouble.reason, f"{where}: {trouble.message}")
    if all(each.complete for each in lacking):
        look = f"see `kubectl -n {namespace} describe deployment {lacking[0].name}`"
        return no(Reason.NOT_READY, f"{where}, though it was: {look}")
    return no(Reason.STARTING, f"{where} yet: its pods are starting")


def _sharded(role: Role) -> bool:
    return any(each.shard is not None for each in role.rollouts)


def _where(lacking: Sequence[Rollout], role: Role, what: str) -> str:
    if len(role.rollouts) == 1:
        return f"no {what} is ready"
    numbers = sorted(each.shard for each in lacking if each.shard is not None)
    shown = ", ".join(str(number) for number in numbers[:10]) + (", …" if len(numbers) > 10 else "")
    return f"no {what} is ready of shard{'s' if len(numbers) > 1 else ''} {shown}"


def trouble_of(role: Role, rollouts: Sequence[Rollout]) -> Trouble | None:
    """The worst thing known of some of a role's rollouts."""
    shards = {each.shard for each in rollouts}
    pods = [pod for pod in role.pods if pod.shard in shards]
    found = troubles.of_pods(pods, role.answers)
    found += [troubles.of_refusal(each.name, each.refused, each.namespace) for each in rollouts if each.refused]
    return troubles.worst(found)


def _said(role: Role, rollouts: Sequence[Rollout]) -> Trouble | None:
    """What the processes themselves give as the reason for not being ready."""
    shards = {each.shard for each in rollouts}
    answers = [role.answers[pod.name] for pod in role.pods if pod.shard in shards and pod.name in role.answers]
    for connection in _connections(answers):
        if connection.cause:
            return _unreachable(connection)
    waiting = sorted({answer.waiting_for for answer in answers if not answer.ready and answer.waiting_for})
    if not waiting:
        return None
    rejected = any(answer.rejected for answer in answers) and "accepted none" in waiting[0]
    return Trouble(Reason.TOPICS_REJECTED if rejected else Reason.NOT_READY, "; ".join(waiting[:3]))


def _connections(answers: Iterable[Answer]) -> list[Connection]:
    return [connection for answer in answers for connection in answer.connections]


def _unreachable(connection: Connection) -> Trouble:
    said = f"{connection.cause}: {connection.detail}" if connection.detail else connection.cause
    remedies = {
        "dns": "check the name (spec.exchange.endpoints) and the cluster's DNS",
        "rate_limited": "the venue limits this address: wait, and let pipelines that share it name one spec.egress",
        "tls": "check the certificate, or what intercepts TLS on the way out",
    }
    remedy = remedies.get(
        connection.cause,
        "check that pods may connect to it (NetworkPolicy, firewall, proxy) and spec.exchange.endpoints",
    )
    return Trouble(
        Reason.EXCHANGE_UNREACHABLE, f"the exchange cannot be reached at {connection.host} ({said}): {remedy}"
    )


def rolling(role: Role, *, settled: bool) -> list[Rollout]:
    """Rollouts that are not finished. ``settled``: this generation was carried out before; a pod lost since then is a
    matter of availability and no rollout."""
    return [each for each in role.rollouts if not _finished(each, settled=settled)]


def _finished(rollout: Rollout, *, settled: bool) -> bool:
    if not (rollout.exists and rollout.current):
        return False
    if settled and rollout.complete and rollout.updated >= rollout.wanted:
        return True
    return rollout.replicas == rollout.updated == rollout.wanted and rollout.ready >= rollout.wanted


def progress(facts: Common, roles: Sequence[tuple[str, Role]]) -> Finding:
    """Whether something is on its way to what the spec says."""
    if facts.refusal is not None:
        return no(Reason.NOT_ACCEPTED, "nothing is changed until it is accepted")
    if facts.paused:
        return no(Reason.PAUSED, "nothing is changed while it is paused")
    if facts.problems:
        worst = facts.problems[0]
        return no(worst.reason, worst.message)
    if facts.failure:
        return yes(Reason.RECONCILE_FAILED, f"{facts.failure}: tried again by itself")
    if facts.suspended:
        left = sum(not pod.deleting or pod.phase == "Running" for _, role in roles for pod in role.pods)
        return (
            yes(Reason.ROLLING_OUT, "its pods are being stopped") if left else no(Reason.SUSPENDED, "it is suspended")
        )
    settled = was_settled(facts)
    for what, role in roles:
        unfinished = rolling(role, settled=settled)
        if unfinished:
            return _rolling_out(what, role, unfinished)
    return _configuration(facts, roles)


def was_settled(facts: Common) -> bool:
    """The last status says that this generation is carried out."""
    before = by_type(facts.before.get("conditions") or ()).get(Type.PROGRESSING, {})
    return before.get("status") == "False" and before.get("reason") == Reason.RECONCILED and _at(before, facts)


def was_ready(facts: Common) -> bool:
    """The last status says that this generation is ready."""
    before = by_type(facts.before.get("conditions") or ()).get(Type.READY, {})
    return before.get("status") == "True" and _at(before, facts)


def _at(condition: Mapping[str, Any], facts: Common) -> bool:
    return condition.get("observedGeneration") == facts.generation


def _rolling_out(what: str, role: Role, unfinished: Sequence[Rollout]) -> Finding:
    trouble = trouble_of(role, unfinished)
    stalled = next((each for each in unfinished if each.stalled), None)
    if trouble is not None:
        return (no if stalled else yes)(
            Reason.ROLLOUT_STALLED if stalled else trouble.reason, f"the {what}s are rolled out: {trouble.message}"
        )
    if stalled is not None:
        look = f"see `kubectl -n {stalled.namespace} describe deployment {stalled.name}`"
        return no(Reason.ROLLOUT_STALLED, f"{stalled.name} makes no progress: {stalled.stalled}: {look}")
    return yes(Reason.ROLLING_OUT, f"the {what}s are rolled out")


def acknowledged(facts: Common, roles: Sequence[tuple[str, Role]]) -> tuple[int, int, int, str]:
    """(pods that take the configuration, pods that work with it, pods that work with another, the first error)."""
    pods = works = other = 0
    error = ""
    for _, role in roles:
        for pod in sorted(role.pods, key=lambda each: each.name):
            if not pod.running:
                continue
            pods += 1
            answer = role.answers.get(pod.name)
            if answer is None or not answer.config_hash:
                continue
            if answer.config_hash == (role.config_hash or facts.config_hash):
                works += 1
            else:
                other += 1
                if answer.config_error and not error:
                    error = f"pod {pod.name}: {answer.config_error}"
    return pods, works, other, error


def _configuration(facts: Common, roles: Sequence[tuple[str, Role]]) -> Finding:
    _, _, other, error = acknowledged(facts, roles)
    if error:
        return yes(Reason.CONFIG_REJECTED, f"the new configuration is not taken, the last one stays in force: {error}")
    if other:
        return yes(Reason.CONFIG_PENDING, "the new configuration is on its way to the pods (see status.config)")
    return no(Reason.RECONCILED, "everything is as the spec says")


def server(name: str, roles: Iterable[Role], managed: Role | None, namespace: str) -> Finding:
    """Whether Redis or PostgreSQL is reachable, by those who use it and by the server itself where it is ours."""
    if managed is not None:
        lacking = [each for each in managed.rollouts if each.ready < 1]
        if lacking:
            trouble = trouble_of(managed, lacking)
            if trouble is not None:
                return no(Reason.SERVER_NOT_READY, f"the managed {name} is not ready: {trouble.message}")
            look = f"see `kubectl -n {namespace} describe statefulset {lacking[0].name}`"
            return no(Reason.SERVER_NOT_READY, f"the managed {name} is not ready yet: {look}")
    field = "redis" if name == "Redis" else "postgres"
    answers = [role.answers[pod.name] for role in roles for pod in role.pods if pod.name in role.answers]
    seen: list[Server] = [getattr(answer, field) for answer in answers]
    known = [each for each in seen if each.reachable is not None]
    if not known:
        return unknown(Reason.NOBODY_ANSWERED, f"no process has said whether it reaches {name}")
    away = [each for each in known if not each.reachable]
    if not away:
        return yes(Reason.REACHABLE, f"the processes reach {name}")
    problem = next((each.problem for each in sorted(away, key=lambda each: each.problem) if each.problem), "")
    said = f": {problem}" if problem else ""
    if len(away) < len(known):
        return yes(Reason.REACHABLE, f"some processes do not reach {name}{said}")
    reason = Reason.BREAKER_OPEN if any(each.breaker == "open" for each in away) else Reason.UNREACHABLE
    return no(
        reason, f"no process reaches {name}{said}: check that it runs, the URL in its Secret, and NetworkPolicies"
    )


def data(facts: FeedFacts) -> tuple[Finding, Data]:
    """Whether data flows from the exchange, by what the receivers say; and the word for it."""
    if facts.suspended and not facts.receiver.pods:
        return no(Reason.SUSPENDED, "the feed is suspended: no data is received"), "Suspended"
    shards = sorted({each.shard for each in facts.receiver.rollouts if each.shard is not None})
    states = {shard: _shard_data(facts.receiver, shard) for shard in shards}
    stale = {shard: found for shard, (fresh, found) in states.items() if fresh is False}
    fresh = [shard for shard, (state, _) in states.items() if state]
    if stale:
        shard, trouble = min(stale.items())
        assert trouble is not None
        prefix = f"shard {shard}: " if len(shards) > 1 else ""
        return no(trouble.reason, prefix + trouble.message), "Partial" if fresh else "Stale"
    unsure = [shard for shard, (state, _) in states.items() if state is None]
    if unsure or not shards:
        return unknown(Reason.NOBODY_ANSWERED, "no receiver has said yet whether data flows"), "Unknown"
    refused = rejected(facts)
    if refused:
        shown = ", ".join(refused[:5]) + (", …" if len(refused) > 5 else "")
        message = (
            f"the venue refused {shown}: check that the instruments exist there and are traded, and take those that do "
            "not out of spec.instruments.symbols; the others flow"
        )
        return no(Reason.TOPICS_REJECTED, message), "Partial"
    quiet = sorted({topic for shard in shards for topic in _silent(facts.receiver, shard)})
    if quiet:
        shown = ", ".join(quiet[:5]) + (", …" if len(quiet) > 5 else "")
        message = (
            f"no data of {shown} for far longer than is usual of it, while others flow; it is subscribed anew "
            "from time to time: check that the instrument is traded now"
        )
        return no(Reason.STALE, message), "Partial"
    return yes(Reason.FRESH, "data flows on every connection"), "Fresh"


def _silent(role: Role, shard: int) -> set[str]:
    """Topics that all receivers of the shard miss."""
    answers = [role.answers[pod.name] for pod in role.pods if pod.shard == shard and pod.name in role.answers]
    found = [
        {topic for each in answer.connections for topic in each.silent} for answer in answers if answer.connections
    ]
    return set.intersection(*found) if found else set()


def _shard_data(role: Role, shard: int) -> tuple[bool | None, Trouble | None]:
    """By the best of its receivers. None = nobody can say."""
    answers = [role.answers[pod.name] for pod in role.pods if pod.shard == shard and pod.name in role.answers]
    told = [answer for answer in answers if answer.connections]
    if any(all(connection.fresh for connection in answer.connections) for answer in told):
        return True, None
    stale = [each for each in _connections(told) if each.fresh is False]
    # One receiver that is young yet may turn out well.
    if not stale or any(all(each.fresh is not False for each in answer.connections) for answer in told):
        return None, None
    failed = next((each for each in stale if each.cause), None)
    if failed is not None:
        return False, _unreachable(failed)
    silent = min(stale, key=lambda each: each.name)
    return False, Trouble(
        Reason.STALE,
        f"connection {silent.name} is open and has had no data for more than {silent.age}: check that the instruments "
        "are traded now",
    )


def rejected(facts: FeedFacts) -> list[str]:
    """Topics the venue refused, sorted."""
    return sorted({topic for answer in facts.receiver.answers.values() for topic in answer.rejected})


def lag(role: Role) -> str | None:
    """The longest of the shards'; None unless it is known of every one."""
    shards = {each.shard for each in role.rollouts}
    found: list[str] = []
    for shard in shards:
        answers = [role.answers[pod.name] for pod in role.pods if pod.shard == shard and pod.name in role.answers]
        working = [answer.lag for answer in answers if not answer.standby]
        known = [each for each in working if each is not None]
        if not known or len(known) < len(working):
            return None
        found.append(max(known, key=_LAGS.index))
    return max(found, key=_LAGS.index, default=None)
