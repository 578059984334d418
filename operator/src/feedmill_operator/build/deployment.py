"""Deployments: a new pod is ready before an old one goes, unless there must never be two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.objects import Head, Place, manifest

_SURGE: Mapping[str, Any] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def deployment(
    place: Place, name: str, component: str, replicas: int, template: Manifest, *, alone: bool = False
) -> Manifest:
    """``alone``: the old pod goes before the new one comes."""
    spec = {
        "replicas": replicas,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 300,
        "selector": {"matchLabels": place.selector(component)},
        "strategy": {"type": "Recreate"} if alone else dict(_SURGE),
        "template": template,
    }
    return manifest(place, Head("apps/v1", "Deployment", name), component, spec=spec)
