"""A real node, the chart, the examples, exchanges with a ledger; then pods are deleted, scaled and rolled, and
secrets rotated while messages flow. Nothing may be lost, nothing doubled.

``make e2e`` runs it; the order is the file's, since all tests share one running pipeline.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

from clusterkit.bed import FEEDS, NAMESPACE, Bed, is_ready, kustomization, place
from clusterkit.exchange import Exchange, Judgement, judge
from clusterkit.images import Images
from clusterkit.install import Installed
from clusterkit.plugin import runner
from clusterkit.waiting import until
from clusterkit.world import MANAGED, World

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
RATE = 60.0
"""Messages a second of each exchange: enough that every pause of a second would show."""
READY_WITHIN = 90.0


@pytest.fixture(scope="module")
def bed(installed: Installed, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    cluster = installed.cluster
    exchange = Exchange(tmp_path_factory.mktemp("exchange"), cluster.addresses["host"], RATE)
    exchange.start()
    bed = Bed(cluster, World(cluster, NAMESPACE), exchange, images)
    try:
        folder = kustomization(tmp_path_factory.mktemp("examples"), exchange, images.services[0])
        cluster.kubectl("apply", "-k", str(folder))
        yield bed
        print("\n" + "\n".join(bed.told))
    finally:
        exchange.stop()


def nothing_lost(found: Judgement) -> None:
    assert found.lost == 0, found.notes
    assert found.doubled == 0, found.notes
    assert found.wrong == 0, found.notes
    assert found.dead_letters == 0, found.notes


def no_gap(found: Judgement) -> None:
    """Where no exchange was cut off there is nothing to tell either."""
    nothing_lost(found)
    assert found.trades > 0
    assert found.tickers > 0
    assert (found.trades_in_gaps, found.tickers_in_gaps) == (0, 0), found.notes


def test_all_is_ready_within_90_seconds(bed: Bed) -> None:
    took = bed.ready(READY_WITHIN)
    bed.told.append(f"all Ready after {took:.1f} s")
    print(bed.told[-1])


def test_trades_are_committed_and_equal_to_the_ledger(bed: Bed) -> None:
    bed.exchange.until_emitted(3000)
    found = bed.settled("start")
    nothing_lost(found)
    assert found.trades > 100


def test_nothing_is_lost_before_the_first_stored_either(bed: Bed) -> None:
    assert bed.before.before_first == 0


def test_status_tells_the_truth(bed: Bed) -> None:
    for name in FEEDS:
        bed.world.wait(f"xf/{name}", "DataFresh", timeout=120)
        bed.world.wait(f"xf/{name}", "RedisReachable", timeout=120)

        def truth(name: str = name) -> bool:
            """Numbers may be half a minute late, and stand still once all of them are so."""
            status = bed.world.status(f"xf/{name}")
            taken = status["config"]["acknowledged"] == status["config"]["pods"] > 0
            return bool(taken and status["data"] == "Fresh" and status.get("lag") in ("<1s", "<10s"))

        until(truth, 180, what=f"the status of {name} to tell the truth")
    bed.world.wait("fpl/main", "PostgresReachable", timeout=120)


def lacks(lag: subprocess.CompletedProcess[str]) -> list[str]:
    """What ``kubectl feedmill lag`` does not tell of the shards."""
    if lag.returncode != 0:
        return [lag.stdout + lag.stderr]
    shards = json.loads(lag.stdout)["shards"]
    found = sorted(f"shards of {feed}" for feed in set(FEEDS) ^ {shard["feed"] for shard in shards})
    figures = ("backlog_batches", "distributor_seconds", "processor_seconds", "p50_ms", "p99_ms")
    for shard in shards:
        found += [f"{figure}: {shard}" for figure in figures if shard[figure] is None]
        found += [] if shard["frames_per_second"] else [f"frames_per_second: {shard}"]
    return found


def test_kubectl_feedmill_sees_it(bed: Bed, tmp_path: Path) -> None:
    run = runner(bed.cluster, tmp_path / "bin")
    bed.ready()
    done = run("status", "-n", bed.namespace)
    assert done.returncode == 0, done.stdout + done.stderr
    lacking: list[str] = []

    def told() -> bool:
        """A process that is held up for a moment answers too late to be shown."""
        lacking[:] = lacks(run("lag", "-n", bed.namespace, "-o", "json"))
        return not lacking

    try:
        until(told, 60, every=1.0, what="every figure of every shard")
    except AssertionError:
        assert lacking == []
        raise
    for feed in FEEDS:
        done = run("logs", feed, "-n", bed.namespace, "--role", "receiver")
        assert done.returncode == 0, done.stderr
        assert f"{feed}-receiver-0-" in done.stdout
        assert not any(line.split(" ", 1)[-1].startswith("{") for line in done.stdout.splitlines()), "for people"
    done = run("gaps", "-n", bed.namespace, "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert isinstance(json.loads(done.stdout), list)
    done = run("reload", *(f"feed/{feed}" for feed in FEEDS), "main", "-n", bed.namespace)
    assert done.returncode == 0, done.stdout + done.stderr
    secret = bed.secret("main-postgres", "password")
    assert secret not in run("logs", "main", "-n", bed.namespace).stdout


def test_a_deleted_distributor_pod_costs_nothing(bed: Bed) -> None:
    bed.delete(*(bed.pod("distributor", feed) for feed in FEEDS))
    no_gap(bed.settled("distributor pods deleted"))
    bed.ready()


def test_a_deleted_receiver_pod_of_two_costs_nothing(bed: Bed) -> None:
    """Where a shard has two receivers the other one has seen it all."""
    until(lambda: len([pod for pod in bed.pods("receiver", "binance-spot") if is_ready(pod)]) == 2, 90)
    bed.delete(bed.pod("receiver", "binance-spot"))
    no_gap(bed.settled("one of two receiver pods deleted"))
    bed.ready()


def test_a_deleted_only_receiver_pod_is_told_and_nothing_else(bed: Bed) -> None:
    bed.delete(bed.pod("receiver", "deribit"))
    nothing_lost(bed.settled("the only receiver pod of deribit deleted"))
    bed.ready()


def test_processors_scaled_up_and_down_cost_nothing(bed: Bed) -> None:
    bed.cluster.kubectl("scale", "fpl/main", "--replicas=3", "-n", bed.namespace)
    until(lambda: len([pod for pod in bed.pods("processor") if is_ready(pod)]) == 3, 180)
    no_gap(bed.settled("processor scaled to 3"))
    # The shards are spread over them.
    bed.cluster.kubectl("scale", "fpl/main", "--replicas=1", "-n", bed.namespace)
    until(lambda: len(bed.pods("processor")) == 1, 180)
    no_gap(bed.settled("processor scaled to 1"))
    bed.ready()


def test_config_is_reloaded_while_it_flows(bed: Bed) -> None:
    pods = {pod["metadata"]["uid"] for pod in bed.pods("receiver", "binance-spot") + bed.pods("distributor")}
    symbols = ["BTC-USDT", "ETH-USDT", "SOL-USDT"]
    started = time.monotonic()
    bed.world.patch("xf/binance-spot", {"spec": {"instruments": {"symbols": symbols}}})

    def acknowledged() -> bool:
        status = bed.world.status("xf/binance-spot")
        return status.get("instruments") == 3 and status["config"]["acknowledged"] == status["config"]["pods"] > 0

    until(acknowledged, 240, what="all pods to say that they work with the new configuration")
    bed.told.append(f"config acknowledged by all pods after {time.monotonic() - started:.1f} s")
    no_gap(bed.settled("instrument added"))
    now = {pod["metadata"]["uid"] for pod in bed.pods("receiver", "binance-spot") + bed.pods("distributor")}
    assert now == pods, "pods were restarted"

    async def stored() -> int:
        connection = await asyncpg.connect(bed.database_url())
        try:
            found: int = await connection.fetchval(
                "SELECT count(*) FROM trades t JOIN instruments i ON i.id = t.instrument_id WHERE i.symbol = 'SOL-USDT'"
            )
            return found
        finally:
            await connection.close()

    until(lambda: asyncio.run(stored()) > 0, 120, every=1.0, what="trades of the new instrument")


def test_a_rolling_update_of_the_image_costs_nothing(bed: Bed) -> None:
    pods = {pod["metadata"]["uid"] for pod in bed.world.pods()}
    bed.world.patch("fpl/main", {"spec": {"image": bed.images.services[1]}})

    def rolled() -> bool:
        """The old ones are gone, not only asked to go: what their end costs belongs to this test."""
        there = bed.cluster.api.list("pods", bed.namespace, MANAGED)
        found = [pod for pod in there if place(pod)[0] in ("receiver", "distributor", "processor")]
        return bool(found) and all(is_ready(pod) and pod["metadata"]["uid"] not in pods for pod in found)

    until(rolled, 240, what="all to be rolled")
    bed.ready(180)
    # Redis is rolled too, so the new receivers begin while the old ones hold what they could not write.
    nothing_lost(bed.settled("image rolled"))


def test_an_image_that_cannot_be_pulled_stops_nothing(bed: Bed) -> None:
    components = ("redis", "postgres", "receiver", "distributor", "processor")
    pods = {pod["metadata"]["uid"] for name in components for pod in bed.pods(name)}
    bed.world.patch("fpl/main", {"spec": {"image": "localhost/feedmill-services:mistyped"}})

    def told() -> bool:
        ready = next(each for each in bed.world.status("fpl/main")["conditions"] if each["type"] == "Ready")
        return bool(ready["status"] == "False" and "feedmill-services:mistyped" in ready["message"])

    until(told, 180, what="the pipeline to say that the image cannot be pulled")
    no_gap(bed.settled("image mistyped"))
    now = {pod["metadata"]["uid"] for name in components for pod in bed.pods(name)}
    assert pods <= now, "pods that worked were stopped"
    bed.world.patch("fpl/main", {"spec": {"image": bed.images.services[1]}})
    bed.ready(180)


def test_a_deleted_redis_pod_costs_nothing(bed: Bed) -> None:
    bed.delete(bed.pod("redis"))
    no_gap(bed.settled("Redis pod deleted"))
    bed.ready(180)


def test_a_deleted_postgres_pod_costs_nothing(bed: Bed) -> None:
    bed.delete(bed.pod("postgres"))
    no_gap(bed.settled("PostgreSQL pod deleted"))
    bed.ready(180)


def test_a_rotated_redis_password_costs_nothing(bed: Bed) -> None:
    pods = {pod["metadata"]["uid"] for pod in bed.pods("receiver") + bed.pods("distributor") + bed.pods("processor")}
    old = bed.secret("main-redis", "password")
    new = "rotated-" + old[:16]
    url = bed.secret("main-redis", "url").replace(old, new)
    bed.cluster.api.merge(
        "secrets", bed.namespace, "main-redis", {"stringData": {"password": new, "url": url}}
    )  # fmt: skip

    def taken() -> bool:
        """The server takes the new one; the old one stays good for a while, so that nobody is locked out."""
        try:
            return bool(redis.Redis(host=bed.pod("redis")["status"]["podIP"], password=new, socket_timeout=3).ping())
        except redis.RedisError:
            return False

    until(taken, 240, every=1.0, what="the new password to be good")
    no_gap(bed.settled("Redis password rotated"))
    now = {pod["metadata"]["uid"] for pod in bed.pods("receiver") + bed.pods("distributor") + bed.pods("processor")}
    assert now == pods, "pods were restarted"
    bed.ready(180)


def test_a_deleted_operator_pod_is_nothing_to_the_feeds(bed: Bed, installed: Installed) -> None:
    bed.cluster.kubectl("delete", "pod", "--all", "-n", installed.namespace, "--wait=false")
    no_gap(bed.settled("operator pods deleted"))
    until(lambda: installed.ready(), 180, what="the operator to be back")
    bed.ready()


def test_at_the_end_of_the_flow_the_database_equals_the_ledger(bed: Bed) -> None:
    bed.exchange.end()

    def equal() -> bool:
        found = judge(report := bed.exchange.compare(bed.database_url()))
        flows = [flow for venue in report.venues for flow in (venue.trades, venue.tickers)]
        rest = all(venue.books.ok and venue.candles.ok for venue in report.venues)
        clean = not any(flow.phantom for flow in flows) and rest
        return clean and not (found.lost_trades or found.behind or found.doubled or found.wrong or found.dead_letters)

    try:
        until(equal, 240, every=1.0, what="the database to equal the ledger")
    finally:
        for line in bed.exchange.compare(bed.database_url()).lines():
            print(line)


def test_deleted_and_uninstalled_nothing_stays_but_crds_and_volumes(bed: Bed, installed: Installed) -> None:
    """The operator first: nothing may wait for it."""
    installed.uninstall()
    for what in ("xf", "fpl"):
        bed.cluster.kubectl("delete", what, "--all", "-n", bed.namespace, "--timeout=180s")
    until(lambda: not bed.world.made(), 180, what="all objects to go")
    until(lambda: not bed.cluster.api.list("pods", bed.namespace), 240, what="all pods to go")
    left = bed.cluster.api.list("persistentvolumeclaims", bed.namespace)
    assert len(left) == 2
    crds = bed.cluster.kubectl("get", "crds", "-o", "name").stdout
    assert crds.count("feedmill.dev") == 5
    assert installed.leftovers() == []
