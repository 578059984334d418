"""The store: versions, owners, who else writes, pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Manifest
from feedmill_operator.reconcile.store import Store, is_foreign


def deployment(version: int, uid: str = "u1", owner: str = "o1", **more: Any) -> Manifest:
    metadata = {
        "name": "spot-receiver-0",
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
        "generation": 3,
        "labels": {names.FEED: "spot", names.PIPELINE: "main"},
        "managedFields": [{"manager": names.FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
        "ownerReferences": [
            {
                "apiVersion": "feedmill.dev/v1alpha1",
                "kind": "ExchangeFeed",
                "name": "spot",
                "uid": owner,
                "controller": True,
            }
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": 1},
        "status": {"readyReplicas": 1},
        **more,
    }


def pod(name: str, version: int = 1, feed: str = "spot", **status: Any) -> Manifest:
    labels = {names.FEED: feed, names.PIPELINE: "main", names.COMPONENT: "receiver"}
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "labels": labels,
    }
    return {"metadata": metadata, "status": status}


def facts(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["metadata"]["name"], obj["status"].get("phase", "")


@pytest.fixture
def store() -> Store[tuple[str, str]]:
    return Store(facts)


def test_an_object_is_kept_without_managed_fields_and_with_its_status_apart(store: Store[Any]) -> None:
    obj = deployment(5)
    live = store.update(kinds.DEPLOYMENT, obj)
    assert live.manifest["spec"] == {"replicas": 1}
    assert "managedFields" not in live.manifest["metadata"]
    assert "status" not in live.manifest
    assert live.status == {"readyReplicas": 1}
    assert (live.uid, live.resource_version, live.generation, live.owner_uid) == ("u1", "5", 3, "o1")
    assert live.pipeline == "main"
    assert not live.foreign
    assert obj["metadata"]["managedFields"]  # What was given stays as it is.


def test_an_older_version_never_replaces_a_newer_one_and_the_same_is_no_news(store: Store[Any]) -> None:
    newer = store.update(kinds.DEPLOYMENT, deployment(10))
    assert store.update(kinds.DEPLOYMENT, deployment(9)) is newer
    assert store.update(kinds.DEPLOYMENT, deployment(10)) is newer
    assert store.update(kinds.DEPLOYMENT, deployment(11)) is not newer


def test_a_name_taken_anew_is_another_object(store: Store[Any]) -> None:
    store.update(kinds.DEPLOYMENT, deployment(10))
    again = store.update(kinds.DEPLOYMENT, deployment(20, uid="u2", owner="o2"))
    assert store.get(kinds.DEPLOYMENT, "ns", "spot-receiver-0") is again
    assert store.owned("o1") == []
    assert store.owned("o2") == [again]
    # The deletion of the first one comes late.
    assert store.remove(kinds.DEPLOYMENT, "ns", "spot-receiver-0", "u1") is None
    assert store.remove(kinds.DEPLOYMENT, "ns", "spot-receiver-0", "u2") is again
    assert store.owned("o2") == []
    assert store.of_kind(kinds.DEPLOYMENT) == []


def test_only_a_controlling_owner_of_ours_counts(store: Store[Any]) -> None:
    obj = deployment(1)
    obj["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "CronJob", "name": "x", "uid": "c", "controller": True},
        {"apiVersion": "feedmill.dev/v1alpha1", "kind": "FeedPipeline", "name": "main", "uid": "p"},
    ]
    assert store.update(kinds.DEPLOYMENT, obj).owner_uid == ""


def test_a_feed_tells_its_pipeline(store: Store[Any]) -> None:
    feed = {"metadata": {"name": "spot", "namespace": "ns", "uid": "f"}, "spec": {"pipelineRef": {"name": "main"}}}
    live = store.update(kinds.FEED, feed)
    assert live.pipeline == "main"
    assert live.manifest["kind"] == "ExchangeFeed"  # Items of a list come without it.
    assert [found.name for found in store.of_kind(kinds.FEED, "ns")] == ["spot"]
    assert store.of_kind(kinds.FEED, "other") == []


@pytest.mark.parametrize(
    ("entry", "foreign"),
    [
        ({"manager": names.FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}, False),
        ({"manager": "kubectl-edit", "fieldsV1": {"f:spec": {"f:replicas": {}}}}, True),
        ({"manager": "kubectl-edit", "fieldsV1": {"f:data": {"f:x": {}}}}, True),
        ({"manager": "kubectl-edit", "fieldsV1": {"f:rules": {}}}, True),
        ({"manager": "kubectl", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}, False),
        ({"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:status": {}}}, False),
        ({"manager": "kube-controller-manager", "fieldsV1": {"f:metadata": {"f:annotations": {}}}}, False),
        ({"manager": "kube-controller-manager", "fieldsV1": {"f:spec": {"f:volumeName": {}}}}, False),
        ({"manager": "x", "fieldsV1": {"f:spec": {"f:volumeName": {}, "f:resources": {}}}}, True),
        (
            {
                "manager": "kubectl-rollout",
                "fieldsV1": {
                    "f:spec": {
                        "f:template": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}
                    }
                },
            },
            False,
        ),
        ({"manager": "x"}, False),
    ],
)
def test_who_else_writes_content(entry: dict[str, Any], foreign: bool) -> None:
    assert is_foreign([entry]) is foreign


def test_pods_are_found_by_labels_and_only_new_facts_are_news(store: Store[Any]) -> None:
    assert store.update_pod(pod("a", phase="Pending"))
    assert store.update_pod(pod("b", feed="usdm", phase="Running"))
    assert store.pods("ns", **{names.FEED: "spot"}) == [("a", "Pending")]
    assert store.pods("ns", **{names.PIPELINE: "main"}) == [("a", "Pending"), ("b", "Running")]
    assert store.pods("ns", **{names.PIPELINE: "main", names.COMPONENT: "processor"}) == []
    assert store.pods("ns", **{names.COMPONENT: "receiver"}) == [("a", "Pending"), ("b", "Running")]
    assert store.pods("other", **{names.FEED: "spot"}) == []
    assert not store.update_pod(pod("a", version=2, phase="Pending", podIP="10.0.0.1"))
    assert store.update_pod(pod("a", version=3, phase="Running"))
    assert not store.update_pod(pod("a", version=2, phase="Pending"))
    assert store.pods("ns", **{names.FEED: "spot"}) == [("a", "Running")]


def test_a_pod_whose_label_moves_is_found_where_it_is(store: Store[Any]) -> None:
    store.update_pod(pod("a", feed="spot"))
    assert store.update_pod(pod("a", version=2, feed="usdm"))
    assert store.pods("ns", **{names.FEED: "spot"}) == []
    assert store.pods("ns", **{names.FEED: "usdm"}) == [("a", "")]
    assert not store.remove_pod("ns", "a", "another")
    assert store.remove_pod("ns", "a", "uid-a")
    assert store.pods("ns", **{names.FEED: "usdm"}) == []
    assert not store.remove_pod("ns", "a")
    assert store.versions(kinds.POD) == {}
