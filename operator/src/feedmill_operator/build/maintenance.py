"""The CronJob that keeps PostgreSQL, and what feeds that are gone left in Redis, in order."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest

DEFAULTS = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
SCHEDULE = "*/10 * * * *"


def maintenance(place: Place, inputs: PipelineInputs) -> Manifest:
    servers = (names.REDIS, names.POSTGRES)
    keys = secrets.server_keys(inputs.pipeline, servers)
    named = ["--pipeline", "/".join(inputs.pipeline.key), "--once"]
    process = pods.Process(
        component=names.MAINTENANCE,
        image=inputs.image,
        args=pods.service_args("maintenance", named, keys),
        config_map=names.pipeline_config(place.pipeline),
        keys=keys,
        env=secrets.url_files(inputs.pipeline, servers),
        defaults=DEFAULTS,
    )
    template = pods.pod(place, process, template=inputs.pipeline.spec.processor.pod_template, never=True)
    spec = {
        "schedule": SCHEDULE,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 300,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 2,
        "jobTemplate": {
            "metadata": {"labels": place.labels(names.MAINTENANCE)},
            "spec": {"backoffLimit": 2, "activeDeadlineSeconds": 540, "template": template},
        },
    }
    head = Head("batch/v1", "CronJob", names.maintenance(place.pipeline))
    return manifest(place, head, names.MAINTENANCE, spec=spec)
