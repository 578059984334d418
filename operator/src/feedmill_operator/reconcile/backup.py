"""Reconciles one FeedBackup or FeedRestore: a Job carries it out once, and what it says of itself is the status.

Of a schedule the CronJob makes the Job, and the pipeline's reconciler the object: here it is only looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build.backup import RunInputs, homeless, run_job
from feedmill_operator.build.inputs import Owner
from feedmill_operator.build.objects import Place
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind, Manifest
from feedmill_operator.names import Run
from feedmill_operator.reconcile import base, observe, references
from feedmill_operator.reconcile.base import Tools, Work
from feedmill_operator.reconcile.catalog import PipelineView
from feedmill_operator.reconcile.facts import RunFacts
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.run_status import FINAL, run_status
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal

_BY_NAME = {kind.kind: kind for kind in kinds.RUNS}
_LOOK = 2.0
"""Seconds until what is only a matter of moments is looked at again."""
_ALIVE = ("Pending", "Running")
_WORKS = {
    **dict.fromkeys((names.PROCESSOR, names.ACCOUNTS, names.MIGRATION, names.MAINTENANCE), _ALIVE),
    **dict.fromkeys((names.NOTIFY, names.BACKUP), _ALIVE),
    # One that cannot start must not keep a restore from what it waits for.
    names.BACKUP_RUN: ("Running",),
}
"""Components that use the database, and phases of their pods in which it is not restored."""


class RunReconciler:
    """See :class:`feedmill_operator.reconcile.ports.Reconciler`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        tools, kind = self._tools, _BY_NAME[key.kind]
        body = await tools.api.get(kind, key.namespace, key.name)
        if body is None or base.going(body):
            base.forget(tools, key)
            return None
        before = body.get("status") or {}
        if before.get("phase") in FINAL:
            tools.answers.forget(key)
            return None
        run, scheduled = run_of(kind, body), _scheduled(body)
        job = key.name if scheduled else names.run_job(run, key.name)
        work, refusal = Work(), None
        there = tools.store.get(kinds.JOB, key.namespace, job)
        # Of an object of the same name that was deleted a moment ago: what it did is not what this one asks for.
        former = not scheduled and there is not None and there.owner_uid != str(body["metadata"]["uid"])
        if not scheduled and there is None and not before.get("job"):
            view = base.view_of(tools, key, body)
            if view is None:
                # Its reconciler looks at the pipeline now, and rouses the run when it has.
                return None
            refusal = await self._refusal(key, run, view)
            if refusal is None:
                assert isinstance(view, PipelineView)
                work = await self._begin(key, kind, body, view, run)
        found = None if former else observe.job(tools.store, key.namespace, job, tools.answers.of(key))
        if found is not None and found.unread:
            return _LOOK
        running = [] if former else [pod for pod in self._pods(key) if pod.job == job]
        tools.answers.track(key, running)
        if scheduled and found is None:
            before = {**before, "job": job}
        problem = work.troubles[0] if work.troubles else None
        if former and problem is None:
            problem = Trouble(Reason.PENDING, f"Job {job} of a former {key.kind} of this name is still to go")
        facts = RunFacts(int(body["metadata"]["generation"]), before, refusal, problem, found)
        status = run_status(facts, base.now())
        if status["phase"] in FINAL:
            tools.answers.forget(key)
        wait = await base.finish(tools, key, kind, body, status, work)
        at_work = refusal is not None and refusal.reason is Reason.PIPELINE_AT_WORK
        return base.soonest(wait, base.recheck(refusal), _LOOK if at_work or former else None)

    def _pods(self, key: Key) -> list[Any]:
        return self._tools.store.pods(key.namespace, **{names.COMPONENT: names.BACKUP_RUN})

    async def _begin(self, key: Key, kind: Kind, body: Mapping[str, Any], view: PipelineView, run: Run) -> Work:
        """Make the Job. Once it is there it is left alone: another image must not begin it anew."""
        assert view.pipeline is not None
        metadata = body["metadata"]
        owner = Owner(kind.kind, key.name, str(metadata["uid"]))
        place = Place(key.namespace, view.pipeline.metadata.name, owner)
        inputs = RunInputs(view.pipeline, view.image, run, key.name, _options(body.get("spec") or {}))
        return await base.carry_out(self._tools, [run_job(place, inputs)], str(metadata["uid"]))

    async def _refusal(self, key: Key, run: Run, view: PipelineView | Refusal) -> Refusal | None:
        """Raises ApiError."""
        if isinstance(view, Refusal):
            return view
        refusal = base.unaccepted(key.namespace, view.pipeline.metadata.name if view.pipeline else "", view)
        if refusal is not None or view.pipeline is None:
            return refusal
        refusal = await backups_refusal(self._tools, view.pipeline)
        if refusal is None and run is Run.RESTORE:
            refusal = self._at_work(key.namespace, view.pipeline)
        return refusal

    def _at_work(self, namespace: str, pipeline: FeedPipeline) -> Refusal | None:
        name = pipeline.metadata.name
        if not pipeline.spec.suspend:
            return Refusal(
                Reason.PIPELINE_AT_WORK,
                f"FeedPipeline {name} is at work, and its database is not restored under its hands: suspend it "
                f'(`kubectl -n {namespace} patch fpl {name} --type merge -p \'{{"spec":{{"suspend":true}}}}\'`); its '
                "feeds go on, and what they receive waits in Redis",
            )
        there = self._tools.store.pods(namespace, **{names.PIPELINE: name})
        busy = [pod.name for pod in there if pod.phase in _WORKS.get(pod.component, ())]
        if not busy:
            return None
        return Refusal(Reason.PIPELINE_AT_WORK, f"pods of FeedPipeline {name} are still ending: {', '.join(busy[:5])}")


def run_of(kind: Kind, body: Mapping[str, Any]) -> Run:
    """What an object asks for."""
    spec = body.get("spec") or {}
    if kind == kinds.RESTORE:
        return Run.RESTORE if spec.get("mode") == "Restore" else Run.VERIFY
    return Run.BASE if spec.get("kind") == "Base" else Run.LOGICAL


async def backups_refusal(tools: Tools, pipeline: FeedPipeline) -> Refusal | None:
    """Why no backup of a pipeline can be made or read. Raises ApiError."""
    name, backup = pipeline.metadata.name, pipeline.spec.backup
    if backup is None:
        return Refusal(
            Reason.BACKUP_NOT_CONFIGURED,
            f"FeedPipeline {name} has no spec.backup: say there where backups are stored and how they are sealed",
        )
    if homeless(backup):
        return Refusal(
            Reason.FOLDER_WITHOUT_CLAIM,
            f"spec.backup.destination.folder of FeedPipeline {name} would be a pod's own and go with it: name a "
            "PersistentVolumeClaim in claimName, or take b2 or s3",
        )
    namespace = pipeline.metadata.namespace
    key, *opens = references.of_backups(pipeline)
    secrets: dict[str, Manifest | None] = {}
    for each in (key, *opens):
        if each.secret not in secrets:
            secrets[each.secret] = await tools.api.get(kinds.SECRET, namespace, each.secret)
        if (refusal := references.judge(each, secrets[each.secret], pipeline, namespace)) is not None:
            return refusal
    return next((found for each in opens if (found := references.not_apart(key, each, secrets)) is not None), None)


def _options(spec: Mapping[str, Any]) -> list[str]:
    found = [("--backup", spec.get("backupId")), ("--to", spec.get("toTime"))]
    return [word for option, value in found if value for word in (option, str(value))]


def _scheduled(body: Mapping[str, Any]) -> bool:
    return (body["metadata"].get("labels") or {}).get(names.SCHEDULED) == "true"
