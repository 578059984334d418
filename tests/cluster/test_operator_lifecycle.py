"""Both kinds through their life, on the real API server with its controllers: made, changed, scaled, suspended, paused,
restarted, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from clusterkit import samples
from clusterkit.cluster import Cluster
from clusterkit.operator import Operator
from clusterkit.waiting import holds, until
from clusterkit.world import World, essence

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("operator")]


@pytest.fixture
def world(kwok_cluster: Cluster, namespace: str) -> World:
    world = World(kwok_cluster, namespace)
    world.secrets()
    return world


def config(world: World, name: str) -> list[dict[str, Any]]:
    """The documents that the pods of a feed or pipeline read."""
    found = world.cluster.api.need("configmaps", world.namespace, name)
    return [document for document in yaml.safe_load_all(found["data"]["resources.yaml"]) if document]


def template(world: World, deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = world.cluster.api.need("deployments", world.namespace, deployment)["spec"]["template"]
    return found


# --- made ------------------------------------------------------------------------------------------------------------


def test_a_pipeline_and_a_feed_become_ready(world: World) -> None:
    world.pipeline()
    world.feed()
    # As the documentation tells users to wait.
    world.cluster.kubectl(
        "wait", "--for=condition=Ready", "fpl/main", "xf/spot", "-n", world.namespace, "--timeout=120s"
    )
    kinds = {plural for plural, _ in world.made("fpl/main")}
    assert {"configmaps", "serviceaccounts", "deployments", "jobs", "cronjobs", "networkpolicies"} <= kinds
    assert {name for plural, name in world.made("xf/spot") if plural == "deployments"} == {
        "spot-receiver-0",
        "spot-distributor-0",
    }
    status = world.status("xf/spot")
    assert status["observedGeneration"] == 1
    assert status["instruments"] == 2
    assert status["receiver"] == {"replicas": 1, "updated": 1, "ready": 1}
    # Nobody answers on simulated nodes: unknown stays unknown.
    assert world.condition("xf/spot", "DataFresh")["status"] == "Unknown"
    # Counts may be a few seconds late.
    until(lambda: world.status("fpl/main").get("feeds") == 1, what="the feed to be counted")
    assert world.status("fpl/main")["migration"]


def test_all_conditions_are_there_from_the_first_visit(world: World) -> None:
    world.feed()
    world.wait("xf/spot", "Accepted", "False")
    wanted = {"Ready", "Accepted", "Progressing", "ReceiverAvailable", "DistributorAvailable", "RedisReachable",
              "DataFresh", "Suspended", "Paused"}  # fmt: skip
    conditions = {item["type"]: item for item in world.status("xf/spot")["conditions"]}
    assert set(conditions) == wanted
    assert all(item["observedGeneration"] == 1 and item["lastTransitionTime"] for item in conditions.values())


def test_everything_is_owned_without_finalizers(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    for owner in ("fpl/main", "xf/spot"):
        found = world.get(owner)
        assert found is not None
        assert "finalizers" not in found["metadata"]
        # Nothing of ours in the user's object but its status.
        assert "annotations" not in found["metadata"]
        for item in world.made(owner).values():
            reference = item["metadata"]["ownerReferences"]
            assert len(reference) == 1
            assert reference[0]["controller"] is True
            assert "blockOwnerDeletion" not in reference[0]
            assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "feedmill-operator"
    assert len(world.made()) == len(world.made("fpl/main")) + len(world.made("xf/spot"))


def test_pods_have_no_rights_and_no_way_up(world: World) -> None:
    """A namespace of the restricted Pod Security level takes everything the operator makes."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    world.cluster.api.request(
        "PATCH", f"/api/v1/namespaces/{world.namespace}", {"metadata": {"labels": label}},
        "application/merge-patch+json",
    )  # fmt: skip
    world.pipeline(redis={"managed": {}}, postgres={"managed": {}})
    world.feed()
    world.ready("fpl/main", "xf/spot")
    pods = world.pods()
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} >= {
        "receiver", "distributor", "processor", "redis", "postgres",
    }  # fmt: skip
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not any("projected" in volume and "serviceAccountToken" in json.dumps(volume)
                       for volume in pod["spec"].get("volumes", []))  # fmt: skip


# --- changed ---------------------------------------------------------------------------------------------------------


def test_a_change_of_instruments_is_reloaded_not_rolled(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    before = {name: template(world, name) for name in ("spot-receiver-0", "spot-distributor-0", "main-processor")}
    pods = {pod["metadata"]["uid"] for pod in world.pods("receiver")}
    old = world.status("xf/spot")["config"]["hash"]
    world.patch("xf/spot", {"spec": {"instruments": {"symbols": ["BTC-USDT", "ETH-USDT", "SOL-USDT"]}}})
    until(lambda: world.status("xf/spot").get("instruments") == 3)
    assert config(world, "spot-feed-config")[1]["spec"]["instruments"]["symbols"][-1] == "SOL-USDT"
    new = world.status("xf/spot")["config"]["hash"]
    assert new != old
    # So that the kubelet refreshes the volume at once.
    until(lambda: all(p["metadata"]["annotations"].get("feedmill.dev/config-hash") == new
                      for p in world.pods("receiver")))  # fmt: skip
    # Its pipeline's processors read the feed too.
    until(lambda: "SOL-USDT" in config(world, "main-pipeline-config")[1]["spec"]["instruments"]["symbols"])
    assert {name: template(world, name) for name in before} == before
    assert {pod["metadata"]["uid"] for pod in world.pods("receiver")} == pods


def test_a_change_of_image_rolls_and_is_told(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    world.patch("fpl/main", {"spec": {"image": "registry.example.com/feedmill/services:2"}})
    until(lambda: world.status("xf/spot").get("image", "").endswith(":2"), what="the feed's image in its status")
    world.ready("fpl/main", "xf/spot")
    until(lambda: all(c["image"].endswith(":2") for pod in world.pods() for c in pod["spec"]["containers"]
                      if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "migration"))  # fmt: skip
    jobs = [item for (plural, _), item in world.made("fpl/main").items() if plural == "jobs"]
    assert any(job["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":2") for job in jobs)


def test_each_shard_has_its_processes_and_they_are_scaled(world: World) -> None:
    world.pipeline()
    symbols = ["BTC-USDT", "ETH-USDT", "SOL-USDT", "BNB-USDT", "XRP-USDT", "ADA-USDT"]
    world.feed(instruments={"symbols": symbols}, receiver={"shards": 2})
    world.ready("xf/spot")
    assert not [name for plural, name in world.made("xf/spot") if plural == "poddisruptionbudgets"]
    world.patch("xf/spot", {"spec": {"receiver": {"replicas": 2}}})
    wanted = {f"spot-{role}-{shard}" for role in ("receiver", "distributor") for shard in (0, 1)}

    def deployments() -> set[str]:
        return {name for plural, name in world.made("xf/spot") if plural == "deployments"}

    # That it is Ready by the new spec: the two shards were there before.
    world.ready("xf/spot")
    assert deployments() == wanted
    assert world.cluster.api.need("deployments", world.namespace, "spot-receiver-1")["spec"]["replicas"] == 2
    assert [name for plural, name in world.made("xf/spot") if plural == "poddisruptionbudgets"]
    world.patch("xf/spot", {"spec": {"receiver": {"replicas": 1}}})
    until(lambda: not [name for plural, name in world.made("xf/spot") if plural == "poddisruptionbudgets"], what="none")
    world.ready("xf/spot")
    assert not [name for plural, name in world.made("xf/spot") if plural == "poddisruptionbudgets"]


def test_kubectl_scale_of_the_processor_holds(world: World) -> None:
    world.pipeline()
    world.ready("fpl/main")
    world.cluster.kubectl("scale", "fpl/main", "--replicas=3", "-n", world.namespace)
    until(lambda: len(world.pods("processor")) == 3)
    status = until(lambda: s if (s := world.status("fpl/main")["processor"])["ready"] == 3 else None)
    assert status["replicas"] == 3
    found = world.cluster.api.list("pods", world.namespace, status["selector"])
    assert len(found) == 3
    world.annotate("fpl/main", note="anything")
    holds(lambda: len(world.pods("processor")) == 3, 5)
    world.cluster.kubectl("scale", "fpl/main", "--replicas=1", "-n", world.namespace)
    until(lambda: len(world.pods("processor")) == 1)


def test_restart_rolls_once(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    before = {pod["metadata"]["uid"] for pod in world.pods("receiver") + world.pods("distributor")}
    other = {pod["metadata"]["uid"] for pod in world.pods("processor")}
    world.annotate("xf/spot", restart="now")

    def uids() -> set[str]:
        return {pod["metadata"]["uid"] for pod in world.pods("receiver") + world.pods("distributor")}

    until(lambda: len(uids()) == 2 and not uids() & before, what="new pods")
    assert {pod["metadata"]["uid"] for pod in world.pods("processor")} == other
    assert template(world, "spot-receiver-0")["metadata"]["annotations"]["feedmill.dev/restarted"] == "now"
    generations = {
        name: world.cluster.api.need("deployments", world.namespace, name)["metadata"]["generation"]
        for name in ("spot-receiver-0", "spot-distributor-0")
    }
    world.patch("xf/spot", {"metadata": {"labels": {"a": "b"}}})
    holds(
        lambda: all(
            world.cluster.api.need("deployments", world.namespace, name)["metadata"]["generation"] == number
            for name, number in generations.items()
        ),
        3,
    )


# --- suspended, paused -----------------------------------------------------------------------------------------------


def test_a_suspended_feed_has_no_pods_and_comes_back(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("xf/spot")
    world.patch("xf/spot", {"spec": {"suspend": True}})
    world.wait("xf/spot", "Suspended", "True")
    until(lambda: not world.pods("receiver") and not world.pods("distributor"), what="no pods")
    assert world.wait("xf/spot", "Ready", "False")["reason"] == "Suspended"
    assert world.condition("xf/spot", "Accepted")["status"] == "True"
    until(lambda: world.status("xf/spot")["data"] == "Suspended")
    world.patch("xf/spot", {"spec": {"suspend": False}})
    world.ready("xf/spot")
    assert world.condition("xf/spot", "Suspended")["status"] == "False"


def test_a_suspended_pipeline_stops_its_processors_not_its_feeds(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    world.patch("fpl/main", {"spec": {"suspend": True}})
    until(lambda: not world.pods("processor"), what="no processors")
    assert world.wait("fpl/main", "Ready", "False")["reason"] == "Suspended"
    holds(lambda: len(world.pods("receiver")) == 1, 2)
    world.patch("fpl/main", {"spec": {"suspend": False}})
    world.ready("fpl/main")


def test_paused_means_hands_off(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    world.annotate("xf/spot", pause="true")
    world.wait("xf/spot", "Paused", "True")
    name = "spot-receiver-0"
    world.cluster.api.merge("deployments", world.namespace, name, {"spec": {"replicas": 0}})
    world.patch("xf/spot", {"spec": {"instruments": {"symbols": ["BTC-USDT"]}}})
    holds(lambda: world.cluster.api.need("deployments", world.namespace, name)["spec"]["replicas"] == 0, 5)
    assert len(config(world, "spot-feed-config")[1]["spec"]["instruments"]["symbols"]) == 2
    # It still looks, and says what it sees.
    world.wait("xf/spot", "ReceiverAvailable", "False")
    world.annotate("xf/spot", pause=None)
    world.wait("xf/spot", "Paused", "False")
    until(lambda: world.cluster.api.need("deployments", world.namespace, name)["spec"]["replicas"] == 1)
    world.ready("xf/spot")
    assert config(world, "spot-feed-config")[1]["spec"]["instruments"]["symbols"] == ["BTC-USDT"]


# --- wrong -----------------------------------------------------------------------------------------------------------


def test_a_missing_secret_is_named_then_ready_once_it_appears(kwok_cluster: Cluster, namespace: str) -> None:
    world = World(kwok_cluster, namespace)
    world.pipeline()
    world.feed()
    said = world.wait("fpl/main", "Accepted", "False")
    assert "redis" in said["message"]
    assert world.condition("fpl/main", "Ready")["status"] == "False"
    assert not world.pods()
    redis, postgres = samples.server_secrets(namespace)
    wrong = {**redis, "stringData": {"uri": "redis://x"}}
    kwok_cluster.api.create("secrets", wrong)
    kwok_cluster.api.create("secrets", postgres)
    until(lambda: "url" in world.condition("fpl/main", "Accepted")["message"], 130, what="the missing key to be named")
    kwok_cluster.api.merge("secrets", namespace, "redis", {"stringData": {"url": "redis://redis:6379"}})
    world.ready("fpl/main", "xf/spot", timeout=150)
    assert "redis://" not in json.dumps(world.status("fpl/main"))


def test_a_watched_secret_is_noticed_at_once(kwok_cluster: Cluster, namespace: str) -> None:
    world = World(kwok_cluster, namespace)
    world.pipeline()
    world.wait("fpl/main", "Accepted", "False")
    for secret in samples.server_secrets(namespace):
        secret["metadata"]["labels"] = {"feedmill.dev/watch": "true"}
        kwok_cluster.api.create("secrets", secret)
    world.wait("fpl/main", "Accepted", timeout=30)
    world.ready("fpl/main")


def test_a_feed_without_its_pipeline_waits_for_it(world: World) -> None:
    world.feed()
    said = world.wait("xf/spot", "Accepted", "False")
    assert '"main"' in said["message"]
    assert not world.made("xf/spot")
    world.pipeline()
    world.ready("xf/spot")


def test_an_instrument_that_no_venue_can_have_is_named(world: World) -> None:
    world.pipeline()
    world.feed(instruments={"symbols": ["BTC-USDT", "BTCUSDT"]})
    said = world.wait("xf/spot", "Accepted", "False")
    assert "BTCUSDT" in said["message"]
    assert "BTC-USDT" in said["message"]
    world.patch("xf/spot", {"spec": {"instruments": {"symbols": ["BTC-USDT"]}}})
    world.ready("xf/spot")


def test_a_wrong_change_leaves_what_runs_alone(world: World) -> None:
    world.pipeline()
    world.feed()
    world.ready("xf/spot")
    before = {key: essence(item) for key, item in world.made("xf/spot").items()}
    world.patch("xf/spot", {"spec": {"exchange": {"credentialsSecretRef": {"name": "nobody"}}}})
    said = world.wait("xf/spot", "Accepted", "False")
    assert "nobody" in said["message"]
    holds(lambda: {key: essence(item) for key, item in world.made("xf/spot").items()} == before, 3)
    assert len(world.pods("receiver")) == 1


def all_events(world: World) -> list[dict[str, Any]]:
    """Of the feed, once no more come: each is written by itself, a moment after the status."""
    seen: list[list[dict[str, Any]]] = [[]]

    def same() -> bool:
        seen.append(world.events("xf/spot"))
        return bool(seen[-1]) and len(seen[-1]) == len(seen[-2])

    until(same, every=2.0, what="the Events")
    return seen[-1]


def test_events_come_once(world: World) -> None:
    world.feed()
    world.wait("xf/spot", "Accepted", "False")
    found = all_events(world)
    world.patch("xf/spot", {"metadata": {"labels": {"a": "b"}}})
    holds(lambda: len(world.events("xf/spot")) == len(found), 3)
    keys = [(event["reason"], event["message"]) for event in found]
    assert len(set(keys)) == len(keys)
    assert all(event["type"] in ("Normal", "Warning") for event in found)
    assert all(event.get("count", 1) == 1 for event in found)


def test_events_are_not_told_again_by_the_next_operator(
    kwok_cluster: Cluster, namespace: str, start_operator: Callable[..., Operator]
) -> None:
    world = World(kwok_cluster, namespace)
    first = start_operator(name="one", arguments=["--lease-name", "events"])
    world.feed()
    world.wait("xf/spot", "Accepted", "False")
    found = all_events(world)
    assert first.stop() == 0
    start_operator(name="two", arguments=["--lease-name", "events"])
    holds(lambda: len(world.events("xf/spot")) == len(found), 4)


def test_a_quota_that_is_used_up_is_told(world: World) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": world.namespace},
             "spec": {"hard": {"pods": "0"}}}  # fmt: skip
    world.cluster.api.create("resourcequotas", quota)
    world.pipeline()
    world.feed()
    said = until(lambda: c if "quota" in (c := world.condition("xf/spot", "Ready")).get("message", "") else None, 90)
    assert said["status"] == "False"
    world.cluster.api.delete("resourcequotas", world.namespace, "none")
    # Its controller waits longer and longer between tries.
    world.ready("fpl/main", "xf/spot", timeout=150)


# --- deleted ---------------------------------------------------------------------------------------------------------


def test_a_deleted_feed_takes_its_objects_along_and_nothing_else(world: World) -> None:
    world.pipeline()
    world.feed()
    world.feed("other", instruments={"symbols": ["SOL-USDT"]})
    world.ready("fpl/main", "xf/spot", "xf/other")
    others = set(world.made("xf/other"))
    world.delete("xf/spot")
    until(lambda: world.get("xf/spot") is None)
    until(lambda: not any(name.startswith("spot-") for _, name in world.made()), what="the feed's objects to go")
    until(lambda: world.status("fpl/main").get("feeds") == 1)
    assert [item["metadata"]["name"] for item in config(world, "main-pipeline-config")] == ["main", "other"]
    assert set(world.made("xf/other")) == others
    world.ready("xf/other")


@pytest.mark.parametrize(
    "order", [("xf/spot", "fpl/main"), ("fpl/main", "xf/spot")], ids=["feed-first", "pipeline-first"]
)
def test_what_is_left_of_a_managed_pipeline_is_its_volumes(world: World, order: tuple[str, str]) -> None:
    world.pipeline(redis={"managed": {}}, postgres={"managed": {}})
    world.feed()
    world.ready("fpl/main", "xf/spot")
    volumes = {item["metadata"]["name"] for item in world.cluster.api.list("persistentvolumeclaims", world.namespace)}
    assert len(volumes) == 2
    for what in order:
        world.delete(what)
        until(lambda what=what: world.get(what) is None)
    until(lambda: not world.made(), 120, what="all objects to go")
    until(lambda: not world.pods(scheduled=True))
    left = {item["metadata"]["name"] for item in world.cluster.api.list("persistentvolumeclaims", world.namespace)}
    assert left == volumes


def test_a_stranger_with_our_label_is_left_alone(world: World) -> None:
    world.pipeline()
    stranger = {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "stranger", "namespace": world.namespace,
            "labels": {"app.kubernetes.io/managed-by": "feedmill-operator", "feedmill.dev/pipeline": "main"},
        },
    }  # fmt: skip
    world.cluster.api.create("configmaps", stranger)
    world.ready("fpl/main")
    world.patch("fpl/main", {"spec": {"logLevel": "Debug"}})
    until(lambda: config(world, "main-pipeline-config")[0]["spec"]["logLevel"] == "Debug")
    holds(lambda: world.one("configmaps", "stranger") is not None, 2)


def test_the_operator_says_how_it_is(operator: Operator, world: World) -> None:
    world.pipeline()
    world.ready("fpl/main")
    assert operator.get("/healthz")[0] == 200
    assert operator.get("/readyz")[0] == 200
    found = operator.metrics()
    assert any(name.startswith("feedmill_operator_") for name in found)
