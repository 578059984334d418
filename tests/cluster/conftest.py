"""A real Kubernetes for the tests: one cluster of a kind for the whole run, a fresh namespace for each test."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clusterkit.cluster import Cluster, running
from clusterkit.extras import STORAGE_CLASS, monitoring_crds, remove_volumes
from clusterkit.images import Images, load_images, make_images
from clusterkit.install import Installed, install
from clusterkit.operator import Operator, operating, prepare
from clusterkit.proxy import FaultProxy, proxying
from clusterkit.tool import NoCluster


def pytest_configure(config: pytest.Config) -> None:
    """A run that is asked to end (a time limit of CI) ends its clusters too."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: pytest.exit("stopped by SIGTERM", returncode=143))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Last of all, so that no API server stands beside other tests."""
    items.sort(key=lambda item: Path(__file__).parent in item.path.parents)


ALLOWED_ERRORS: tuple[str, ...] = ()
"""What the operator may log as an error in any test: nothing. A test that breaks something on purpose adds its own with
the marker ``allowed_errors``."""


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[Cluster]:
    """The API server and etcd with our CRDs; no controllers, no nodes."""
    yield from _session("api-only")


@pytest.fixture(scope="session")
def kwok_cluster() -> Iterator[Cluster]:
    """All controllers and simulated nodes, on which pods become Ready and run nothing."""
    for cluster in _session("kwok"):
        cluster.apply(STORAGE_CLASS, *monitoring_crds())
        prepare(cluster)
        yield cluster
        remove_volumes(cluster)


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[Cluster]:
    """All controllers and a real node that runs pods."""
    if os.environ.get("FEEDMILL_E2E") != "1":
        pytest.skip("a real node takes minutes and root: run `make e2e`")
    # Nodes beside each other on one machine need numbers of their own (0 to 15).
    yield from _session("node", with_crds=False, index=int(os.environ.get("FEEDMILL_E2E_INDEX", "0")))


@pytest.fixture(scope="session")
def images() -> Images:
    """Of this working tree."""
    try:
        return make_images()
    except NoCluster as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def installed(node_cluster: Cluster, images: Images) -> Iterator[Installed]:
    """The chart, in the real node. The last test that uses it takes it away."""
    load_images(node_cluster, images)
    try:
        with install(node_cluster, images) as found:
            yield found
    except NoCluster as error:
        pytest.skip(str(error))


def _session(mode: str, **options: Any) -> Iterator[Cluster]:
    try:
        with running(mode, **options) as cluster:
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


@pytest.fixture(scope="module")
def shared_operator(kwok_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator for all tests of a file; it watches every namespace."""
    with operating(kwok_cluster, tmp_path_factory.mktemp("operator")) as operator:
        yield operator


def allowed_errors(request: pytest.FixtureRequest) -> list[str]:
    found = list(ALLOWED_ERRORS)
    for marker in request.node.iter_markers("allowed_errors"):
        found += marker.args
    return found


@pytest.fixture
def operator(shared_operator: Operator, request: pytest.FixtureRequest) -> Iterator[Operator]:
    """The file's operator. The test fails when it logs an error meanwhile."""
    mark = shared_operator.mark()
    yield shared_operator
    errors = shared_operator.errors(mark, allowed_errors(request))
    assert errors == [], f"the operator logged errors: {errors}"
    assert shared_operator.alive()


Start = Callable[..., Operator]


@pytest.fixture
def start_operator(
    kwok_cluster: Cluster, namespace: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Start]:
    """``start_operator(name="a", server=proxy.url)`` -> one of the test's own, for its namespace only, ready. The test
    fails when one logs an error."""
    with ExitStack() as stack:
        started: list[Operator] = []

        def start(*, wait: bool = True, **options: Any) -> Operator:
            found = Operator(kwok_cluster, tmp_path, **({"namespace": namespace} | options))
            started.append(found)
            stack.callback(lambda: found.stop() if found.alive() else None)
            found.start()
            return found.ready() if wait else found

        yield start
    for operator in started:
        errors = operator.errors(0, allowed_errors(request))
        assert errors == [], f"the operator {operator.name} logged errors: {errors}"


@pytest.fixture
def proxy(kwok_cluster: Cluster) -> Iterator[FaultProxy]:
    """Counts and breaks what goes through it."""
    with proxying(kwok_cluster.api) as found:
        yield found
