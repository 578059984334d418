"""Asks pods for their ``/health`` and ``/metrics``: through the API server's proxy, else by port-forward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from feedmill_operator import names
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.plugin.cluster import POOL, Cluster
from feedmill_operator.plugin.status import pod_state
from feedmill_operator.plugin.target import labels_of

ANSWER = 5.0
"""Seconds for one answer of one pod."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one pod said of itself."""

    pod: str
    namespace: str
    role: str
    feed: str
    shard: str
    health: dict[str, Any] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Sum over all labels by name; empty when not asked or not answered."""
    why: str = ""
    """Why there is no answer."""


def port_of(pod: Manifest) -> int:
    """Where its health server listens."""
    for container in (pod.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == "health":
                return int(port["containerPort"])
    return names.HEALTH_PORT


def ask_all(cluster: Cluster, pods: Sequence[Manifest], *, metrics: bool = False) -> list[Answer]:
    """All at once, in the order of ``pods``. A pod that does not answer has ``why``; nothing is raised for it."""
    if not pods:
        return []
    with ThreadPoolExecutor(min(POOL, len(pods))) as threads:
        return list(threads.map(lambda pod: ask(cluster, pod, metrics=metrics), pods))


def ask(cluster: Cluster, pod: Manifest, *, metrics: bool = False) -> Answer:
    found = labels_of(pod)
    where = str(pod["metadata"]["name"]), str(pod["metadata"]["namespace"])
    who = (*where, found.get(names.COMPONENT, ""), found.get(names.FEED, ""), found.get(names.SHARD, ""))
    if not (pod.get("status") or {}).get("podIP"):
        return Answer(*who, why=pod_state(pod))
    try:
        health = json.loads(_get(cluster, pod, "/health"))
        sums = totals(_get(cluster, pod, "/metrics").decode(errors="replace")) if metrics else {}
    except ApiError as error:
        state = pod_state(pod)
        return Answer(*who, why=error.message if state in ("Ready", "NotReady") else f"{state}: {error.message}")
    except ValueError:
        return Answer(*who, why=f"port {port_of(pod)} does not speak like a Feedmill process")
    return Answer(*who, health if isinstance(health, dict) else None, sums)


def _get(cluster: Cluster, pod: Manifest, path: str) -> bytes:
    """By proxy; where that is forbidden, or a NetworkPolicy keeps the API server out, by a forwarded port."""
    namespace, name, port = str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"]), port_of(pod)
    try:
        return cluster.proxied(namespace, name, port, path, ANSWER)
    except ApiError as error:
        refused = error
    try:
        return cluster.forwarded(namespace, name, port, path, ANSWER)
    except ApiError as error:
        if refused.status == 403 and error.status == 403:
            raise ApiError(403, "Forbidden", f"{refused.message}; {error.message}") from error
        # The way that is allowed says more.
        raise (error if refused.status == 403 else refused) from error


def totals(exposition: str) -> dict[str, float]:
    """Prometheus text -> name -> sum of its samples."""
    found: dict[str, float] = {}
    for line in exposition.splitlines():
        if not line or line.startswith("#"):
            continue
        name = line.split("{", 1)[0].split(" ", 1)[0]
        rest = line.rsplit("}", 1)[-1] if "{" in line else line[len(name) :]
        try:
            value = float(rest.split()[0])
        except (ValueError, IndexError):
            continue
        found[name] = found.get(name, 0.0) + value
    return found
