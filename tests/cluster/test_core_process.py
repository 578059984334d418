"""The operator as a process on a real API server: deaf watches, outages, ends, options that cannot work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clusterkit.cluster import OPERATOR_NAMESPACE, Cluster
from clusterkit.operator import Operator, prepare
from clusterkit.proxy import FaultProxy, proxying
from clusterkit.waiting import until

Start = Callable[..., Operator]


@pytest.fixture
def proxy(api_cluster: Cluster) -> Iterator[FaultProxy]:
    with proxying(api_cluster.api) as found:
        yield found


@pytest.fixture
def start(api_cluster: Cluster, api_namespace: str, tmp_path: Path, proxy: FaultProxy) -> Iterator[Start]:
    """Behind the proxy, for the test's namespace, with a Lease of its own."""
    prepare(api_cluster)
    with ExitStack() as stack:

        def one(name: str, *arguments: str) -> Operator:
            lease = ["--lease-name", api_namespace]
            found = Operator(api_cluster, tmp_path, name, proxy.url, api_namespace, arguments=[*lease, *arguments])
            stack.callback(lambda: found.kill() if found.alive() else None)
            return found.start()

        yield one


def test_a_deaf_watch_fails_the_liveness_probe_until_it_hears_again(start: Start, proxy: FaultProxy) -> None:
    operator = start("one", "--deaf-after", "4s").ready()
    until(lambda: operator.metrics().get('feedmill_operator_watch_events_total{kind="Lease"}', 0) > 2)
    # Of kinds of which there is nothing it may be on its way still; and 4 s are soon over where a machine stands still.
    until(lambda: proxy.watching > 10)
    until(lambda: operator.get("/healthz") == (200, "ok\n"))
    fault = proxy.fail(lambda request: request.verb == "watch", 503, 1_000_000)

    def deaf() -> bool:
        """One that was just being opened is cut, too."""
        proxy.drop_watches()
        return operator.get("/healthz")[0] == 503

    until(deaf)
    assert "the watch is deaf" in operator.get("/healthz")[1]
    assert operator.get("/readyz")[0] == 200
    fault.times = fault.done
    until(lambda: operator.get("/healthz")[0] == 200)
    assert operator.errors() == []
    assert operator.stop() == 0


def test_an_election_whose_lease_is_not_watched_has_a_probe(
    start: Start, api_cluster: Cluster, api_namespace: str
) -> None:
    operator = start("one").ready()
    # The Lease of the election is where the operator runs; the probed one where it watches.
    held = api_cluster.api.need("leases", OPERATOR_NAMESPACE, api_namespace)["spec"]
    assert held["holderIdentity"] == "one"
    until(lambda: api_cluster.api.get("leases", api_namespace, api_namespace))
    assert operator.stop() == 0
    released = api_cluster.api.need("leases", OPERATOR_NAMESPACE, api_namespace)["spec"]
    assert not released.get("holderIdentity")


def test_without_election_it_works_at_once(start: Start, api_cluster: Cluster, api_namespace: str) -> None:
    operator = start("one", "--no-leader-elect").ready()
    assert api_cluster.api.get("leases", OPERATOR_NAMESPACE, api_namespace) is None
    assert operator.stop() == 0


def test_the_follower_is_ready_and_takes_over_when_the_leader_stops(start: Start) -> None:
    first = start("one").ready()
    second = start("two").ready()
    health = json.loads(second.get("/health")[1])["operator"]
    assert (health["leading"], health["holder"]) == (False, "one")
    assert first.stop() == 0
    until(lambda: json.loads(second.get("/health")[1] or "{}").get("operator", {}).get("leading"))
    second.ready()
    assert second.metrics()["feedmill_operator_leader"] == 1
    assert second.errors() == []


def test_a_leader_cut_off_ends_with_1_and_in_time(start: Start, proxy: FaultProxy) -> None:
    # Not so short that a machine that stands still ends it before the outage does.
    times = ["--lease-duration", "12s", "--lease-renew-deadline", "8s", "--lease-retry", "0.5s"]
    operator = start("one", *times).ready()
    proxy.outage()
    until(lambda: not operator.alive(), what="the leader to end")
    assert operator.process is not None
    assert operator.process.returncode == 1
    assert "lease.lost" in [line.get("event") for line in operator.lines()]
    assert operator.errors() == []


def test_it_stops_in_order_while_nobody_answers(start: Start, proxy: FaultProxy) -> None:
    operator = start("one", "--no-leader-elect").ready()
    proxy.outage()
    assert operator.stop() == 0
    assert operator.errors() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kubeconfig", "none"], "give --kubeconfig FILE"),
        (["--health-port", "1", "--health-host", "203.0.113.1"], "choose another --health-host or --health-port"),
        (["--otlp-endpoint", "http://127.0.0.1:4318"], "is not installed: install it"),
    ],
)
def test_what_cannot_work_ends_with_2_and_says_why(
    arguments: list[str], message: str, api_cluster: Cluster, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "feedmill_operator", "run", "--operand-image", "services:1"]
    command += ["--health-port", "0", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(api_cluster.kubeconfig)}
    if "--otlp-endpoint" in arguments and _installed("opentelemetry.sdk"):
        pytest.skip("OpenTelemetry's SDK is installed here")
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
