"""The API client against the real API server: every method, ownership of fields, conflicts, pages, discovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from clusterkit.cluster import Cluster
from clusterkit.samples import feed
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.kube.client import KubeClient, load_configuration
from feedmill_operator.kube.events import Events
from feedmill_operator.reconcile.store import Live


@pytest.fixture
async def client(api_cluster: Cluster) -> AsyncIterator[KubeClient]:
    found = KubeClient(load_configuration(api_cluster.kubeconfig))
    yield found
    found.close()


def config_map(namespace: str, name: str = "c", **data: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {names.MANAGED_BY: names.MANAGER}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def test_apply_owns_what_it_names_and_lets_go_of_what_it_names_no_more(
    client: KubeClient, api_namespace: str
) -> None:
    first = await client.apply(kinds.CONFIG_MAP, config_map(api_namespace, a="1", b="2"))
    (entry,) = first["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == (names.FIELD_MANAGER, "Apply")
    again = await client.apply(kinds.CONFIG_MAP, config_map(api_namespace, a="1", b="2"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    less = await client.apply(kinds.CONFIG_MAP, config_map(api_namespace, a="1"))
    assert less["data"] == {"a": "1"}
    dry = await client.apply(kinds.CONFIG_MAP, config_map(api_namespace, a="9"), dry_run=True)
    assert dry["data"] == {"a": "9"}
    stored = await client.get(kinds.CONFIG_MAP, api_namespace, "c")
    assert stored is not None
    assert stored["data"] == {"a": "1"}


async def test_apply_takes_fields_back_and_a_replacement_removes_what_others_added(
    client: KubeClient, api_cluster: Cluster, api_namespace: str
) -> None:
    await client.apply(kinds.CONFIG_MAP, config_map(api_namespace, a="1"))
    assert not Live.of(kinds.CONFIG_MAP, await _need(client, api_namespace)).foreign
    api_cluster.kubectl(
        "patch", "configmap", "c", "-n", api_namespace, "--type=merge", "-p", '{"data":{"a":"2","theirs":"x"}}'
    )
    edited = await _need(client, api_namespace)
    assert Live.of(kinds.CONFIG_MAP, edited).foreign
    applied = await client.apply(kinds.CONFIG_MAP, config_map(api_namespace, a="1"))
    assert applied["data"] == {"a": "1", "theirs": "x"}  # What is not ours stays.
    assert Live.of(kinds.CONFIG_MAP, applied).foreign
    wanted = config_map(api_namespace, a="1")
    wanted["metadata"]["resourceVersion"] = edited["metadata"]["resourceVersion"]
    with pytest.raises(ApiError) as caught:
        await client.replace(kinds.CONFIG_MAP, wanted)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    wanted["metadata"]["resourceVersion"] = applied["metadata"]["resourceVersion"]
    replaced = await client.replace(kinds.CONFIG_MAP, wanted)
    assert replaced["data"] == {"a": "1"}
    assert not Live.of(kinds.CONFIG_MAP, replaced).foreign


async def test_create_patch_and_delete(client: KubeClient, api_namespace: str) -> None:
    created = await client.create(kinds.CONFIG_MAP, config_map(api_namespace, a="1"))
    with pytest.raises(ApiError) as caught:
        await client.create(kinds.CONFIG_MAP, config_map(api_namespace, a="1"))
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    patched = await client.patch(kinds.CONFIG_MAP, api_namespace, "c", {"data": {"a": None, "b": "2"}})
    assert patched["data"] == {"b": "2"}
    assert not await client.delete(kinds.CONFIG_MAP, api_namespace, "c", uid="00000000-0000-0000-0000-000000000000")
    assert await client.delete(kinds.CONFIG_MAP, api_namespace, "c", uid=created["metadata"]["uid"])
    assert not await client.delete(kinds.CONFIG_MAP, api_namespace, "c")
    assert await client.get(kinds.CONFIG_MAP, api_namespace, "c") is None


async def test_status_is_written_apart_and_a_wrong_object_is_refused_with_a_message(
    client: KubeClient, api_namespace: str
) -> None:
    await client.apply(kinds.FEED, feed("spot", api_namespace))
    status = {"status": {"observedGeneration": 1, "data": "Fresh"}}
    written = await client.patch_status(kinds.FEED, api_namespace, "spot", status)
    assert written["status"]["data"] == "Fresh"
    assert written["metadata"]["generation"] == 1
    wrong = feed("spot", api_namespace, channels=[])
    with pytest.raises(ApiError) as caught:
        await client.apply(kinds.FEED, wrong)
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")
    assert "spec.channels" in caught.value.message


async def test_lists_longer_than_a_page_are_whole(client: KubeClient, api_namespace: str) -> None:
    created = [client.create(kinds.CONFIG_MAP, config_map(api_namespace, f"c{number}")) for number in range(520)]
    await asyncio.gather(*created)
    other = config_map(api_namespace, "unlabelled")
    other["metadata"]["labels"] = {}
    await client.create(kinds.CONFIG_MAP, other)
    ours = f"{names.MANAGED_BY}={names.MANAGER}"
    found = await client.list(kinds.CONFIG_MAP, api_namespace, labels=ours)
    assert sorted(item["metadata"]["name"] for item in found) == sorted(f"c{number}" for number in range(520))
    versions = await client.versions(kinds.CONFIG_MAP, None, labels=ours)
    expected = {(item["metadata"]["uid"], item["metadata"]["resourceVersion"]) for item in found}
    assert expected <= {(version.uid, version.resource_version) for version in versions}
    assert len(await client.list(kinds.CONFIG_MAP, api_namespace)) == 521
    assert await client.versions(kinds.SECRET, api_namespace) == []


async def test_kinds_that_are_there_and_kinds_that_are_not(client: KubeClient) -> None:
    served = {kind.kind: await client.serves(kind) for kind in (*kinds.CUSTOM, *kinds.MADE)}
    assert {kind for kind, there in served.items() if not there} == {"PodMonitor", "PrometheusRule"}


async def test_events_are_shown_by_kubectl_describe(
    client: KubeClient, api_cluster: Cluster, api_namespace: str
) -> None:
    about: dict[str, Any] = await client.apply(kinds.FEED, feed("spot", api_namespace))
    events = Events(client, "op-1")
    running = asyncio.create_task(events.run())
    events.warning(about, "SecretMissing", "Secret redis is missing: create it")
    events.warning(about, "SecretMissing", "Secret redis is missing: create it")
    await events.flushed()
    running.cancel()
    described = (await asyncio.to_thread(api_cluster.kubectl, "describe", "xf/spot", "-n", api_namespace)).stdout
    assert described.count("Secret redis is missing: create it") == 1
    assert "feedmill-operator" in described.partition("Events:")[2]


async def _need(client: KubeClient, namespace: str) -> Manifest:
    found = await client.get(kinds.CONFIG_MAP, namespace, "c")
    assert found is not None
    return found
