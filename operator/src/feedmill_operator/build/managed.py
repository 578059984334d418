"""Managed Redis and PostgreSQL: one pod each, from our own image, on a volume that outlives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest

DATA_DIR = "/data"
PROGRAM = ("python", "-m", "feedmill.local.managed")
POSTGRES_RESOURCES = {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}


def managed_redis(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """Secret, Service and StatefulSet; empty when the user has a server of his own."""
    wanted = inputs.pipeline.spec.redis.managed
    if wanted is None:
        return []
    # Half as much again for the append-only file's rewrite, buffers and fragmentation.
    limit = wanted.memory.bytes * 3 // 2
    resources = {"requests": {"cpu": "100m", "memory": str(limit // 2)}, "limits": {"memory": str(limit)}}
    args = ["--maxmemory", str(wanted.memory.bytes)]
    return [
        secrets.redis_secret(place, inputs.redis_password),
        _service(place, names.REDIS, secrets.REDIS_PORT),
        _stateful_set(
            place, inputs, names.REDIS, secrets.REDIS_PORT, str(wanted.storage), args, resources
        ),
    ]  # fmt: skip


def managed_postgres(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """As :func:`managed_redis`."""
    wanted = inputs.pipeline.spec.postgres.managed
    if wanted is None:
        return []
    return [
        secrets.postgres_secret(place, inputs.postgres_password),
        _service(place, names.POSTGRES, secrets.POSTGRES_PORT),
        _stateful_set(
            place, inputs, names.POSTGRES, secrets.POSTGRES_PORT, str(wanted.storage), [], POSTGRES_RESOURCES
        ),
    ]  # fmt: skip


def _service(place: Place, server: str, port: int) -> Manifest:
    spec = {
        "clusterIP": "None",
        "selector": place.selector(server),
        "ports": [{"name": server, "port": port, "targetPort": server, "protocol": "TCP"}],
    }
    head = Head("v1", "Service", names.service(place.pipeline, server))
    return manifest(place, head, server, spec=spec)


def _stateful_set(
    place: Place,
    inputs: PipelineInputs,
    server: str,
    port: int,
    storage: str,
    args: Sequence[str],
    resources: dict[str, dict[str, str]],
) -> Manifest:
    name = names.managed(place.pipeline, server)
    password = secrets.Key(name, secrets.PASSWORD)
    answers = {"tcpSocket": {"port": server}, "timeoutSeconds": 5}
    probes: dict[str, Any] = {
        "startupProbe": answers | {"periodSeconds": 2, "failureThreshold": 150},
        "livenessProbe": answers | {"periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": answers | {"periodSeconds": 3, "failureThreshold": 2},
    }
    process = pods.Process(
        component=server,
        image=inputs.server_images.get(server, inputs.image),
        command=[*PROGRAM, server],
        args=["--data", DATA_DIR, "--port", str(port), "--password-file", password.path, *args],
        keys=[password],
        defaults=resources,
        probes=probes,
        ports=[{"name": server, "containerPort": port, "protocol": "TCP"}],
        mounts=[{"name": "data", "mountPath": DATA_DIR}],
    )
    # The image is the services' own: who needs a Secret to pull it says so for the processors.
    services = inputs.pipeline.spec.processor.pod_template
    pull_secrets = services.spec.image_pull_secrets if services is not None else []
    spec = {
        "replicas": 1,
        "serviceName": names.service(place.pipeline, server),
        # With OrderedReady a pod that cannot start would have to be deleted by hand before its mended successor comes.
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": place.selector(server)},
        # Data outlives the StatefulSet and the pipeline: it is deleted by hand, never by accident.
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "template": pods.pod(place, process, pull_secrets=pull_secrets),
        "volumeClaimTemplates": [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "labels": place.selector(server)},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
            }
        ],
    }
    return manifest(place, Head("apps/v1", "StatefulSet", name), server, spec=spec)
