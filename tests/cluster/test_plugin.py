"""``kubectl feedmill`` as users run it: found by kubectl on the PATH, against a real API server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterkit import samples
from clusterkit.cluster import Cluster
from clusterkit.operator import Operator
from clusterkit.plugin import Run, runner
from clusterkit.tool import ROOT
from clusterkit.waiting import until
from clusterkit.world import World
from feedmill.shared.health import Health, HealthServer
from feedmill_operator import names

pytestmark = pytest.mark.slow
EXAMPLES = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))


@pytest.fixture
def feedmill(api_cluster: Cluster, tmp_path: Path) -> Run:
    return runner(api_cluster, tmp_path / "bin")


def made(cluster: Cluster, namespace: str, **status: Any) -> None:
    """The feed ``spot`` with what an operator would have written."""
    cluster.api.create("exchangefeeds", samples.feed("spot", namespace))
    condition = {
        "type": "Ready", "status": "False", "reason": "ReceiverUnavailable", "message": "0 of 1 receivers are ready",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-26T00:00:00Z",
    }  # fmt: skip
    body = {"status": {"observedGeneration": 1, "conditions": [condition], "data": "Stale", **status}}
    cluster.api.merge("exchangefeeds", namespace, "spot", body, "status")


def test_kubectl_finds_it_and_it_says_what_is_wrong(api_cluster: Cluster, api_namespace: str, feedmill: Run) -> None:
    made(api_cluster, api_namespace)
    done = feedmill("status", "-n", api_namespace)
    assert done.returncode == 1, done.stderr
    assert "feed/spot: Ready=False (ReceiverUnavailable): 0 of 1 receivers are ready" in done.stdout
    (found,) = json.loads(feedmill("status", "spot", "-n", api_namespace, "-o", "json").stdout)
    assert (found["data"], found["lag"]) == ("Stale", None)
    everywhere = feedmill("status", "-A")
    assert api_namespace in everywhere.stdout


def test_pause_resume_and_restart_are_annotations(api_cluster: Cluster, api_namespace: str, feedmill: Run) -> None:
    made(api_cluster, api_namespace)

    def annotations() -> dict[str, str]:
        found = api_cluster.api.need("exchangefeeds", api_namespace, "spot")
        return dict(found["metadata"].get("annotations") or {})

    assert feedmill("pause", "spot", "-n", api_namespace).returncode == 0
    assert annotations() == {names.PAUSE: "true"}
    assert feedmill("resume", "spot", "-n", api_namespace).returncode == 0
    assert annotations() == {}
    assert feedmill("restart", "spot", "--no-wait", "-n", api_namespace).returncode == 0
    assert set(annotations()) == {names.RESTART}
    assert api_cluster.api.need("exchangefeeds", api_namespace, "spot")["metadata"]["generation"] == 1


def test_a_name_that_is_not_there(api_cluster: Cluster, api_namespace: str, feedmill: Run) -> None:
    made(api_cluster, api_namespace)
    done = feedmill("logs", "spt", "-n", api_namespace)
    assert done.returncode == 2
    assert f"namespace {api_namespace} has no feed or pipeline named spt: did you mean spot?" in done.stderr


@pytest.fixture
def limited(api_cluster: Cluster, api_namespace: str, tmp_path: Path) -> Callable[[list[Any]], Run]:
    """``limited(rules)``: the plugin as somebody who may do that much in the test's namespace."""

    def make(rules: list[Any]) -> Run:
        api = api_cluster.api
        where = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{api_namespace}"
        meta = {"name": "person", "namespace": api_namespace}
        api.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        api.request("POST", f"{where}/roles", {"metadata": meta, "rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "person"}
        subject = {"kind": "ServiceAccount", "name": "person", "namespace": api_namespace}
        api.request("POST", f"{where}/rolebindings", {"metadata": meta, "roleRef": reference, "subjects": [subject]})
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        path = f"/api/v1/namespaces/{api_namespace}/serviceaccounts/person/token"
        token = api.request("POST", path, asked)["status"]["token"]
        config = yaml.safe_load(api_cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        kubeconfig = tmp_path / "limited.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        return runner(api_cluster, tmp_path / "bin", kubeconfig)

    return make


def test_what_is_forbidden_is_named(api_cluster: Cluster, api_namespace: str, limited: Any) -> None:
    made(api_cluster, api_namespace)
    run = limited([{"apiGroups": ["feedmill.dev"], "resources": ["exchangefeeds"], "verbs": ["get"]}])
    done = run("pause", "feed/spot", "-n", api_namespace)
    assert done.returncode == 1
    assert 'cannot patch resource "exchangefeeds" in API group "feedmill.dev"' in done.stderr
    assert "ask the cluster's administrator for that right; docs/kubectl-plugin.md" in done.stderr


def test_the_role_of_the_examples_suffices(api_cluster: Cluster, api_namespace: str, limited: Any) -> None:
    made(api_cluster, api_namespace)
    (role, _) = yaml.safe_load_all((ROOT / "examples" / "kubernetes" / "kubectl-plugin-rights.yaml").read_text())
    run = limited(role["rules"])
    for command in (("status",), ("status", "spot"), ("lag",), ("gaps",), ("pause", "spot"), ("resume", "spot"),
                    ("restart", "spot", "--no-wait"), ("logs", "spot"), ("reload", "spot")):  # fmt: skip
        done = run(*command, "-n", api_namespace)
        assert "cannot" not in done.stderr, (command, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)


@pytest.fixture
def address() -> str:
    """Of this machine, other than 127.0.0.1: the API server's proxy goes nowhere near that one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        try:
            found.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address that an API server would proxy to")
        return str(found.getsockname()[0])


@pytest.fixture
def process(address: str) -> Iterator[tuple[Health, int]]:
    """A real health server that a pod's address leads to."""
    health, loop, ready = Health("receiver"), asyncio.new_event_loop(), threading.Event()
    server = HealthServer(health, address, 0)
    over = asyncio.Event()

    async def serve() -> None:
        await server.start()
        ready.set()
        await over.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    yield health, server.port
    loop.call_soon_threadsafe(over.set)
    thread.join(60)
    loop.close()


def pod(cluster: Cluster, namespace: str, address: str, port: int) -> None:
    """A receiver that no node runs; its address leads to the process of this test."""
    marks = {
        names.MANAGED_BY: names.MANAGER, names.COMPONENT: names.RECEIVER, names.PIPELINE: "main", names.FEED: "spot",
        names.SHARD: "0",
    }  # fmt: skip
    container = {"name": "receiver", "image": "x", "ports": [{"name": "health", "containerPort": port}]}
    meta = {"name": "spot-receiver-0-x", "namespace": namespace, "labels": marks}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
    cluster.api.create("serviceaccounts", account)
    cluster.api.create(
        "pods",
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": meta,
            "spec": {"nodeName": "nowhere", "containers": [container], "automountServiceAccountToken": False},
        },
    )  # fmt: skip
    status = {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }  # fmt: skip
    cluster.api.merge("pods", namespace, "spot-receiver-0-x", {"status": status}, "status")


def test_lag_goes_through_the_api_servers_proxy(
    api_cluster: Cluster, api_namespace: str, feedmill: Run, address: str, process: tuple[Health, int]
) -> None:
    health, port = process
    health.detail("connections", lambda: {"stream-1": {"state": "open", "framesPerSecond": 41.0}})
    health.detail("session", lambda: {"batches": 12, "acknowledged": 5})
    made(api_cluster, api_namespace)
    pod(api_cluster, api_namespace, address, port)
    # It asks a process for 5 s only, which are over where the machine stands still.
    said: list[Any] = []

    def answered() -> bool:
        said.append(feedmill("lag", "spot", "-n", api_namespace))
        return bool(said[-1].returncode == 0)

    try:
        until(answered, what="an answer of the process")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{said[-1].stdout}{said[-1].stderr}") from None
    done = said[-1]
    # How many bytes is told where a receiver's metrics are in this process.
    assert done.stdout.splitlines()[1].replace(",", "").split()[:5] == ["spot", "0", "41", "7", "batches"]


def test_reload_waits_for_what_the_process_says(
    api_cluster: Cluster, api_namespace: str, feedmill: Run, address: str, process: tuple[Health, int]
) -> None:
    health, port = process
    name, api = "spot-receiver-0-x", api_cluster.api

    def config() -> dict[str, Any]:
        """Takes what the annotation says, as a process does whose kubelet refreshed the volume."""
        found = api.need("pods", api_namespace, name)["metadata"].get("annotations") or {}
        return {"hash": found.get(names.CONFIG_HASH, "old"), "error": "", "pending": False}

    health.detail("config", config)
    made(api_cluster, api_namespace)
    pod(api_cluster, api_namespace, address, port)
    meta = {"name": names.feed_config("spot"), "namespace": api_namespace}
    api.create(
        "configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"resources.yaml": "kind: ExchangeFeed\n"}},
    )
    done = feedmill("reload", "spot", "-n", api_namespace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "feed/spot: 1 of 1 pods work with configuration" in done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_accepted(api_cluster: Cluster, api_namespace: str, path: Path) -> None:
    """By the API server, strictly; each in a namespace of the test's."""
    documents = [item for item in yaml.safe_load_all(path.read_text()) if item]
    for document in documents:
        if document["kind"] == "Namespace":
            document["metadata"]["name"] = f"{api_namespace}-example"
        else:
            document["metadata"]["namespace"] = api_namespace
        api_cluster.kubectl("apply", "--validate=strict", "-f", "-", text=json.dumps(document))
    for document in documents:
        plural = {"FeedPipeline": "feedpipelines", "ExchangeFeed": "exchangefeeds"}.get(document["kind"])
        if plural:
            stored = api_cluster.api.need(plural, api_namespace, document["metadata"]["name"])
            assert stored["spec"]["suspend"] is False, "the defaults are filled in"


def test_with_an_operator(kwok_cluster: Cluster, operator: Operator, namespace: str, tmp_path: Path) -> None:
    """Restart and status on what an operator and controllers really do; on simulated nodes no process answers."""
    run = runner(kwok_cluster, tmp_path / "bin")
    world = World(kwok_cluster, namespace)
    world.secrets()
    world.pipeline()
    world.feed()
    world.ready("fpl/main", "xf/spot")
    done = run("status", "-n", namespace)
    assert done.returncode == 0, done.stdout
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    assert lines["main"][1] == lines["spot"][1] == "True"
    assert lines["spot"][5:7] == ["1/1", "1/1"]

    def pods() -> set[str]:
        found = kwok_cluster.api.list("pods", namespace, f"{names.FEED}=spot")
        return {item["metadata"]["uid"] for item in found if "deletionTimestamp" not in item["metadata"]}

    before = pods()
    done = run("restart", "spot", "-n", namespace, "--timeout", "2m")
    assert done.returncode == 0, done.stderr
    until(lambda: len(pods()) == len(before) and not pods() & before, what="all pods are new")
    # Those that are ending would be asked, too.
    until(lambda: len(kwok_cluster.api.list("pods", namespace, f"{names.FEED}=spot")) == len(before), what="no others")
    done = run("lag", "spot", "-n", namespace)
    assert done.returncode == 1
    assert done.stdout.count("gave no answer") == 3
    done = run("reload", "spot", "-n", namespace, "--timeout", "2s")
    assert done.returncode == 1
    assert "0 of 2 pods work with configuration" in done.stderr
    assert run("pause", "spot", "-n", namespace).returncode == 0
    world.wait("xf/spot", "Paused", "True")
    assert "feed/spot: Paused=True" in run("status", "-n", namespace).stdout
    assert run("resume", "spot", "-n", namespace).returncode == 0
    world.wait("xf/spot", "Paused", "False")
