"""Two replicas, one leader: who is killed is followed within 20 s, and nobody works without the Lease."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from clusterkit.api import Object
from clusterkit.cluster import OPERATOR_NAMESPACE, Cluster
from clusterkit.operator import Operator
from clusterkit.waiting import holds, until
from clusterkit.world import World, essence

pytestmark = [pytest.mark.slow]
Start = Callable[..., Operator]


@pytest.fixture
def world(kwok_cluster: Cluster, namespace: str) -> World:
    world = World(kwok_cluster, namespace)
    world.secrets()
    return world


def leader(operators: list[Operator]) -> Operator | None:
    found = [operator for operator in operators if operator.leads()]
    return found[0] if len(found) == 1 else None


def two(start_operator: Start) -> tuple[Operator, Operator]:
    """(leader, follower)."""
    first = start_operator(name="one")
    assert until(lambda: leader([first]))
    second = start_operator(name="two", wait=False)
    # Ready once it has read the Lease: from then on it counts how long that of a killed one has to run.
    until(lambda: second.get("/readyz")[0] == 200)
    return first, second


def test_a_killed_leader_is_followed_within_20_seconds(world: World, start_operator: Start) -> None:
    first, second = two(start_operator)
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    before = {key: essence(item) for key, item in world.settled().items()}
    started = time.monotonic()
    first.kill()
    world.patch("xf/spot", {"spec": {"instruments": {"symbols": ["BTC-USDT"]}}})
    until(lambda: world.status("xf/spot").get("instruments") == 1, 40, what="the follower to work")
    assert time.monotonic() - started < 20
    assert second.leads()
    world.ready("fpl/main", "xf/spot")
    # The pipeline's configuration follows the feed's, and no condition tells when.
    now = {key: essence(item) for key, item in world.settled().items()}
    changed = {key for key in before if now.get(key) != before[key]}
    assert changed == {("configmaps", "spot-feed-config"), ("configmaps", "main-pipeline-config")}


def test_a_leader_that_stops_in_order_hands_over_at_once(world: World, start_operator: Start) -> None:
    first, second = two(start_operator)
    started = time.monotonic()
    assert first.stop() == 0
    until(second.leads)
    assert time.monotonic() - started < 15
    # How long a pipeline takes to be Ready is the machine's matter.
    world.pipeline()
    try:
        world.ready("fpl/main")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{second.tail()}") from None


def test_a_follower_changes_nothing(world: World, start_operator: Start) -> None:
    first, second = two(start_operator)
    world.pipeline()
    world.ready("fpl/main")
    assert first.leads()
    assert not any("reconciles_total" in name and value for name, value in second.metrics().items()
                   if name.startswith("feedmill_operator_"))  # fmt: skip


@pytest.mark.allowed_errors("lease.lost")
def test_who_loses_the_lease_ends(world: World, start_operator: Start) -> None:
    """Somebody else's name in the Lease: the leader must not work on, and Kubernetes starts it again."""
    first = start_operator(name="one")
    until(first.leads)
    cluster = world.cluster
    lease = next(
        item
        for item in cluster.api.list("leases", OPERATOR_NAMESPACE)
        if "one" in item["spec"].get("holderIdentity", "")
    )

    def usurp(found: Object) -> None:
        found["spec"]["holderIdentity"] = "usurper"
        found["spec"]["renewTime"] = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())

    cluster.api.edit("leases", OPERATOR_NAMESPACE, lease["metadata"]["name"], usurp)
    until(lambda: not first.alive(), what="the former leader to end")
    assert first.process is not None
    assert first.process.returncode == 1
    world.pipeline()
    holds(lambda: not world.status("fpl/main"), 2)
    cluster.api.delete("leases", OPERATOR_NAMESPACE, lease["metadata"]["name"])
