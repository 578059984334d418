"""Looks into the store: how far the controllers of Kubernetes are, and how the pods do. No request is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind, Manifest
from feedmill_operator.reconcile import troubles
from feedmill_operator.reconcile.answer import Answer
from feedmill_operator.reconcile.facts import JobFacts, Migration, Role, Rollout
from feedmill_operator.reconcile.pods import PodFacts
from feedmill_operator.reconcile.store import Live, Store

Pods = Store[PodFacts]
_WORKLOADS = (kinds.DEPLOYMENT, kinds.STATEFUL_SET)


def role(
    store: Pods,
    namespace: str,
    component: str,
    rollouts: Iterable[Rollout],
    answers: Mapping[str, Answer],
    **labels: str,
) -> Role:
    """The processes of one component; ``labels``: which feed or pipeline."""
    pods = store.pods(namespace, **labels, **{names.COMPONENT: component})
    # A pipeline's label is on its feeds' pods too.
    own = tuple(pod for pod in pods if names.FEED in labels or not pod.feed)
    return Role(tuple(rollouts), own, {pod.name: answers[pod.name] for pod in own if pod.name in answers})


def rollouts(store: Pods, manifests: Iterable[Manifest], component: str) -> list[Rollout]:
    """Of the Deployments and StatefulSets of a component that should be there."""
    found = []
    for manifest in manifests:
        labels = manifest["metadata"].get("labels") or {}
        kind = kinds.BY_NAME.get((str(manifest["apiVersion"]), str(manifest["kind"])))
        if kind not in _WORKLOADS or labels.get(names.COMPONENT) != component:
            continue
        metadata, spec = manifest["metadata"], manifest["spec"]
        live = store.get(kind, metadata["namespace"], metadata["name"])
        found.append(rollout(metadata["namespace"], metadata["name"], labels, int(spec.get("replicas", 1)), live))
    return found


def present(store: Pods, owner_uid: str, component: str) -> list[Rollout]:
    """Of those that are there, when it cannot be said which should be."""
    return [
        rollout(live.namespace, live.name, live.labels, int(live.manifest["spec"].get("replicas", 1)), live)
        for live in store.owned(owner_uid)
        if live.kind in _WORKLOADS and live.labels.get(names.COMPONENT) == component
    ]


def rollout(namespace: str, name: str, labels: Mapping[str, str], wanted: int, live: Live | None) -> Rollout:
    """How far one of them is. Pure."""
    shard = labels.get(names.SHARD, "")
    number = int(shard) if shard.isascii() and shard.isdigit() else None
    if live is None or live.deleting:
        return Rollout(name, namespace, number, wanted)
    status = live.status
    conditions = {str(item.get("type")): item for item in status.get("conditions") or ()}
    current = int(status.get("observedGeneration") or 0) >= live.generation
    replicas, ready = int(status.get("replicas") or 0), int(status.get("readyReplicas") or 0)
    updated = int(status.get("updatedReplicas") or 0)
    progressing = conditions.get("Progressing", {})
    if live.kind == kinds.STATEFUL_SET:
        same = bool(status.get("updateRevision")) and status.get("updateRevision") == status.get("currentRevision")
        updated = replicas if same else updated
        complete = current and same
    else:
        complete = current and progressing.get("reason") == "NewReplicaSetAvailable"
    failure = conditions.get("ReplicaFailure", {})
    stalled = progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded"
    return Rollout(
        name=name,
        namespace=namespace,
        shard=number,
        wanted=wanted,
        exists=True,
        current=current,
        replicas=replicas,
        updated=updated,
        ready=ready,
        complete=complete,
        refused=str(failure.get("message", "")) if failure.get("status") == "True" else "",
        stalled=str(progressing.get("message", "")) if stalled else "",
    )


def migration(store: Pods, namespace: str, job: str, migrated: str) -> Migration:
    """How far a migration is. ``migrated``: the last one known to have succeeded; empty ``job`` = none is wanted."""
    if not job or job == migrated:
        return Migration(job)
    live = store.get(kinds.JOB, namespace, job)
    if live is None:
        return Migration(job, done=False)
    status = live.status
    holds = {str(item.get("type")) for item in status.get("conditions") or () if item.get("status") == "True"}
    if "Complete" in holds or int(status.get("succeeded") or 0) > 0:
        return Migration(job)
    pods = [pod for pod in store.pods(namespace, **{names.COMPONENT: names.MIGRATION}) if pod.job == job]
    words = [each.exit_message for pod in pods for each in pod.containers if each.exit_message]
    if "Failed" in holds:
        said = next((str(item.get("message", "")) for item in status["conditions"] if item.get("type") == "Failed"), "")
        return Migration(job, done=False, failed=words[-1] if words else said or "it failed")
    return Migration(job, done=False, trouble=troubles.worst(troubles.of_pods(pods)))


def job(store: Pods, namespace: str, name: str, answers: Mapping[str, Answer]) -> JobFacts | None:
    """A Job of a run and what its newest pod says; None when it is not there."""
    live = store.get(kinds.JOB, namespace, name)
    if live is None:
        return None
    status = live.status
    holds = {str(item.get("type")): item for item in status.get("conditions") or () if item.get("status") == "True"}
    failed = holds.get("Failed")
    succeeded = "Complete" in holds
    made = str(live.manifest["metadata"].get("creationTimestamp") or "")
    mine = [
        pod
        for pod in store.pods(namespace, **{names.COMPONENT: names.BACKUP_RUN})
        # One of a former Job of that name may still be there.
        if pod.job == name and (not pod.created or pod.created >= made)
    ]
    pods = sorted(mine, key=lambda pod: (pod.created, pod.name))
    newest = pods[-1] if pods else None
    running = newest is not None and newest.running
    said = newest.said if newest is not None else None
    if said is None and newest is not None and newest.name in answers:
        said = answers[newest.name].run
    ended = str(status.get("completionTime") or (failed or {}).get("lastTransitionTime") or "")
    return JobFacts(
        name=name,
        started=str(status.get("startTime") or ""),
        ended=ended,
        succeeded=succeeded,
        failed=(str(failed.get("message") or failed.get("reason") or "it failed")) if failed is not None else "",
        running=running,
        unread=(succeeded or failed is not None) and running,
        said=said,
        last_words=_last_words(newest),
        trouble=troubles.worst(troubles.of_pods(pods[-1:])),
    )


def _last_words(pod: PodFacts | None) -> str:
    """Of a pod that ended. One that was killed under way has left only how far it was."""
    for each in pod.containers if pod is not None else ():
        if pod is not None and pod.said is not None:
            return f"it was ended under way ({each.exit_reason})" if each.exit_reason else ""
        if each.exit_message:
            return each.exit_message
    return ""


def newest_ended(store: Pods, namespace: str, pipeline: str, run: names.Run) -> JobFacts | None:
    """The newest Job of a schedule that has ended."""
    jobs = [
        live
        for live in store.of_kind(kinds.JOB, namespace)
        if live.labels.get(names.PIPELINE) == pipeline and live.labels.get(names.RUN) == run
    ]
    found = [done for live in jobs if (done := job(store, namespace, live.name, {})) is not None and done.ended]
    return max(found, key=lambda each: (each.ended, each.name), default=None)


def selector(manifests: Iterable[Manifest], kind: Kind, component: str) -> str:
    """The label selector of a component's pods, as the scale subresource gives it: ``a=b,c=d``."""
    for manifest in manifests:
        labels: Mapping[str, Any] = manifest["metadata"].get("labels") or {}
        if manifest["kind"] == kind.kind and labels.get(names.COMPONENT) == component:
            return ",".join(
                f"{key}={value}" for key, value in sorted(manifest["spec"]["selector"]["matchLabels"].items())
            )
    return ""
