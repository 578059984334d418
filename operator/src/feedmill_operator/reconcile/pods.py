"""What is kept of a pod: the few facts that conditions speak of. Pure.

Thousands of pods are watched and their manifests are large, so nothing else of them stays in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedmill.shared.log import redact
from feedmill_operator import names
from feedmill_operator.reconcile.run_said import RunSaid, read_text

LONGEST = 300
"""Characters of a message that are kept."""


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container of a pod."""

    name: str
    image: str = ""
    ready: bool = False
    running: bool = False
    restarts: int = 0
    waiting: str = ""
    """Why it does not run: CrashLoopBackOff, ImagePullBackOff, CreateContainerConfigError, ...; empty = it runs."""
    waiting_message: str = ""
    exit_code: int | None = None
    """Of the last time it ended; None = it never did."""
    exit_reason: str = ""
    """Error, OOMKilled, Completed, ..."""
    exit_message: str = ""
    """Its last words: the termination message, else the end of its log where the pod falls back to it."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod."""

    namespace: str
    name: str
    pipeline: str = ""
    feed: str = ""
    component: str = ""
    shard: int | None = None
    job: str = ""
    """Name of the Job it belongs to."""
    template: str = ""
    """Which ReplicaSet or revision it was made by."""
    config_hash: str = ""
    """Annotation: the configuration its volumes were last asked to take."""
    ip: str = ""
    node: str = ""
    phase: str = ""
    """Pending, Running, Succeeded, Failed, Unknown."""
    reason: str = ""
    """Evicted, ...: why the pod as a whole failed."""
    message: str = ""
    ready: bool = False
    created: str = ""
    """RFC 3339."""
    started: str = ""
    deleting: bool = False
    unschedulable: str = ""
    """The scheduler's message while it finds no node."""
    said: RunSaid | None = None
    """What a backup, a drill or a restore said of itself when it ended."""
    containers: tuple[ContainerFacts, ...] = ()
    """The init containers first."""

    @property
    def running(self) -> bool:
        """It can be asked how it is."""
        return self.phase == "Running" and bool(self.ip) and not self.deleting


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    """The facts of a Pod object as the API server gives it; what it lacks is empty."""
    metadata = _map(pod.get("metadata"))
    labels, annotations = _map(metadata.get("labels")), _map(metadata.get("annotations"))
    status = _map(pod.get("status"))
    conditions = {str(item.get("type")): item for item in _items(status.get("conditions"))}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    shard = str(labels.get(names.SHARD, ""))
    return PodFacts(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        pipeline=str(labels.get(names.PIPELINE, "")),
        feed=str(labels.get(names.FEED, "")),
        component=str(labels.get(names.COMPONENT, "")),
        shard=int(shard) if shard.isascii() and shard.isdigit() else None,
        job=str(labels.get("batch.kubernetes.io/job-name") or labels.get("job-name") or ""),
        template=str(labels.get("pod-template-hash") or labels.get("controller-revision-hash") or ""),
        config_hash=str(annotations.get(names.CONFIG_HASH, "")),
        ip=str(status.get("podIP", "")),
        node=str(_map(pod.get("spec")).get("nodeName", "")),
        phase=str(status.get("phase", "")),
        reason=str(status.get("reason", "")),
        message=_text(status.get("message")),
        ready=conditions.get("Ready", {}).get("status") == "True",
        created=str(metadata.get("creationTimestamp") or ""),
        started=str(status.get("startTime") or ""),
        deleting=bool(metadata.get("deletionTimestamp")),
        unschedulable=_text(scheduled.get("message")) if unschedulable else "",
        said=_said(status) if names.RUN in labels else None,
        containers=tuple(
            _container(item)
            for part in ("initContainerStatuses", "containerStatuses")
            for item in _items(status.get(part))
        ),
    )


def _container(item: Mapping[str, Any]) -> ContainerFacts:
    state = _map(item.get("state"))
    waiting = _map(state.get("waiting"))
    ended = _map(state.get("terminated")) or _map(_map(item.get("lastState")).get("terminated"))
    return ContainerFacts(
        name=str(item.get("name", "")),
        image=str(item.get("image", "")),
        ready=bool(item.get("ready")),
        running="running" in state,
        restarts=int(item.get("restartCount") or 0),
        waiting=str(waiting.get("reason", "")),
        waiting_message=_text(waiting.get("message")),
        exit_code=int(ended["exitCode"]) if "exitCode" in ended else None,
        exit_reason=str(ended.get("reason", "")),
        exit_message=_text(ended.get("message"), tail=True),
    )


def _said(status: Mapping[str, Any]) -> RunSaid | None:
    for item in _items(status.get("containerStatuses")):
        ended = _map(_map(item.get("state")).get("terminated"))
        if (found := read_text(str(ended.get("message") or ""))) is not None:
            return found
    return None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(value: Any, *, tail: bool = False) -> str:
    """One short line without secrets; ``tail``: the end says more than the beginning (a log)."""
    if not value:
        return ""
    text = " ".join(redact(str(value)).split())
    if len(text) <= LONGEST:
        return text
    return f"…{text[1 - LONGEST :]}" if tail else f"{text[: LONGEST - 1]}…"
