"""PodDisruptionBudgets: nodes are drained a pod of a kind at a time. None for a single pod: it would block a drain."""

from __future__ import annotations

from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.objects import Head, Place, manifest


def budgets(place: Place, name: str, component: str, replicas: int) -> list[Manifest]:
    if replicas < 2:
        return []
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": place.selector(component)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return [manifest(place, Head("policy/v1", "PodDisruptionBudget", name), component, spec=spec)]
