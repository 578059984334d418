"""Takes the Jobs of a pipeline's schedules up as FeedBackups and FeedRestores, and lets old ones of these go.

A Job does its work whether the operator is there or not; the object is how it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedmill.shared import log
from feedmill_operator import names
from feedmill_operator.build.inputs import Owner
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.names import Run
from feedmill_operator.reconcile.base import Tools
from feedmill_operator.reconcile.facts import RunRecord
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.run_status import FINAL
from feedmill_operator.reconcile.store import Live

KEPT = 50
"""Runs of a schedule that stay as objects, of each kind; the backups themselves are kept by spec.backup.retention."""
_KINDS = {Run.LOGICAL: kinds.BACKUP, Run.VERIFY: kinds.RESTORE}


def records(tools: Tools, kind: Kind, namespace: str, pipeline: str) -> list[RunRecord]:
    """All runs of a kind of a pipeline, the oldest first. A restore into the pipeline's own database is no drill."""
    found = []
    for live in _runs(tools, kind, namespace, pipeline):
        if kind == kinds.RESTORE and (live.manifest.get("spec") or {}).get("mode") == "Restore":
            continue
        status = live.status
        texts = (str(status.get(name) or "") for name in ("phase", "startedAt", "completedAt", "contentAt", "message"))
        found.append(RunRecord(live.name, *texts))
    return found


async def take_up(tools: Tools, pipeline: Mapping[str, Any]) -> None:
    """Make the objects of Jobs that have none yet. Raises ApiError.

    A Job is marked then: an object that its user deletes does not come again.
    """
    metadata = pipeline["metadata"]
    namespace, name = str(metadata["namespace"]), str(metadata["name"])
    owner = Owner(kinds.PIPELINE.kind, name, str(metadata["uid"]))
    for job in _untaken(tools, namespace, name):
        run = Run(job.labels[names.RUN])
        try:
            made = await tools.api.create(_KINDS[run], _object(owner, job, run))
            tools.store.update(_KINDS[run], made)
            # What we have put into the store ourselves is no news when the watch tells it.
            tools.queue.add(Key(_KINDS[run].kind, namespace, job.name))
            log.get_logger().info("run.taken_up", kind=_KINDS[run].kind, namespace=namespace, name=job.name)
        except ApiError as error:
            if error.status == 422:
                # A Job that somebody made of the CronJob, with a name that no object may have: it goes on unseen, and
                # must not keep the others from being seen.
                log.get_logger().warning("run.not_taken_up", namespace=namespace, name=job.name, reason=error.message)
            elif error.status != 409:
                raise
        mark = {"metadata": {"annotations": {names.TAKEN: "true"}}}
        tools.store.update(kinds.JOB, await tools.api.patch(kinds.JOB, namespace, job.name, mark))


async def let_go(tools: Tools, namespace: str, pipeline: str) -> None:
    """Delete the oldest objects of schedules beyond those that are kept; never the newest that succeeded. Raises
    ApiError."""
    for kind in kinds.RUNS:
        runs = [each for each in _runs(tools, kind, namespace, pipeline) if each.labels.get(names.SCHEDULED) == "true"]
        for live in superfluous(runs):
            await tools.api.delete(kind, namespace, live.name, uid=live.uid)
            tools.store.remove(kind, namespace, live.name, live.uid)


def superfluous(runs: Sequence[Live]) -> list[Live]:
    """Of runs, the oldest first. Pure."""
    ended = [each for each in runs if each.status.get("phase") in FINAL and not each.deleting]
    good = [each for each in ended if each.status.get("phase") == "Succeeded"]
    return [each for each in ended[:-KEPT] if each not in good[-1:]]


def _runs(tools: Tools, kind: Kind, namespace: str, pipeline: str) -> list[Live]:
    mine = [live for live in tools.store.of_kind(kind, namespace) if live.pipeline == pipeline]
    return sorted(mine, key=lambda live: (str(live.manifest["metadata"].get("creationTimestamp") or ""), live.name))


def _untaken(tools: Tools, namespace: str, pipeline: str) -> list[Live]:
    return [
        live
        for live in tools.store.of_kind(kinds.JOB, namespace)
        if live.labels.get(names.PIPELINE) == pipeline
        and live.labels.get(names.RUN) in _KINDS
        and names.RUN_OF not in live.labels
        and names.TAKEN not in live.annotations
        and not live.deleting
    ]


def _object(owner: Owner, job: Live, run: Run) -> Manifest:
    spec: Manifest = {"pipelineRef": {"name": owner.name}}
    spec |= {"mode": "Verify"} if run is Run.VERIFY else {"kind": "Logical"}
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": _KINDS[run].kind,
        "metadata": {
            "name": job.name,
            "namespace": job.namespace,
            "labels": {names.PIPELINE: owner.name, names.SCHEDULED: "true", names.MANAGED_BY: names.MANAGER},
            "ownerReferences": [owner.reference()],
        },
        "spec": spec,
    }
