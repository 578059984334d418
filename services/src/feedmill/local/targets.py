"""What a Prometheus is to scrape in local mode, and by which labels: those that a PodMonitor gives on a cluster. Pure.

So the same alerts and dashboards serve both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feedmill.plan import Workload


def targets(host: str, services: Iterable[tuple[Workload, int | None]]) -> list[dict[str, Any]]:
    """The answer of ``/targets``, as Prometheus' HTTP service discovery reads it: each service and its labels.

    ``services``: with the port of its health server; one that has none now is left out.
    """
    return [{"targets": [f"{host}:{port}"], "labels": labels(load)} for load, port in services if port is not None]


def labels(load: Workload) -> dict[str, str]:
    """Of the samples of one service."""
    namespace, pipeline = load.pipeline
    found = {
        "namespace": namespace,
        "pod": load.name,
        # Its address is another one after each restart; its series go on.
        "instance": load.name,
        "app_kubernetes_io_component": load.role,
        "feedmill_dev_pipeline": pipeline,
    }
    if load.feed is not None:
        found["feedmill_dev_feed"] = load.feed[1]
    if load.shard is not None:
        found["feedmill_dev_shard"] = str(load.shard)
    return found
