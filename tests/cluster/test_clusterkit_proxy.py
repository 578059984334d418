"""The proxy of the fault tests does what its name says: a test that trusts it would prove nothing otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from clusterkit.api import Api, Refused, path
from clusterkit.cluster import Cluster
from clusterkit.proxy import FaultProxy, Request, proxying, writes
from clusterkit.waiting import until


@pytest.fixture
def proxy(api_cluster: Cluster) -> Iterator[FaultProxy]:
    with proxying(api_cluster.api) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: FaultProxy, tmp_path: Path) -> Api:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {"clusters": [{"name": "p", "cluster": {"server": proxy.url}}], "users": [{"name": "p", "user": {}}]}
        )
    )
    return Api(kubeconfig)


def config_map(namespace: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": namespace}}


@pytest.mark.parametrize(
    ("method", "url", "query", "kind", "wanted"),
    [
        ("GET", "/api/v1/namespaces/a/secrets/b", {}, "", Request("get", "secrets", "a", "b")),
        ("GET", "/apis/apps/v1/deployments", {"watch": "true"}, "", Request("watch", "deployments", "", "")),
        ("GET", "/apis/apps/v1/namespaces/a/deployments", {}, "", Request("list", "deployments", "a", "")),
        (
            "PATCH", "/apis/feedmill.dev/v1alpha1/namespaces/a/exchangefeeds/b/status", {},
            "application/merge-patch+json", Request("patch", "exchangefeeds/status", "a", "b"),
        ),
        ("PATCH", "/api/v1/namespaces/a/configmaps/b", {}, "application/apply-patch+yaml",
         Request("apply", "configmaps", "a", "b")),
        ("DELETE", "/apis/batch/v1/namespaces/a/jobs/b", {}, "", Request("delete", "jobs", "a", "b")),
        ("GET", "/api/v1/namespaces/a", {}, "", Request("get", "namespaces", "", "a")),
    ],
)  # fmt: skip
def test_requests_in_the_words_of_rbac(
    method: str, url: str, query: dict[str, str], kind: str, wanted: Request
) -> None:
    assert Request.of(method, url, query, kind) == wanted


def test_it_forwards_and_counts(proxy: FaultProxy, through: Api, api_cluster: Cluster, api_namespace: str) -> None:
    through.create("configmaps", config_map(api_namespace))
    through.merge("configmaps", api_namespace, "x", {"data": {"a": "b"}})
    assert through.need("configmaps", api_namespace, "x")["data"] == {"a": "b"}
    through.delete("configmaps", api_namespace, "x")
    assert api_cluster.api.get("configmaps", api_namespace, "x") is None
    wanted = {("create", "configmaps"): 1, ("patch", "configmaps"): 1, ("get", "configmaps"): 1}
    assert proxy.counts == wanted | {("delete", "configmaps"): 1}


def test_it_breaks_what_fits_and_only_so_often(proxy: FaultProxy, through: Api, api_namespace: str) -> None:
    fault = proxy.fail(writes, 409, times=2)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            through.create("configmaps", config_map(api_namespace))
        assert (caught.value.status, caught.value.body["reason"]) == (409, "Conflict")
    through.create("configmaps", config_map(api_namespace))
    assert fault.done == 2
    proxy.fail(writes, 0)
    # The client tries a cut connection once more.
    through.merge("configmaps", api_namespace, "x", {"data": {"a": "b"}})


def test_watches_are_cut_and_expired(proxy: FaultProxy, through: Api, api_cluster: Cluster, api_namespace: str) -> None:
    api_cluster.api.create("configmaps", config_map(api_namespace))
    events = through.watch("configmaps", api_namespace, 60)
    assert next(events)["type"] == "ADDED"
    assert until(proxy.expire_watches, 5) == 1
    last = list(events)[-1]
    assert (last["type"], last["object"]["code"]) == ("ERROR", 410)
    events = through.watch("configmaps", api_namespace, 60)
    next(events)
    assert until(proxy.drop_watches, 5) == 1
    # Long before the 60 s are over; with an error or without, as the cut meets a chunk or the pause between two.
    started = time.monotonic()
    with suppress(OSError, HTTPException):
        list(events)
    assert time.monotonic() - started < 30


def test_an_outage_and_its_end(proxy: FaultProxy, through: Api, api_namespace: str) -> None:
    proxy.outage()
    with pytest.raises((OSError, HTTPException)):
        through.list("configmaps", api_namespace)
    proxy.restore()
    started = time.monotonic()
    proxy.latency = 0.3
    assert through.list("configmaps", api_namespace) == []
    assert time.monotonic() - started >= 0.3
    assert path("configmaps", api_namespace).endswith("configmaps")
