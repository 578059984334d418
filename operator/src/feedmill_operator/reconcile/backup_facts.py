"""All that is known of the backups of a pipeline, for its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError
from feedmill_operator.reconcile import base, observe, schedules, troubles
from feedmill_operator.reconcile.backup import backups_refusal
from feedmill_operator.reconcile.base import Tools, Work
from feedmill_operator.reconcile.facts import BackupFacts, Role
from feedmill_operator.reconcile.queue import Key


async def backup_facts(
    tools: Tools, key: Key, body: Mapping[str, Any], pipeline: FeedPipeline | None, log: Role | None, work: Work
) -> BackupFacts | None:
    """None where none are configured. What the schedules' Jobs did is taken up first. ``log``: what uploads the log.

    An error of the API server goes into ``work``.
    """
    refusal = None
    try:
        if not base.paused(body):
            await schedules.take_up(tools, body)
            await schedules.let_go(tools, key.namespace, key.name)
        if pipeline is None or pipeline.spec.backup is None:
            return None
        refusal = await backups_refusal(tools, pipeline)
    except ApiError as error:
        work.error = work.error or error
    if pipeline is None or pipeline.spec.backup is None:
        return None
    schedule = tools.store.get(kinds.CRON_JOB, key.namespace, names.backup_schedule(key.name, names.Run.LOGICAL))
    made = schedule.manifest["metadata"].get("creationTimestamp") if schedule is not None else None
    said = [log.answers[pod.name].log for pod in log.pods if pod.name in log.answers] if log is not None else []
    return BackupFacts(
        backup=pipeline.spec.backup,
        refusal=refusal,
        since=str(made or ""),
        suspended=pipeline.spec.backup.suspend or pipeline.spec.suspend,
        backups=schedules.records(tools, kinds.BACKUP, key.namespace, key.name),
        drills=schedules.records(tools, kinds.RESTORE, key.namespace, key.name),
        prune=observe.newest_ended(tools.store, key.namespace, key.name, names.Run.PRUNE),
        log=next((each for each in said if each is not None), None),
        log_trouble=troubles.worst(troubles.of_pods(log.pods, list(log.answers))) if log is not None else None,
    )
