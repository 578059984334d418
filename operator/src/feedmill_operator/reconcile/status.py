"""Facts -> ``status``, and what of it is worth a write. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from feedmill_operator.reconcile import backup_health, judge, pool
from feedmill_operator.reconcile.conditions import Finding, by_type, conditions, no, yes
from feedmill_operator.reconcile.facts import Common, FeedFacts, Migration, PipelineFacts, Role
from feedmill_operator.reconcile.reasons import Reason, Type

Findings = dict[Type, Finding]
MOST_REJECTED = 20
_LIVE = ("lag", "lastFill", "progress")
"""Fields that follow the load and not an event."""
_COUNTS = (
    "receiver", "distributor", "processor", "accounts", "config", "feeds", "rejected", "instruments", "data", "message",
    "backup",
)  # fmt: skip
"""Fields that a rollout or a run moves many times on its way."""


class Change(IntEnum):
    """How much a new status differs from the written one."""

    NONE = 0
    LIVE = 1
    """Numbers that are coarse and may be late."""
    MINOR = 2
    """Counts of pods, a condition that got better on the way to Ready, words."""
    MAJOR = 3
    """What somebody may wait for, or must know at once."""


def feed_findings(facts: FeedFacts) -> Findings:
    """All conditions of an ExchangeFeed, in the order they are shown."""
    namespace = _namespace(facts.receiver)
    roles = (("receiver", facts.receiver), ("distributor", facts.distributor))
    receiver = _available(facts, facts.receiver, "receiver", namespace)
    distributor = _available(facts, facts.distributor, "distributor", namespace)
    redis = judge.server("Redis", (facts.receiver, facts.distributor), None, namespace)
    progress = judge.progress(facts, roles)
    ready = _blocked(facts) or _first_failure(receiver, distributor) or _reachable(redis) or _in_force(facts, progress)
    found: Findings = {
        Type.READY: ready
        or yes(Reason.ALL_AVAILABLE, "every shard is received and distributed; see DataFresh for data"),
        Type.ACCEPTED: _accepted(facts),
        Type.PROGRESSING: progress,
        Type.RECEIVER_AVAILABLE: receiver,
        Type.DISTRIBUTOR_AVAILABLE: distributor,
        Type.REDIS_REACHABLE: redis,
        Type.DATA_FRESH: judge.data(facts)[0],
    }
    return found | _wanted(facts, "feed")


def pipeline_findings(facts: PipelineFacts, now: str) -> Findings:
    """All conditions of a FeedPipeline, in the order they are shown. ``now``: RFC 3339."""
    namespace = _namespace(facts.processor)
    managed = (("managed Redis", facts.redis), ("managed PostgreSQL", facts.postgres))
    listens = [(pool.WHAT, facts.accounts)] if facts.accounts is not None else []
    working = [("processor", facts.processor), *listens]
    roles = [*working, *((what, role) for what, role in managed if role is not None)]
    processor = _migrated(facts, facts.processor, "processor", namespace)
    receivers = {}
    if facts.accounts is not None:
        receivers[Type.ACCOUNTS_AVAILABLE] = _migrated(facts, facts.accounts, pool.WHAT, namespace)
    notifier = {}
    if facts.notifier is not None:
        notifier[Type.NOTIFIER_AVAILABLE] = _migrated(facts, facts.notifier, "notifier", namespace)
    redis = judge.server("Redis", [role for _, role in working], facts.redis, namespace)
    postgres = judge.server("PostgreSQL", [role for _, role in working], facts.postgres, namespace)
    progress = _pipeline_progress(facts, roles)
    servers = [each for each in (redis, postgres) if each.fails and each.reason is Reason.SERVER_NOT_READY]
    ready = (
        _blocked(facts)
        or (servers[0] if servers else None)
        or _migrating(facts)
        or _first_failure(processor, *receivers.values())
        or _reachable(redis)
        or _reachable(postgres)
        or _in_force(facts, progress)
    )
    found: Findings = {
        Type.READY: ready or yes(Reason.ALL_AVAILABLE, "the processors work and nothing is known to be unreachable"),
        Type.ACCEPTED: _accepted(facts),
        Type.PROGRESSING: progress,
        Type.PROCESSOR_AVAILABLE: processor,
        **receivers,
        **notifier,
        Type.REDIS_REACHABLE: redis,
        Type.POSTGRES_REACHABLE: postgres,
        Type.BACKUP_HEALTHY: backup_health.backup_health(facts, now),
    }
    return found | _wanted(facts, "pipeline")


def feed_status(facts: FeedFacts, now: str) -> dict[str, Any]:
    """The whole status of an ExchangeFeed. ``now``: RFC 3339."""
    findings = feed_findings(facts)
    refused = judge.rejected(facts)
    return _without_none(
        {
            "observedGeneration": _observed(facts),
            "conditions": conditions(findings, _conditions(facts), facts.generation, now),
            "data": judge.data(facts)[1],
            "lag": judge.lag(facts.distributor),
            "image": facts.image or None,
            "instruments": facts.instruments,
            "rejected": refused[:MOST_REJECTED],
            "receiver": _pods(facts.receiver),
            "distributor": _pods(facts.distributor),
            "config": _config(facts, (("receiver", facts.receiver), ("distributor", facts.distributor))),
        }
    )


def pipeline_status(facts: PipelineFacts, now: str) -> dict[str, Any]:
    """The whole status of a FeedPipeline. ``now``: RFC 3339."""
    rollouts = facts.processor.rollouts
    return _without_none(
        {
            "observedGeneration": _observed(facts),
            "conditions": conditions(pipeline_findings(facts, now), _conditions(facts), facts.generation, now),
            "image": facts.image or None,
            "migration": facts.migrated or None,
            "feeds": facts.feeds,
            "lag": judge.lag(facts.processor),
            "processor": {
                "replicas": sum(each.replicas for each in rollouts),
                "updated": sum(each.updated for each in rollouts),
                "ready": sum(each.ready for each in rollouts),
                "selector": facts.selector,
            },
            "accounts": _accounts(facts.accounts),
            "backup": backup_health.summary(facts),
            "config": _config(facts, (("processor", facts.processor),)),
        }
    )


def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    """How much ``after`` differs from ``before``; times of transitions do not count."""
    worst = _conditions_change(before.get("conditions") or (), after.get("conditions") or ())
    for name in before.keys() | after.keys():
        if name == "conditions" or before.get(name) == after.get(name):
            continue
        if _empty(before.get(name)) and _empty(after.get(name)):
            continue
        live = name in _LIVE or (name == "backup" and _only_the_log(before.get(name), after.get(name)))
        worst = max(worst, Change.LIVE if live else Change.MINOR if name in _COUNTS else Change.MAJOR)
    return worst


def _only_the_log(before: Any, after: Any) -> bool:
    """Whether of ``status.backup`` only that differs which moves all the time."""
    one, other = ({**(each or {}), "continuousTo": ""} for each in (before, after))
    return bool(one == other)


def patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that turns ``before`` into ``after``: what is gone is null."""
    body: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for name, value in after.items():
        if before.get(name) == value:
            continue
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, Mapping):
            body[name] = dict.fromkeys(old.keys() - value.keys()) | value
        else:
            body[name] = value
    return {"status": body}


def _conditions_change(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Change:
    old, new = by_type(before), by_type(after)
    if old.keys() != new.keys():
        return Change.MAJOR
    worst = Change.NONE
    for kind, item in new.items():
        last = old[kind]
        if any(last.get(part) != item.get(part) for part in ("status", "observedGeneration")):
            better = item.get("status") == "True" and last.get("observedGeneration") == item.get("observedGeneration")
            headline = kind in (Type.READY, Type.ACCEPTED, Type.PROGRESSING, Type.SUSPENDED, Type.PAUSED)
            worst = max(worst, Change.MAJOR if headline or not better else Change.MINOR)
        elif last.get("reason") != item.get("reason"):
            worst = max(worst, Change.MAJOR if kind in (Type.READY, Type.ACCEPTED) else Change.MINOR)
        elif last.get("message") != item.get("message"):
            worst = max(worst, Change.MAJOR if kind == Type.ACCEPTED else Change.MINOR)
    return worst


def _empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _observed(facts: Common) -> int | None:
    """A paused object's new spec is not worked on."""
    if facts.paused:
        before = facts.before.get("observedGeneration")
        return before if isinstance(before, int) else None
    return facts.generation


def _conditions(facts: Common) -> Sequence[Mapping[str, Any]]:
    return facts.before.get("conditions") or ()


def _namespace(role: Role) -> str:
    return next((each.namespace for each in role.rollouts), "")


def _accepted(facts: Common) -> Finding:
    if facts.refusal is not None:
        return no(facts.refusal.reason, facts.refusal.message)
    return yes(Reason.VALID, "the spec can be carried out")


def _available(facts: Common, role: Role, what: str, namespace: str) -> Finding:
    if facts.suspended:
        return no(Reason.SUSPENDED, f"suspended: no {what} is wanted (spec.suspend)")
    if facts.refusal is not None and not any(each.exists for each in role.rollouts):
        return no(Reason.NOT_ACCEPTED, f"no {what} is made until it is accepted")
    return judge.availability(role, what, namespace)


def _migrated(facts: PipelineFacts, role: Role, what: str, namespace: str) -> Finding:
    """Whether one is ready of those that start once the database is migrated."""
    found = _available(facts, role, what, namespace)
    absent = not any(each.exists for each in role.rollouts)
    if found.holds or facts.suspended or facts.refusal is not None or not absent:
        return found
    return _migrating(facts) or found


def _migrating(facts: PipelineFacts) -> Finding | None:
    migration: Migration = facts.migration
    if migration.done or facts.suspended:
        return None
    namespace = _namespace(facts.processor)
    if migration.failed:
        return no(
            Reason.MIGRATION_FAILED,
            f"the migration of the database failed: {migration.failed}: see `kubectl -n {namespace} logs "
            f"job/{migration.name}`, mend the cause and delete the Job to run it again; processors of the former image "
            "go on",
        )
    if migration.trouble is not None:
        return no(migration.trouble.reason, f"the migration of the database does not run: {migration.trouble.message}")
    # Known once: a pipeline that is ready goes on with the former image meanwhile.
    if judge.was_ready(facts) and any(each.ready for each in facts.processor.rollouts):
        return None
    return no(Reason.MIGRATING, f"the database is being migrated by Job {migration.name}")


def _pipeline_progress(facts: PipelineFacts, roles: Sequence[tuple[str, Role]]) -> Finding:
    migration = facts.migration
    stops = facts.refusal is not None or facts.paused or facts.suspended or facts.problems or facts.failure
    if stops or migration.done:
        return judge.progress(facts, roles)
    if migration.failed:
        return no(Reason.MIGRATION_FAILED, f"the migration of the database failed: {migration.failed}")
    return yes(Reason.MIGRATING, f"Job {migration.name} migrates the database, the processors follow")


def _blocked(facts: Common) -> Finding | None:
    """What keeps it from being ready whatever the pods do."""
    if facts.refusal is not None:
        return no(facts.refusal.reason, facts.refusal.message)
    if facts.suspended:
        return no(Reason.SUSPENDED, "it is suspended (spec.suspend)")
    if facts.problems:
        return no(facts.problems[0].reason, facts.problems[0].message)
    if facts.paused and facts.before.get("observedGeneration") != facts.generation:
        return no(Reason.PAUSED, "the present spec is not carried out while it is paused: take the annotation "
                  "feedmill.dev/pause away")  # fmt: skip
    if facts.failure and not judge.was_ready(facts):
        return no(Reason.RECONCILE_FAILED, f"{facts.failure}: tried again by itself")
    return None


def _first_failure(*findings: Finding) -> Finding | None:
    return next((each for each in findings if not each.holds), None)


def _reachable(finding: Finding) -> Finding | None:
    return finding if finding.fails else None


def _in_force(facts: Common, progress: Finding) -> Finding | None:
    """A new generation is ready once it is carried out wholly; later rollouts do not take that back."""
    if judge.was_ready(facts) or facts.paused:
        return None
    if progress.holds or progress.reason is not Reason.RECONCILED:
        return no(progress.reason, progress.message)
    return None


def _wanted(facts: Common, what: str) -> Findings:
    suspended = (
        yes(Reason.SUSPENDED, f"the {what} is suspended: set spec.suspend to false to go on")
        if facts.suspended
        else no(Reason.NOT_SUSPENDED)
    )
    paused = (
        yes(Reason.PAUSED, "nothing is changed: take the annotation feedmill.dev/pause away to go on")
        if facts.paused
        else no(Reason.NOT_PAUSED)
    )
    return {Type.SUSPENDED: suspended, Type.PAUSED: paused}


def _pods(role: Role) -> dict[str, int]:
    return {
        "replicas": sum(each.wanted for each in role.rollouts),
        "updated": sum(each.updated for each in role.rollouts),
        "ready": sum(each.ready for each in role.rollouts),
    }


def _accounts(role: Role | None) -> dict[str, int] | None:
    if role is None:
        return None
    found = pool.counts(role)
    told = {} if found is None else {"enabled": found.enabled, "listening": found.listening, "refused": found.refused}
    return _pods(role) | told


def _config(facts: Common, roles: Sequence[tuple[str, Role]]) -> dict[str, Any] | None:
    if not facts.config_hash:
        return None
    pods, works, _, _ = judge.acknowledged(facts, roles)
    return {"hash": facts.config_hash, "pods": pods, "acknowledged": works}


def _without_none(status: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if value is not None}
