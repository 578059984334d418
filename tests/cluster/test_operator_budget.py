"""How much the operator asks of the API server: one status patch a real change, nothing when nothing changes."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from clusterkit.cluster import Cluster
from clusterkit.operator import Operator
from clusterkit.proxy import FaultProxy, Request
from clusterkit.waiting import until
from clusterkit.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WRITING = ("create", "update", "patch", "apply", "delete")
QUIET = ("leases", "events")
"""What does not count: the Lease is renewed always, and Events have a test of their own."""
COARSE = 32.0
"""Live numbers are written into a status at most every 30 s: a change of them may come so late, seconds."""


@pytest.fixture
def world(kwok_cluster: Cluster, namespace: str) -> World:
    world = World(kwok_cluster, namespace)
    world.secrets()
    return world


@pytest.fixture
def behind(proxy: FaultProxy, start_operator: object) -> Operator:
    assert callable(start_operator)
    found = start_operator(server=proxy.url)
    assert isinstance(found, Operator)
    return found


def written(counted: Counter[tuple[str, str]]) -> dict[tuple[str, str], int]:
    return {key: number for key, number in counted.items() if key[0] in WRITING and key[1] not in QUIET}


def silent(proxy: FaultProxy, mark: Counter[tuple[str, str]], seconds: float) -> None:
    """Nothing was written since ``mark``, nor is for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = [f"{request.verb} {request.resource} {request.name}" for request in proxy.seen if is_write(request)]
        assert written(proxy.since(mark)) == {}, seen[-5:]
        time.sleep(0.2)


def is_write(request: Request) -> bool:
    return request.verb in WRITING and request.resource not in QUIET


def quiet(world: World, proxy: FaultProxy, rest: float = 6.0) -> Counter[tuple[str, str]]:
    """Counts once the operator has come to rest: nothing was written for so long. Counts of pods are written into a
    status at most every 5 s."""
    world.settled()
    last: list[Counter[tuple[str, str]]] = [Counter()]

    def still() -> bool:
        now = proxy.mark()
        same = not written(now - last[0])
        last[0] = now
        return same

    until(still, 180, every=rest, what="the operator to come to rest")
    return last[0]


def test_nothing_is_written_when_nothing_changes_nor_at_a_full_look_at_everything(
    world: World, behind: Operator, proxy: FaultProxy
) -> None:
    world.pipeline(redis={"managed": {}}, postgres={"managed": {}})
    world.feed()
    world.ready("fpl/main", "xf/spot")
    mark = quiet(world, proxy, COARSE)
    # Longer than two looks at the services' health (15 s).
    silent(proxy, mark, 40)
    world.patch("xf/spot", {"metadata": {"labels": {"nobody": "cares"}}})
    silent(proxy, mark, 5)
    assert behind.alive()
    # A restart reconciles all there is.
    assert behind.stop() == 0
    before = proxy.mark()
    behind.start().ready()
    for kind in ("feedpipelines", "exchangefeeds"):
        until(lambda kind=kind: proxy.since(before)["get", kind], 60, what=f"a look at the {kind}")
    silent(proxy, mark, 8)


def test_a_hot_change_costs_two_config_maps_and_one_status_patch_each(
    world: World, behind: Operator, proxy: FaultProxy
) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    mark = quiet(world, proxy)
    world.patch("xf/spot", {"spec": {"instruments": {"symbols": ["BTC-USDT"]}}})
    until(lambda: world.status("xf/spot").get("instruments") == 1)
    quiet(world, proxy)
    found = written(proxy.since(mark))
    # The feed's ConfigMap and the pipeline's; the annotation on each pod, so that its volume is refreshed at once.
    assert found.pop(("apply", "configmaps")) == 2
    pods = sum(1 for pod in world.pods() if pod["status"]["phase"] == "Running")
    assert found.pop(("patch", "pods")) <= pods
    assert found.pop(("patch", "exchangefeeds/status")) == 1
    # The hash of its configuration, which may come later with the live numbers.
    assert found.pop(("patch", "feedpipelines/status"), 0) <= 1
    assert found == {}


def test_a_scale_costs_one_apply_and_a_status_patch_a_step(world: World, behind: Operator, proxy: FaultProxy) -> None:
    world.pipeline()
    world.ready("fpl/main")
    mark = quiet(world, proxy)
    world.cluster.kubectl("scale", "fpl/main", "--replicas=3", "-n", world.namespace)
    until(lambda: world.status("fpl/main")["processor"]["ready"] == 3)
    quiet(world, proxy)
    found = written(proxy.since(mark))
    assert found.pop(("apply", "deployments")) == 1
    # Its configuration tells the processors how many there are; the budget for disruptions is new.
    found.pop(("apply", "configmaps"), 0)
    found.pop(("patch", "pods"), 0)
    found.pop(("apply", "poddisruptionbudgets"), 0)
    # Wanted 3, then pods as they become ready: each of it is a real change of what is seen.
    assert found.pop(("patch", "feedpipelines/status")) <= 4
    assert found == {}
