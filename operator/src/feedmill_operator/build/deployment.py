"""Deployments: a new pod is ready before an old one goes."""

from __future__ import annotations

from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.objects import Head, Place, manifest


def deployment(place: Place, name: str, component: str, replicas: int, template: Manifest) -> Manifest:
    spec = {
        "replicas": replicas,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 300,
        "selector": {"matchLabels": place.selector(component)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": template,
    }
    return manifest(place, Head("apps/v1", "Deployment", name), component, spec=spec)
