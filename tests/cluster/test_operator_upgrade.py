"""An upgrade of the operator, and its end, leave what runs alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusterkit.cluster import Cluster
from clusterkit.operator import Operator
from clusterkit.waiting import holds, until
from clusterkit.world import World, essence

pytestmark = [pytest.mark.slow]
Start = Callable[..., Operator]
NEXT = "registry.example.com/feedmill/services:2"


@pytest.fixture
def world(kwok_cluster: Cluster, namespace: str) -> World:
    world = World(kwok_cluster, namespace)
    world.secrets()
    return world


def test_another_operand_image_restarts_nothing(world: World, start_operator: Start) -> None:
    first = start_operator(name="one")
    world.pipeline(redis={"managed": {}}, postgres={"managed": {}})
    world.feed()
    world.ready("fpl/main", "xf/spot")
    pods = {pod["metadata"]["uid"] for pod in world.pods()}
    before = {key: essence(item) for key, item in world.settled().items()}
    image = world.status("fpl/main")["image"]
    assert image == first.image
    assert first.stop() == 0
    start_operator(name="two", image=NEXT)
    world.patch("xf/spot", {"metadata": {"labels": {"a": "b"}}})
    holds(lambda: {key: essence(item) for key, item in world.made().items()} == before, 5)
    assert {pod["metadata"]["uid"] for pod in world.pods()} == pods
    assert world.status("fpl/main")["image"] == image
    # A pipeline that is new takes the new operator's image, and the user moves the old one when he likes.
    world.pipeline("second")
    until(lambda: world.status("fpl/second").get("image") == NEXT)
    world.patch("fpl/main", {"spec": {"image": NEXT}})
    until(lambda: world.status("fpl/main")["image"] == NEXT)
    until(lambda: all(c["image"] == NEXT for pod in world.pods("receiver") for c in pod["spec"]["containers"]))
    world.ready("fpl/main", "xf/spot")


def test_an_image_set_and_taken_away_again_stays(world: World, start_operator: Start) -> None:
    start_operator()
    world.pipeline(image=NEXT)
    world.ready("fpl/main")
    world.patch("fpl/main", {"spec": {"image": None}})
    holds(lambda: world.status("fpl/main")["image"] == NEXT, 4)
    assert all(c["image"] == NEXT for pod in world.pods("processor") for c in pod["spec"]["containers"])


@pytest.mark.parametrize("first", ["operator", "objects"])
def test_nothing_stays_behind_in_any_order(
    world: World, start_operator: Start, first: str, kwok_cluster: Cluster
) -> None:
    """No finalizer waits for an operator that is gone."""
    operator = start_operator()
    world.pipeline(redis={"managed": {}}, postgres={"managed": {}})
    world.feed()
    world.ready("fpl/main", "xf/spot")
    if first == "operator":
        assert operator.stop() == 0
    for what in ("fpl/main", "xf/spot"):
        world.delete(what)
    until(lambda: world.get("fpl/main") is None and world.get("xf/spot") is None)
    until(lambda: not world.made(), 120, what="the operator's objects to go")
    until(lambda: not world.pods(scheduled=True), 120, what="the pods to go")
    until(lambda: not kwok_cluster.api.list("replicasets", world.namespace))
    left = kwok_cluster.api.list("persistentvolumeclaims", world.namespace)
    assert len(left) == 2
    assert all("deletionTimestamp" not in item["metadata"] for item in left)


def test_a_namespace_ends_without_the_operator(world: World, start_operator: Start) -> None:
    operator = start_operator()
    world.pipeline(redis={"managed": {}}, postgres={"managed": {}})
    world.feed()
    world.ready("fpl/main", "xf/spot")
    assert operator.stop() == 0
    world.cluster.drop_namespace(world.namespace)
    done = world.cluster.kubectl("wait", "--for=delete", f"namespace/{world.namespace}", "--timeout=180s", check=False)
    assert done.returncode == 0, done.stderr
