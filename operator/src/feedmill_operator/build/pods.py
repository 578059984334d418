"""The pod of a process: what is the same for all roles. Restricted Pod Security throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedmill.resources.common import PodTemplate, ResourceRequirements, SecretRef
from feedmill_operator import names
from feedmill_operator.build import secrets
from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.objects import Place
from feedmill_operator.build.resources import merged

USER_ID = 10001
"""Of the images' user."""
GRACE = 45
"""Seconds a pod gets to drain; the processes take 20 at most."""
TMP_SIZE = "64Mi"
HEALTH = "health"
"""Name of the port with /healthz, /readyz, /health and /metrics."""

CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, slots=True)
class Process:
    """One container and what it needs."""

    component: str
    image: str
    args: Sequence[str] = ()
    command: Sequence[str] = ()
    """Instead of the image's own."""
    config_map: str = ""
    keys: Sequence[secrets.Key] = ()
    optional_keys: Sequence[secrets.Key] = ()
    """Of Secrets that may come later, or go: the process says what it lacks."""
    env: Sequence[Manifest] = ()
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Requests and limits where the user gives none."""
    resources: ResourceRequirements | None = None
    probes: Mapping[str, Any] = field(default_factory=dict)
    ports: Sequence[Manifest] = ()
    volumes: Sequence[Manifest] = ()
    mounts: Sequence[Manifest] = ()
    termination_message: str = "FallbackToLogsOnError"
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the pods, more than those of the place."""


def health_probes() -> dict[str, Any]:
    """Liveness never asks Redis or PostgreSQL; readiness says whether the process does its work."""

    def ask(path: str, period: int, timeout: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": HEALTH},
            "periodSeconds": period,
            "timeoutSeconds": timeout,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": ask("/healthz", 1, 5, 120),
        "livenessProbe": ask("/healthz", 10, 5, 6),
        "readinessProbe": ask("/readyz", 3, 3, 2),
    }


def health_port() -> Manifest:
    return {"name": HEALTH, "containerPort": names.HEALTH_PORT, "protocol": "TCP"}


def pod(
    place: Place,
    process: Process,
    *,
    template: PodTemplate | None = None,
    restart: str = "",
    never: bool = False,
    pull_secrets: Sequence[SecretRef] = (),
) -> Manifest:
    """A pod template (metadata and spec). ``never``: a Job's pod, which is not started again in place;
    ``pull_secrets``: where there is no template to name them."""
    given = template.spec if template is not None else None
    labels = _users(template.metadata.labels) if template is not None else {}
    annotations = _users(template.metadata.annotations) if template is not None else {}
    if restart:
        annotations[names.RESTARTED] = restart
    spec: Manifest = {
        "serviceAccountName": names.account(place.pipeline),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "terminationGracePeriodSeconds": (given and given.termination_grace_period_seconds) or GRACE,
        "containers": [_container(process)],
        "volumes": _volumes(process),
    }
    if never:
        spec["restartPolicy"] = "Never"
    elif given is None or not (given.affinity or given.topology_spread_constraints):
        spec |= _spread(place.selector(process.component))
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": each.name} for each in pull_secrets]
    if given is not None:
        spec |= _scheduling(given)
    # Our own labels last: a selector must find the pods whatever the template says.
    metadata: Manifest = {"labels": labels | place.labels(process.component) | dict(process.labels)}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def _users(given: Mapping[str, str]) -> dict[str, str]:
    """Without names of ours: a processor with a feed's label would be taken for one of the feed's pods."""
    return {name: value for name, value in given.items() if not name.startswith(f"{names.GROUP}/")}


def _container(process: Process) -> Manifest:
    container: Manifest = {"name": process.component, "image": process.image, "imagePullPolicy": "IfNotPresent"}
    if process.command:
        container["command"] = list(process.command)
    if process.args:
        container["args"] = list(process.args)
    if process.env:
        container["env"] = list(process.env)
    if process.ports:
        container["ports"] = list(process.ports)
    container |= process.probes
    container["resources"] = merged(process.defaults, process.resources)
    container["securityContext"] = dict(CONTAINER_SECURITY)
    # What a process says last stands in the pod's status, so that people and the operator see it.
    container["terminationMessagePolicy"] = process.termination_message
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a volume of the pod's own
    if process.config_map:
        mounts.append({"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True})  # type: ignore[dict-item]
    if process.keys:
        mounts.append({"name": secrets.VOLUME, "mountPath": names.SECRETS_DIR, "readOnly": True})  # type: ignore[dict-item]
    container["volumeMounts"] = [*mounts, *process.mounts]
    return container


def _volumes(process: Process) -> list[Manifest]:
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE}}]
    if process.config_map:
        # As a folder, never by subPath: only then does the kubelet refresh it.
        volumes.append({"name": "config", "configMap": {"name": process.config_map, "defaultMode": 0o444}})
    if process.keys:
        volumes.append(secrets.volume(process.keys, process.optional_keys))
    return [*volumes, *process.volumes]


def _spread(selector: Mapping[str, str]) -> Manifest:
    """Over nodes, where there are several."""
    match = {"matchLabels": dict(selector)}
    return {
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": match},
                    }
                ]
            }
        },
    }


def _scheduling(given: Any) -> Manifest:
    wanted = {
        "nodeSelector": given.node_selector,
        "tolerations": given.tolerations,
        "affinity": given.affinity,
        "topologySpreadConstraints": given.topology_spread_constraints,
        "priorityClassName": given.priority_class_name,
        "runtimeClassName": given.runtime_class_name,
        "imagePullSecrets": [{"name": each.name} for each in given.image_pull_secrets],
    }
    return {name: value for name, value in wanted.items() if value}


def service_args(
    role: str, named: Sequence[str], keys: Iterable[secrets.Key], *, more: Sequence[str] = ()
) -> list[str]:
    """Arguments of ``feedmill run ROLE`` in a pod. ``named``: which feed or pipeline."""
    args = ["run", role, *named, "--config", f"{names.CONFIG_DIR}/resources.yaml"]
    if tuple(keys):
        args += ["--secrets-dir", names.SECRETS_DIR]
    return [*args, "--health-host", "0.0.0.0", "--health-port", str(names.HEALTH_PORT), *more]  # noqa: S104 - a pod's own
