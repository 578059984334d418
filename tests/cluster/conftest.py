"""A real Kubernetes for the tests: one cluster of a kind for the whole run, a fresh namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusterkit.cluster import Cluster, running
from clusterkit.tool import NoCluster


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[Cluster]:
    """The API server and etcd with our CRDs; no controllers, no nodes."""
    yield from _session("api-only")


@pytest.fixture(scope="session")
def kwok_cluster() -> Iterator[Cluster]:
    """All controllers and simulated nodes, on which pods become Ready and run nothing."""
    yield from _session("kwok")


def _session(mode: str) -> Iterator[Cluster]:
    try:
        with running(mode) as cluster:
            yield cluster
    except NoCluster as error:
        pytest.skip(str(error))


@pytest.fixture
def api_namespace(api_cluster: Cluster) -> str:
    """A fresh namespace of ``api_cluster``; nobody is there to delete it in order, it ends with the cluster."""
    return api_cluster.namespace()


@pytest.fixture
def namespace(kwok_cluster: Cluster) -> Iterator[str]:
    """A fresh namespace of ``kwok_cluster``."""
    name = kwok_cluster.namespace()
    yield name
    kwok_cluster.drop_namespace(name)
