"""Backups: CronJobs that make, drill and delete them, the Jobs of FeedBackup and FeedRestore, and what uploads the log.

A schedule's Job does the work itself, so that backups go on while the operator is away, and no pod needs a right on the
API server. The operator takes each such Job up as a FeedBackup or FeedRestore of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feedmill.resources.backup_policy import Backup
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest
from feedmill_operator.names import Run

RUN_DEFAULTS = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
SCRATCH_DEFAULTS = {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
"""Of a run with a scratch server beside it."""
LOG_DEFAULTS = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
SERVERS = (names.POSTGRES,)
STATUS_FILE = "/dev/termination-log"
"""What a run says of itself stands in its pod's status."""
DEADLINE = 86_400
"""Seconds; one that hangs would keep the next ones from beginning."""
KEPT = 604_800
"""Seconds the Job of an object stays once it has ended."""
_TRIES_MORE = {Run.LOGICAL: 2, Run.BASE: 2, Run.VERIFY: 1, Run.RESTORE: 0, Run.PRUNE: 1}
"""A restore that failed is for a person to look at."""
_BAD_CONFIGURATION = 2
"""Exit code: trying again does not help."""


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Of one FeedBackup or FeedRestore that somebody made."""

    pipeline: FeedPipeline
    image: str
    run: Run
    name: str
    """Of the object."""
    options: Sequence[str] = ()
    """What it asks for beyond the kind: ``--backup``, ``--to``."""


def backups(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """All that ``spec.backup`` wants. While the pipeline is suspended nothing is due, since a restore may be under way
    and nothing is written anyway."""
    spec = inputs.pipeline.spec.backup
    if spec is None or homeless(spec):
        return []
    # What is too old or too many goes when the next one is made.
    schedules = {Run.LOGICAL: spec.schedule, Run.VERIFY: spec.verify.schedule, Run.PRUNE: spec.schedule}
    made = [_schedule(place, inputs, spec, run, schedule) for run, schedule in schedules.items()]
    suspended = inputs.pipeline.spec.suspend or spec.suspend
    if spec.continuous.enabled and inputs.migrated and not suspended:
        made.append(_log(place, inputs, spec))
    return made


def homeless(backup: Backup) -> bool:
    """Whether the destination is a folder of nowhere: a pod's own would go with it."""
    folder = backup.destination.folder
    return folder is not None and folder.claim_name is None


def run_job(place: Place, inputs: RunInputs) -> Manifest:
    """The Job of a FeedBackup or FeedRestore; ``place``: owned by it."""
    labels = {names.RUN: str(inputs.run), names.RUN_OF: inputs.name}
    head = Head("batch/v1", "Job", names.run_job(inputs.run, inputs.name), labels=labels)
    spec = _job(place, inputs.pipeline, inputs.image, inputs.run, labels, inputs.options)
    # The object keeps what came of it; the log stays for a week.
    spec["ttlSecondsAfterFinished"] = KEPT
    return manifest(place, head, names.BACKUP_RUN, spec=spec)


def _schedule(place: Place, inputs: PipelineInputs, backup: Backup, run: Run, schedule: str) -> Manifest:
    labels = {names.RUN: str(run)}
    stopped = backup.suspend or inputs.pipeline.spec.suspend or (run is Run.VERIFY and backup.verify.suspend)
    spec = {
        "schedule": str(schedule),
        "timeZone": str(backup.time_zone),
        "suspend": stopped,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "metadata": {"labels": place.labels(names.BACKUP_RUN) | labels},
            "spec": _job(place, inputs.pipeline, inputs.image, run, labels, ()),
        },
    }
    head = Head("batch/v1", "CronJob", names.backup_schedule(place.pipeline, run), labels=labels)
    return manifest(place, head, names.BACKUP_RUN, spec=spec)


def _job(
    place: Place, pipeline: FeedPipeline, image: str, run: Run, labels: dict[str, str], options: Sequence[str]
) -> Manifest:
    spec = pipeline.spec.backup
    assert spec is not None  # Who builds a run has looked.
    servers = () if run is Run.PRUNE else SERVERS
    keys = [*secrets.server_keys(pipeline, servers), *secrets.backup_keys(pipeline)]
    scratch = run in (Run.VERIFY, Run.RESTORE)
    env = secrets.url_files(pipeline, servers)
    volumes, mounts = _destination(spec)
    if scratch:
        volumes.append({"name": "scratch", "emptyDir": {"sizeLimit": str(spec.scratch.size)}})
        mounts.append({"name": "scratch", "mountPath": names.SCRATCH_DIR})
        env.append({"name": "TMPDIR", "value": names.SCRATCH_DIR})
    process = pods.Process(
        component=names.BACKUP_RUN,
        image=image,
        args=run_args(pipeline, run, options),
        config_map=names.general_config(place.pipeline),
        keys=keys,
        env=env,
        defaults=SCRATCH_DEFAULTS if scratch else RUN_DEFAULTS,
        resources=spec.resources,
        ports=[] if run is Run.PRUNE else [pods.health_port()],
        volumes=volumes,
        mounts=mounts,
        labels=labels,
    )
    rules = [
        # A node that is emptied is no failure of the run's.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": names.BACKUP_RUN, "operator": "In", "values": [_BAD_CONFIGURATION],
            },
        },
    ]  # fmt: skip
    return {
        "backoffLimit": _TRIES_MORE[run],
        "activeDeadlineSeconds": DEADLINE,
        "podFailurePolicy": {"rules": rules},
        "template": pods.pod(place, process, template=spec.pod_template, never=True),
    }


def run_args(pipeline: FeedPipeline, run: Run, options: Sequence[str]) -> list[str]:
    """Arguments of ``feedmill backup ...`` in a pod."""
    command = {
        Run.LOGICAL: ["run"],
        Run.BASE: ["run", "--kind", "base"],
        Run.VERIFY: ["verify"],
        Run.RESTORE: ["restore"],
        Run.PRUNE: ["prune"],
    }[run]
    args = [
        "backup", *command, *options, "--pipeline", "/".join(pipeline.key),
        "--config", f"{names.CONFIG_DIR}/resources.yaml", "--secrets-dir", names.SECRETS_DIR,
        "--status-file", STATUS_FILE,
    ]  # fmt: skip
    if run is Run.PRUNE:
        return args
    return [*args, "--health-host", "0.0.0.0", "--health-port", str(names.HEALTH_PORT)]  # noqa: S104 - a pod's own


def _log(place: Place, inputs: PipelineInputs, backup: Backup) -> Manifest:
    """What receives the log, uploads it, and makes base backups. The spool may go with the pod: the server keeps its
    log until it is uploaded."""
    keys = [*secrets.server_keys(inputs.pipeline, SERVERS), *secrets.backup_keys(inputs.pipeline)]
    volumes, mounts = _destination(backup)
    # A file under way and one being uploaded come on top of what waits.
    size = str(backup.continuous.spool.size.bytes * 5 // 4)
    process = pods.Process(
        component=names.BACKUP,
        image=inputs.image,
        args=pods.service_args(
            "backup", ["--pipeline", "/".join(inputs.pipeline.key)], keys, more=["--spool-dir", names.SPOOL_DIR]
        ),
        config_map=names.general_config(place.pipeline),
        keys=keys,
        env=secrets.url_files(inputs.pipeline, SERVERS),
        defaults=LOG_DEFAULTS,
        resources=backup.resources,
        probes=pods.health_probes(),
        ports=[pods.health_port()],
        volumes=[{"name": "spool", "emptyDir": {"sizeLimit": size}}, *volumes],
        mounts=[{"name": "spool", "mountPath": names.SPOOL_DIR}, *mounts],
    )
    template = pods.pod(place, process, template=backup.pod_template, restart=inputs.restart)
    return deployment(place, names.backup_log(place.pipeline), names.BACKUP, 1, template, alone=True)


def _destination(backup: Backup) -> tuple[list[Manifest], list[Manifest]]:
    """(volumes, mounts) of a folder that is a volume."""
    folder = backup.destination.folder
    if folder is None or folder.claim_name is None:
        return [], []
    volume = {"name": "backups", "persistentVolumeClaim": {"claimName": folder.claim_name}}
    return [volume], [{"name": "backups", "mountPath": folder.path}]
