"""The simulated nodes for kind, tried on the cluster tool's controllers: kind itself needs Docker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusterkit.api import Object
from clusterkit.cluster import Cluster, running
from clusterkit.fakenodes import fake_nodes
from clusterkit.tool import NoCluster
from clusterkit.waiting import until

pytestmark = [pytest.mark.slow]
POD = {"containers": [{"name": "x", "image": "x"}]}


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    try:
        with running("control-plane") as cluster, fake_nodes(cluster.api, 2):
            yield cluster
    except NoCluster as error:
        pytest.skip(str(error))


def deployment(namespace: str) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": namespace},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }  # fmt: skip


def test_pods_become_ready_and_go(bare: Cluster) -> None:
    namespace = bare.namespace()
    bare.api.create("deployments", deployment(namespace))
    bare.kubectl("wait", "--for=condition=Available", "deployment/x", "-n", namespace, "--timeout=90s")
    pods = bare.api.list("pods", namespace)
    assert {pod["spec"]["nodeName"] for pod in pods} == {"fake-0", "fake-1"}
    bare.api.delete("pods", namespace, pods[0]["metadata"]["name"])
    until(lambda: len({p["metadata"]["uid"] for p in bare.api.list("pods", namespace)}
                      - {p["metadata"]["uid"] for p in pods}) == 1)  # fmt: skip
    bare.api.delete("deployments", namespace, "x")
    until(lambda: not bare.api.list("pods", namespace))


def test_jobs_succeed(bare: Cluster) -> None:
    namespace = bare.namespace()
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x", "namespace": namespace},
        "spec": {"template": {"spec": {**POD, "restartPolicy": "Never"}}},
    }  # fmt: skip
    bare.api.create("jobs", job)
    bare.kubectl("wait", "--for=condition=Complete", "job/x", "-n", namespace, "--timeout=90s")
