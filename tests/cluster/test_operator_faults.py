"""Between the operator and the API server things break: conflicts, throttling, errors, deaf watches, outages. It
converges, and it says of itself when it cannot."""

from __future__ import annotations

import pytest

from clusterkit.api import Object
from clusterkit.cluster import Cluster
from clusterkit.operator import Operator
from clusterkit.proxy import FaultProxy, Request, writes
from clusterkit.waiting import holds, until
from clusterkit.world import World, essence

pytestmark = [pytest.mark.slow]
SYMBOLS = {"instruments": {"symbols": ["BTC-USDT"]}}


@pytest.fixture
def world(kwok_cluster: Cluster, namespace: str) -> World:
    world = World(kwok_cluster, namespace)
    world.secrets()
    return world


@pytest.fixture
def behind(proxy: FaultProxy, start_operator: object) -> Operator:
    """An operator behind the proxy."""
    assert callable(start_operator)
    found = start_operator(server=proxy.url)
    assert isinstance(found, Operator)
    return found


def all_writes_but_events(request: Request) -> bool:
    return writes(request) and not request.resource.startswith("events")


@pytest.mark.allowed_errors("injected by the test")
@pytest.mark.parametrize(
    ("status", "more"),
    [(409, {}), (429, {"retry_after": 1}), (500, {}), (503, {}), (0, {})],
    ids=["conflict", "throttled", "error", "unavailable", "cut"],
)
def test_every_third_write_fails_and_all_is_made(
    world: World, behind: Operator, proxy: FaultProxy, status: int, more: dict[str, int]
) -> None:
    turn = iter(range(1_000_000))
    # Six: an error the client does not repeat ends a reconcile, and the waits between reconciles double each time
    # (twelve in a row took a minute on average, and as long as chance would have it).
    fault = proxy.fail(lambda request: all_writes_but_events(request) and next(turn) % 3 == 0, status, 6, **more)
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot", timeout=150)
    assert fault.done >= 3
    world.patch("xf/spot", {"spec": SYMBOLS})
    until(lambda: world.status("xf/spot").get("instruments") == 1, 60)
    assert behind.alive()


@pytest.mark.allowed_errors("injected by the test")
def test_reads_that_fail_are_repeated(world: World, behind: Operator, proxy: FaultProxy) -> None:
    fault = proxy.fail(lambda request: request.verb == "get" and request.resource != "leases", 500, 6)
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot", timeout=150)
    assert fault.done == 6
    assert behind.alive()


def test_throttling_is_obeyed(world: World, behind: Operator, proxy: FaultProxy) -> None:
    """Retry-After is waited for: no storm against a server that asks for calm."""
    world.pipeline()
    world.ready("fpl/main")
    world.settled()
    fault = proxy.fail(all_writes_but_events, 429, 1_000_000, retry_after=2)
    world.patch("fpl/main", {"spec": {"logLevel": "Debug"}})
    until(lambda: fault.done)
    first = fault.done
    holds(lambda: fault.done - first <= 8, 4, what="few attempts in two turns of Retry-After")
    fault.times = fault.done
    world.wait("fpl/main", "Ready", timeout=60)
    until(lambda: world.cluster.api.need("configmaps", world.namespace, "main-pipeline-config")["data"]
          ["resources.yaml"].count("Debug") == 1, 60)  # fmt: skip


def test_dropped_watches_are_opened_again(world: World, behind: Operator, proxy: FaultProxy) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    assert proxy.drop_watches() > 3
    # What happened while nobody watched is seen: level, not edge.
    world.patch("xf/spot", {"spec": SYMBOLS})
    world.cluster.api.delete("deployments", world.namespace, "spot-receiver-0")
    until(lambda: world.status("xf/spot").get("instruments") == 1, 60)
    until(lambda: world.one("deployments", "spot-receiver-0"), 60)
    world.ready("xf/spot")
    assert behind.get("/healthz")[0] == 200


def test_an_expired_resource_version_is_listed_anew(world: World, behind: Operator, proxy: FaultProxy) -> None:
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    lists = proxy.count("list")
    assert proxy.expire_watches() > 3
    world.patch("xf/spot", {"spec": SYMBOLS})
    world.cluster.api.delete("configmaps", world.namespace, "spot-feed-config")
    until(lambda: world.status("xf/spot").get("instruments") == 1, 60)
    until(lambda: world.one("configmaps", "spot-feed-config"), 60)
    assert proxy.count("list") > lists
    world.ready("xf/spot")


@pytest.mark.allowed_errors("injected by the test", "410", "Expired")
def test_a_watch_that_is_refused_as_expired_is_listed_anew(world: World, behind: Operator, proxy: FaultProxy) -> None:
    world.pipeline()
    world.ready("fpl/main")
    proxy.fail(lambda request: request.verb == "watch", 410, 8)
    proxy.drop_watches()
    world.feed()
    world.ready("xf/spot", timeout=90)
    assert behind.alive()


def test_slow_answers_cost_time_only(world: World, behind: Operator, proxy: FaultProxy) -> None:
    proxy.latency = 0.4
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot", timeout=150)
    assert behind.alive()


@pytest.mark.allowed_errors("no answer", "lease", "Server disconnected", "Connection", "Cannot connect", "watch")
def test_an_outage_within_the_lease_is_survived(world: World, start_operator: object, proxy: FaultProxy) -> None:
    assert callable(start_operator)
    # Long enough that no renewal is due too late where the machine stands still besides.
    behind = start_operator(server=proxy.url, arguments=("--lease-duration", "60s", "--lease-renew-deadline", "50s"))
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    proxy.outage()
    world.patch("xf/spot", {"spec": SYMBOLS})
    holds(behind.alive, 3)
    proxy.restore()
    until(lambda: world.status("xf/spot").get("instruments") == 1, 90)
    world.ready("fpl/main", "xf/spot", timeout=60)
    assert {pod["metadata"]["uid"] for pod in world.pods()} == before


@pytest.mark.allowed_errors("no answer", "lease", "Server disconnected", "Connection", "Cannot connect", "watch")
def test_a_long_outage_ends_the_leader_and_the_next_start_goes_on(
    world: World, behind: Operator, proxy: FaultProxy
) -> None:
    """Who cannot renew must not go on as leader. Kubernetes starts the process again."""
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    world.settled()
    before = {key: essence(item) for key, item in world.made().items()}
    proxy.outage()
    until(lambda: not behind.alive(), 60, what="the leader that cannot renew to end")
    assert behind.process is not None
    assert behind.process.returncode == 1
    proxy.restore()
    behind.start().ready()
    world.patch("xf/spot", {"metadata": {"labels": {"a": "b"}}})
    world.ready("fpl/main", "xf/spot")
    assert {key: essence(item) for key, item in world.made().items()} == before


def test_a_status_somebody_scribbled_over_is_right_again_after_a_resync(world: World, start_operator: object) -> None:
    assert callable(start_operator)
    operator = start_operator(arguments=("--resync", "5s"))
    world.pipeline()
    world.ready("fpl/main")
    wrong: Object = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Scribble"}], "feeds": 7}}
    world.cluster.api.merge("feedpipelines", world.namespace, "main", wrong, "status")
    world.wait("fpl/main", "Ready", timeout=60)
    assert world.status("fpl/main")["feeds"] == 0
    assert operator.alive()
