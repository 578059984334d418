"""The chart grants the operator exactly what it does: a full run under its own account is never refused, and no granted
verb stays unused without a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Cluster
from clusterkit.install import rendered
from clusterkit.operator import ADMIN_BINDING, Operator, operating
from clusterkit.tool import NoCluster
from clusterkit.waiting import until
from clusterkit.world import MADE, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Right = tuple[str, str, str]
"""(API group, resource, verb)."""
RBAC = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
ALIKE = {"get", "create", "patch", "update", "delete", "list", "watch"}
"""What the operator does to a kind it makes. Which of them a run has it replace (a stranger wrote into it), delete
(it is no longer wanted) or read (a conflict) is chance: each of these verbs must be used on one of them."""
SEEN = {"create", "patch", "list", "watch"}
"""Of these, what every kind must see in a full run."""
UNUSED: dict[Right, str] = {
    ("feedmill.dev", "feedbackups", "delete"): "of those that schedules made, the 51st and older",
    ("feedmill.dev", "feedrestores", "delete"): "likewise",
}
"""Granted, not seen in this run, and why it is granted all the same."""


EVERY_MINUTE = {
    "schedule": "* * * * *",
    "verify": {"schedule": "* * * * *"},
    "destination": {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "s3"}}},
    "encryption": {"keySecretRef": {"name": "backup-key", "key": "keys"}},
}


def rules(objects: list[Object]) -> set[Right]:
    """What the roles bound to the operator's account grant."""
    bound = {
        (item["roleRef"]["kind"], item["roleRef"]["name"])
        for item in objects
        if item["kind"].endswith("Binding") and any(subject["name"] == OPERATOR_ACCOUNT for subject in item["subjects"])
    }
    assert bound, f"no binding of the chart names the account {OPERATOR_ACCOUNT}"
    return {
        (group, resource, verb)
        for item in objects
        if (item["kind"], item["metadata"]["name"]) in bound
        for rule in item["rules"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def used(cluster: Cluster, mark: int) -> set[Right]:
    """By the audit log."""
    found = set()
    for event in cluster.audited(mark):
        what = event.get("objectRef") or {}
        if "resource" in what:
            resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
            found.add((what.get("apiGroup", ""), resource, event["verb"]))
            if event["verb"] == "patch" and (event.get("responseStatus") or {}).get("code") == 201:
                # A server-side apply of what is not there yet is asked for both.
                found.add((what.get("apiGroup", ""), resource, "create"))
    return found


def refused(cluster: Cluster, mark: int) -> list[str]:
    """For want of a right. (A namespace that is being deleted takes nothing new either, and also says 403.)"""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in cluster.audited(mark)
        if (event.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid"
    ]


@pytest.fixture
def limited(kwok_cluster: Cluster) -> Iterator[Callable[..., list[Object]]]:
    """``limited("operator.x=y")``: from now on the operator has only what the chart with these values grants."""
    if kwok_cluster.audit is None:
        pytest.skip("this API server writes no audit log: only the cluster tool starts it with one")
    cluster = kwok_cluster
    with ExitStack() as stack:

        def limit(*values: str, namespace: str | None = None) -> list[Object]:
            try:
                objects = rendered(*(part for value in values for part in ("--set", value)))
            except NoCluster as error:
                pytest.skip(str(error))
            chosen = [item for item in objects if item["kind"] in RBAC]
            for item in chosen:
                if item["kind"] in ("Role", "RoleBinding"):
                    item["metadata"].setdefault("namespace", OPERATOR_NAMESPACE)
            cluster.kubectl("delete", "clusterrolebinding", ADMIN_BINDING["metadata"]["name"])
            stack.callback(cluster.apply, ADMIN_BINDING)
            cluster.apply(*chosen)
            # Left by the operators of other tests: it is to be made, too.
            cluster.kubectl("delete", "leases", "--all", "-n", OPERATOR_NAMESPACE)
            for item in chosen:
                where = ["-n", item["metadata"]["namespace"]] if "namespace" in item["metadata"] else []
                stack.callback(
                    cluster.kubectl, "delete", item["kind"], item["metadata"]["name"], *where, "--wait=false"
                )
            return chosen

        yield limit


def renewed(world: World, plural: str, name: str, uid: str) -> bool:
    found = world.one(plural, name)
    return found is not None and found["metadata"]["uid"] != uid


def full_run(world: World) -> None:
    """Everything the operator ever does to the API server."""
    cluster, namespace = world.cluster, world.namespace
    # A Secret that is not there yet, a pipeline that is not there yet.
    world.feed(receiver={"replicas": 2}, distributor={"replicas": 2})
    world.wait("xf/spot", "Accepted", "False")
    world.pipeline(processor={"replicas": 2}, monitoring={"podMonitor": "Enabled", "prometheusRule": "Enabled"})
    world.wait("fpl/main", "Accepted", "False")
    for secret in samples.server_secrets(namespace):
        secret["metadata"]["labels"] = {"feedmill.dev/watch": "true"}
        cluster.api.create("secrets", secret)
    world.pipeline("own", redis={"managed": {}}, postgres={"managed": {}})
    world.feed("other", pipelineRef={"name": "own"}, instruments={"symbols": ["BTC-USDT", "ETH-USDT", "SOL-USDT"]})
    world.ready("fpl/main", "fpl/own", "xf/spot", "xf/other")
    # An account whose Secret comes late, and runs that cannot begin yet.
    world.account()
    world.wait("xa/fund", "Accepted", "False")
    world.secret("fund-key", apiKey="planted-key", apiSecret="planted-secret")
    world.wait("xa/fund", "Accepted")
    until(lambda: world.pods("accounts"), what="an account receiver")
    for kind, plural in (("FeedBackup", "feedbackups"), ("FeedRestore", "feedrestores")):
        document = samples.full(kind)
        document["metadata"]["namespace"] = namespace
        cluster.api.create(plural, document)
    world.wait("frs/drill", "Accepted", "False")
    world.wait("fbk/now", "Accepted", "False")
    # Backups: one that somebody made begins, and what the schedules do each minute is taken up.
    world.secret("s3", accessKeyId="id", secretAccessKey="key")
    world.secret("backup-key", keys="first key")
    world.patch("fpl/main", {"spec": {"backup": EVERY_MINUTE}})
    world.wait("fbk/now", "Complete")
    for plural in ("feedbackups", "feedrestores"):
        until(lambda p=plural: cluster.api.list(p, namespace, "feedmill.dev/scheduled=true"), 150, what=plural)
    world.patch("fpl/main", {"spec": {"backup": None}})
    # Changes, hot and rolling; a field that a stranger added (a replace); a deletion of each kind.
    world.patch("xf/spot", {"spec": {"instruments": {"symbols": ["BTC-USDT"]}}})
    world.patch("fpl/main", {"spec": {"image": "registry.example.com/feedmill/services:2"}})
    cluster.kubectl("scale", "fpl/main", "--replicas=3", "-n", namespace)
    world.annotate("xf/other", restart="now")
    until(lambda: world.status("xf/spot").get("instruments") == 1)
    cluster.api.edit(
        "deployments", namespace, "own-processor",
        lambda found: found["spec"]["template"]["spec"]["containers"][0].setdefault("env", []).append(
            {"name": "STRANGE", "value": "1"}),
    )  # fmt: skip
    world.patch("fpl/own", {"spec": {"postgres": {"managed": {"storage": "30Gi"}}}})
    until(lambda: "30Gi" in {claim["spec"]["resources"]["requests"]["storage"]
                             for claim in cluster.api.list("persistentvolumeclaims", namespace)})  # fmt: skip
    for plural in MADE:
        for (kind, name), item in sorted(world.made().items()):
            # A run is never begun anew.
            if kind == plural and "feedmill.dev/run" not in item["metadata"]["labels"]:
                cluster.api.delete(plural, namespace, name)
                until(lambda n=name, p=plural, u=item["metadata"]["uid"]: renewed(world, p, n, u), what=plural)
                break
    world.annotate("xf/spot", pause="true")
    world.wait("xf/spot", "Paused", "True")
    world.annotate("xf/spot", pause=None)
    world.patch("xf/spot", {"spec": {"suspend": True}})
    until(lambda: not world.pods("receiver") or all("other" in p["metadata"]["name"] for p in world.pods("receiver")))
    world.patch("xf/spot", {"spec": {"suspend": False}})
    world.ready("fpl/main", "fpl/own", "xf/spot", "xf/other", timeout=90)
    # Fewer replicas and no monitoring: what is no longer wanted is pruned.
    off = {"podMonitor": "Disabled", "prometheusRule": "Disabled"}
    world.patch("fpl/main", {"spec": {"processor": {"replicas": 1}, "monitoring": off}})
    world.patch("xf/spot", {"spec": {"receiver": {"replicas": 1}, "distributor": {"replicas": 1}}})
    world.patch("fpl/own", {"spec": {"suspend": True}})
    until(lambda: world.one("podmonitors", "main") is None)
    world.ready("fpl/main", "xf/spot")
    world.delete("xa/fund")
    until(lambda: world.one("deployments", "main-accounts") is None)
    for what in ("xf/spot", "xf/other", "fpl/main", "fpl/own", "fbk/now", "frs/drill"):
        world.delete(what)
    until(lambda: not world.made(), 120)


def test_cluster_wide(
    kwok_cluster: Cluster, namespace: str, limited: Callable[..., list[Object]], tmp_path: Path
) -> None:
    granted = rules(limited())
    mark = kwok_cluster.audit_mark()
    with operating(kwok_cluster, tmp_path) as operator:
        full_run(World(kwok_cluster, namespace))
        assert operator.stop() == 0
        check(kwok_cluster, mark, granted, operator)


def check(cluster: Cluster, mark: int, granted: set[Right], operator: Operator) -> None:
    assert refused(cluster, mark) == []
    asked = used(cluster, mark)
    assert {right for right in asked if right[1] == "exchangefeeds/status"}
    made = {right[1] for right in granted if right[1] in MADE}
    assert made == set(MADE)
    alike = {right for right in granted if right[1] in MADE}
    assert {verb for _, _, verb in alike} <= {verb for _, resource, verb in asked if resource in MADE}
    unseen = {right for right in alike if right[2] in SEEN} - asked
    assert not unseen, f"not every kind was made and watched: {sorted(unseen)}"
    assert {verb for _, _, verb in alike} <= ALIKE
    idle = granted - alike - asked - set(UNUSED)
    assert not idle, f"granted and never used: take it out of the chart, or say why in UNUSED: {sorted(idle)}"
    stale = set(UNUSED) & asked
    assert not stale, f"used after all: take it out of UNUSED: {sorted(stale)}"
    assert set(UNUSED) <= granted
    assert not {right for right in granted if "*" in right}, "a star grants what nobody asked for"
    assert operator.errors() == []


def test_in_its_namespaces_only(kwok_cluster: Cluster, limited: Callable[..., list[Object]], tmp_path: Path) -> None:
    """Without any ClusterRole."""
    namespace = kwok_cluster.namespace()
    objects = limited(f"watch.namespaces={{{namespace}}}")
    assert not [item for item in objects if item["kind"].startswith("ClusterRole")]
    mark = kwok_cluster.audit_mark()
    world = World(kwok_cluster, namespace)
    world.secrets()
    with operating(kwok_cluster, tmp_path, namespace=namespace) as operator:
        world.pipeline()
        world.feed()
        world.ready("fpl/main", "xf/spot")
        assert operator.errors() == []
    assert refused(kwok_cluster, mark) == []
    kwok_cluster.drop_namespace(namespace)
