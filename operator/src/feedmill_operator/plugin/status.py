"""``kubectl feedmill status``: what is Ready, what is not, and why."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedmill_operator import names
from feedmill_operator.kube.api import Manifest
from feedmill_operator.plugin import text
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.conditions import Said, conditions, in_order, readiness, troubles
from feedmill_operator.plugin.target import EVERY, Target, everything, find_all, labels_of, pods

_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}


def run(cluster: Cluster, namespace: str | None, wanted: Sequence[str], *, as_json: bool) -> int:
    """Print; 0 when everything shown is Ready (or suspended by its user), else 1. None = all namespaces."""
    if wanted:
        assert namespace is not None
        found = find_all(cluster, namespace, wanted, EVERY)
    else:
        found = everything(cluster, namespace, EVERY)
    if as_json:
        text.say(json.dumps([document(target) for target in found], indent=2))
    elif not found:
        where = "no namespace has" if namespace is None else f"namespace {namespace} has no"
        word = "a" if namespace is None else ""
        text.tell(
            f"{where} {word} feed, pipeline or account: kubectl apply -f examples/kubernetes/ makes some, -n chooses "
            "another namespace, -A all".replace("  ", " ")
        )
    else:
        _tables(found, namespace is None)
        if wanted:
            for target in found:
                _detail(cluster, target)
        else:
            _why(found, namespace is None)
    return 0 if all(in_order(target.manifest) for target in found) else 1


@dataclass(frozen=True, slots=True)
class Row:
    """What a table and JSON show of one object; None = not known."""

    ready: Said
    data: str | None
    lag: str | None
    pods: dict[str, tuple[int, int]]
    """Role -> (ready, wanted)."""
    config: tuple[int, int] | None
    """(pods that work with the newest configuration, pods that should)."""
    feeds: int | None
    state: str | None
    """Of an account, in a word."""
    last_fill: str | None
    accounts: tuple[int, int] | None
    """(listened to, to be listened to) of a pipeline."""


def row(manifest: Mapping[str, Any]) -> Row:
    status = manifest.get("status") or {}
    counts = {
        role: (int(found.get("ready") or 0), int(found.get("replicas") or 0))
        for role in ("receiver", "distributor", "processor", "accounts")
        if isinstance(found := status.get(role), Mapping)
    }
    config, pool = status.get("config"), status.get("accounts") or {}
    return Row(
        readiness(manifest),
        status.get("data"),
        status.get("lag"),
        counts,
        (int(config.get("acknowledged") or 0), int(config.get("pods") or 0)) if isinstance(config, Mapping) else None,
        status.get("feeds"),
        status.get("state"),
        status.get("lastFill"),
        (int(pool["listening"]), int(pool["enabled"])) if {"listening", "enabled"} <= pool.keys() else None,
    )


def document(target: Target) -> dict[str, Any]:
    """For programs."""
    made = row(target.manifest)
    return {
        "kind": target.kind.kind,
        "namespace": target.namespace,
        "name": target.name,
        "ready": made.ready.status,
        "reason": made.ready.reason,
        "message": made.ready.message,
        "data": made.data,
        "lag": made.lag,
        "pods": {role: {"ready": ready, "wanted": wanted} for role, (ready, wanted) in made.pods.items()},
        "config": None if made.config is None else {"acknowledged": made.config[0], "pods": made.config[1]},
        "feeds": made.feeds,
        "state": made.state,
        "lastFill": made.last_fill,
        "accounts": None if made.accounts is None else {"listening": made.accounts[0], "enabled": made.accounts[1]},
        "paused": target.paused,
        "suspended": target.suspended,
        "conditions": [
            {"type": said.type, "status": said.status, "reason": said.reason, "message": said.message}
            for said in conditions(target.manifest).values()
        ],
    }


def _tables(found: Sequence[Target], namespaces: bool) -> None:
    accounts = [target for target in found if target.is_account]
    feeds = [target for target in found if target.is_feed]
    pipelines = [target for target in found if not (target.is_feed or target.is_account)]
    now = time.time()
    lead = ["NAMESPACE"] if namespaces else []
    if pipelines:
        columns = ["PIPELINE", "READY", "REASON", "REDIS", "POSTGRES", "FEEDS", "LAG", "PROCESSORS", "CONFIG", "AGE"]
        # Many pipelines listen to no account.
        listens = any("accounts" in row(target.manifest).pods for target in pipelines)
        columns[8:8] = ["ACCOUNTS"] if listens else []
        text.table([*lead, *columns], [_pipeline(target, namespaces, now, listens=listens) for target in pipelines])
    if pipelines and feeds:
        text.say()
    if feeds:
        columns = ["FEED", "READY", "REASON", "DATA", "LAG", "RECEIVERS", "DISTRIBUTORS", "CONFIG", "AGE"]
        text.table([*lead, *columns], [_feed(target, namespaces, now) for target in feeds])
    if accounts and (pipelines or feeds):
        text.say()
    if accounts:
        columns = ["ACCOUNT", "READY", "REASON", "EXCHANGE", "STATE", "FILL", "AGE"]
        text.table([*lead, *columns], [_account(target, namespaces, now) for target in accounts])


def _pipeline(target: Target, namespaces: bool, now: float, *, listens: bool) -> list[Any]:
    made = row(target.manifest)
    found = conditions(target.manifest)
    return [
        *([target.namespace] if namespaces else []),
        target.name,
        _ready(made.ready),
        made.ready.reason,
        *(_reachable(found.get(name)) for name in ("RedisReachable", "PostgresReachable")),
        text.number(made.feeds),
        made.lag or text.UNKNOWN,
        _share(made.pods.get("processor")),
        *([_share(made.accounts) if "accounts" in made.pods else ("-", "")] if listens else []),
        _share(made.config),
        _age(target.manifest, now),
    ]


def _feed(target: Target, namespaces: bool, now: float) -> list[Any]:
    made = row(target.manifest)
    return [
        *([target.namespace] if namespaces else []),
        target.name,
        _ready(made.ready),
        made.ready.reason,
        made.data or text.UNKNOWN,
        made.lag or text.UNKNOWN,
        _share(made.pods.get("receiver")),
        _share(made.pods.get("distributor")),
        _share(made.config),
        _age(target.manifest, now),
    ]


def _account(target: Target, namespaces: bool, now: float) -> list[Any]:
    made = row(target.manifest)
    return [
        *([target.namespace] if namespaces else []),
        target.name,
        _ready(made.ready),
        made.ready.reason,
        _exchange(target.manifest),
        made.state or text.UNKNOWN,
        # That no fill is known says little: it may never have had one.
        text.age(text.since(made.last_fill, now)) if made.last_fill else "-",
        _age(target.manifest, now),
    ]


def _exchange(manifest: Manifest) -> str:
    found = (manifest.get("spec") or {}).get("exchange") or {}
    return f"{found.get('name') or text.UNKNOWN}/{found.get('market') or text.UNKNOWN}"


def _ready(said: Said) -> tuple[str, str]:
    return said.status, _STYLES.get(said.status, "") if said.reason != "Suspended" else "dim"


def _reachable(said: Said | None) -> tuple[str, str]:
    word = {"True": "ok", "False": "away"}.get(said.status if said else "", text.UNKNOWN)
    return word, _STYLES.get(said.status, "") if said else ""


def _share(pair: tuple[int, int] | None) -> tuple[str, str]:
    if pair is None:
        return text.UNKNOWN, ""
    return f"{pair[0]}/{pair[1]}", "" if pair[0] >= pair[1] else "yellow"


def _age(manifest: Manifest, now: float) -> str:
    return text.age(text.since(manifest["metadata"].get("creationTimestamp"), now))


def _why(found: Sequence[Target], namespaces: bool) -> None:
    """Below the tables: of everything that is not as it should be, what its conditions say."""
    first = True
    for target in found:
        for said in troubles(target.manifest):
            if first:
                text.say()
                first = False
            text.say(f"{f'{target.namespace} ' if namespaces else ''}{target}: {said}")


def _detail(cluster: Cluster, target: Target) -> None:
    """Of one that was asked for by name: its conditions and its pods."""
    status = target.manifest.get("status") or {}
    now = time.time()
    text.say()
    if target.is_account:
        secret = ((target.manifest.get("spec") or {}).get("credentialsSecretRef") or {}).get("name")
        text.say(f"{target}: {_exchange(target.manifest)}, Secret {secret}, listened to by pipeline/{target.pipeline}")
    else:
        text.say(f"{target}: image {status.get('image') or text.UNKNOWN}, {_configured(status)}")
    if target.is_feed and status.get("rejected"):
        text.say(f"the exchange does not give: {', '.join(status['rejected'])}")
    said = list(conditions(target.manifest).values())
    if said:
        text.say()
        text.table(
            ["CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"],
            [
                [item.type, item.status, text.age(text.since(item.since, now)), item.reason, item.message]
                for item in said
            ],
        )
    else:
        text.say(str(readiness(target.manifest)))
    if target.is_account:
        return
    own = [pod for pod in pods(cluster, target.namespace) if target.owns(pod)]
    text.say()
    if not own:
        text.say("no pods")
        return
    text.table(
        ["POD", "ROLE", "SHARD", "STATE", "RESTARTS", "NODE", "AGE"],
        [
            [
                str(pod["metadata"]["name"]),
                labels_of(pod).get(names.COMPONENT, ""),
                labels_of(pod).get(names.SHARD, ""),
                pod_state(pod),
                str(sum(int(item.get("restartCount") or 0) for item in _containers(pod))),
                str((pod.get("spec") or {}).get("nodeName") or ""),
                _age(pod, now),
            ]
            for pod in own
        ],
    )


def _configured(status: Mapping[str, Any]) -> str:
    config = status.get("config")
    if not isinstance(config, Mapping) or not config.get("hash"):
        return "no configuration yet"
    return (
        f"configuration {config['hash']} taken by {config.get('acknowledged') or 0} of {config.get('pods') or 0} pods"
    )


def _containers(pod: Manifest) -> list[Manifest]:
    return list((pod.get("status") or {}).get("containerStatuses") or [])


def pod_state(pod: Manifest) -> str:
    """As kubectl's STATUS: Ready, or the nearest word for why not."""
    status = pod.get("status") or {}
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "Terminating"
    if status.get("phase") in ("Succeeded", "Failed"):
        return str(status.get("reason") or status["phase"])
    for item in _containers(pod):
        state = item.get("state") or {}
        why = (state.get("waiting") or {}).get("reason") or (state.get("terminated") or {}).get("reason")
        if why:
            return str(why)
    held = {item.get("type"): item for item in status.get("conditions") or []}
    if (held.get("Ready") or {}).get("status") == "True":
        return "Ready"
    scheduled = held.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Pending")
    return "NotReady" if status.get("phase") == "Running" else str(status.get("phase") or text.UNKNOWN)
