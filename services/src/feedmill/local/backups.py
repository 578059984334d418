"""Backups in local mode: a process that makes them by ``spec.backup``, checked before anything is started."""

from __future__ import annotations

from pathlib import Path

from feedmill.general.backup.service import check
from feedmill.plan import Workload, show_key
from feedmill.resources.collection import Resources
from feedmill.shared.config import ConfigError


def backup_workloads(resources: Resources, secrets_dir: Path | None) -> tuple[list[Workload], list[str]]:
    """The processes, and lines for people: which pipelines are not backed up, since there is no ``secrets_dir``.

    On a cluster CronJobs do the schedules and a Deployment receives the log; here one process does both. Raises
    ConfigError where a Secret is to be found and cannot be used.
    """
    made: list[Workload] = []
    lines: list[str] = []
    for key, pipeline in sorted(resources.pipelines.items()):
        spec = pipeline.spec.backup
        if spec is None or spec.suspend or pipeline.spec.suspend:
            continue
        if secrets_dir is None:
            reference = spec.encryption.key_secret_ref
            lines.append(
                f"pipeline {show_key(key)}: spec.backup needs --secrets-dir with {reference.name}/{reference.key}: "
                "NOTHING IS BACKED UP in this run"
            )
            continue
        check(pipeline, secrets_dir, schedules=True)
        args = ("run", "backup", "--pipeline", show_key(key), "--schedules")
        made.append(Workload("backup", f"{key[1]}-backup", args, key))
    if len(made) > 1:
        names = ", ".join(show_key(load.pipeline) for load in made)
        raise ConfigError(
            f"pipelines {names} have spec.backup, and local mode has one database: keep it in one of them, or run "
            "them apart with their own --data-dir"
        )
    return made, lines
