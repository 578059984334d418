"""What somebody does to the operator's objects by hand is undone, for every kind it makes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clusterkit.api import Object, Refused
from clusterkit.cluster import Cluster
from clusterkit.operator import Operator, operating
from clusterkit.waiting import until
from clusterkit.world import MADE, World, essence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def made(kwok_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Operator]]:
    """A managed pipeline and a feed with everything switched on, and the operator that watches them."""
    name = kwok_cluster.namespace()
    world = World(kwok_cluster, name)
    with operating(kwok_cluster, tmp_path_factory.mktemp("operator"), namespace=name) as operator:
        world.pipeline(
            redis={"managed": {}}, postgres={"managed": {}}, processor={"replicas": 2},
            monitoring={"podMonitor": "Enabled", "prometheusRule": "Enabled"},
        )  # fmt: skip
        world.feed(receiver={"replicas": 2}, distributor={"replicas": 2})
        world.ready("fpl/main", "xf/spot")
        world.settled()
        yield world, operator
    kwok_cluster.drop_namespace(name)


def set_spec(**values: Any) -> Callable[[Object], None]:
    return lambda found: found["spec"].update(values)


def container(found: Object) -> Object:
    spec = found["spec"]
    template = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    first: Object = template["spec"]["containers"][0]
    return first


def foreign_environment(found: Object) -> None:
    container(found).setdefault("env", []).append({"name": "STRANGE", "value": "1"})


def foreign_container(found: Object) -> None:
    found["spec"]["template"]["spec"]["containers"].append({"name": "stranger", "image": "stranger:1"})


def foreign_selector(found: Object) -> None:
    found["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/os": "linux"}


def no_labels(found: Object) -> None:
    found["metadata"]["labels"].pop("app.kubernetes.io/component")


def no_owner(found: Object) -> None:
    found["metadata"].pop("ownerReferences")


EDITS: dict[str, dict[str, Callable[[Object], object]]] = {
    "configmaps": {
        "content": lambda found: found["data"].update({"resources.yaml": "nonsense"}),
        "a key more": lambda found: found["data"].update({"more": "x"}),
        "a label less": no_labels,
        "no owner": no_owner,
    },
    "deployments": {
        "replicas": set_spec(replicas=7),
        "image": lambda found: container(found).update(image="stranger:1"),
        "arguments": lambda found: container(found)["args"].append("--strange"),
        "a variable more": foreign_environment,
        "a container more": foreign_container,
        "another node": foreign_selector,
        "rights": lambda found: container(found)["securityContext"].update(readOnlyRootFilesystem=False),
        "limits": lambda found: container(found).setdefault("resources", {}).update(limits={"cpu": "7"}),
        "a label less": no_labels,
    },
    "statefulsets": {
        "replicas": set_spec(replicas=3),
        "image": lambda found: container(found).update(image="stranger:1"),
        "a variable more": foreign_environment,
    },
    "services": {
        "port": lambda found: found["spec"]["ports"][0].update(port=4711),
        "a selector more": lambda found: found["spec"]["selector"].update({"a": "b"}),
        "a label less": no_labels,
    },
    "serviceaccounts": {"token": lambda found: found.update(automountServiceAccountToken=True)},
    "cronjobs": {
        "schedule": set_spec(schedule="0 0 1 1 *"),
        "suspend": set_spec(suspend=True),
        "image": lambda found: container(found).update(image="stranger:1"),
    },
    "poddisruptionbudgets": {"budget": lambda found: found["spec"].update(maxUnavailable=5)},
    "networkpolicies": {
        "a hole": lambda found: found["spec"].setdefault("egress", []).append({}),
        "a way in": lambda found: found["spec"].setdefault("ingress", []).append({}),
    },
    "secrets": {
        "a key less": lambda found: found["data"].pop("url"),
        "a key more": lambda found: found["data"].update({"more": "eA=="}),
    },
    "jobs": {"a label less": no_labels},
    "podmonitors": {"endpoints": set_spec(podMetricsEndpoints=[]), "a field more": set_spec(strange="x")},
    "prometheusrules": {"groups": set_spec(groups=[])},
}


def test_edits_are_known_for_every_kind() -> None:
    """A kind that the operator makes one day needs its own edits here."""
    assert set(EDITS) == set(MADE)


def one_of(world: World, plural: str) -> list[tuple[str, Object]]:
    """One object of a kind for each of the two owners, where there is one."""
    chosen = {}
    for (kind, name), item in sorted(world.made().items()):
        if kind == plural:
            owner = item["metadata"]["ownerReferences"][0]["kind"]
            chosen.setdefault(owner, (name, item))
    return list(chosen.values())


def same_again(world: World, plural: str, name: str, wanted: Object, what: str) -> None:
    """Waits; tells the difference when it stays."""
    last: Object = {}

    def same() -> bool:
        nonlocal last
        last = essence(world.one(plural, name) or {"metadata": {}})
        return last == wanted

    try:
        until(same, what=f"{plural}/{name}: {what} to be undone")
    except AssertionError:
        assert last == wanted
        raise


CASES = [(plural, edit) for plural, edits in EDITS.items() for edit in edits]


@pytest.mark.parametrize(
    ("plural", "edit"), CASES, ids=[f"{plural}-{edit.replace(' ', '-')}" for plural, edit in CASES]
)
def test_an_edit_is_undone(made: tuple[World, Operator], plural: str, edit: str) -> None:
    world, operator = made
    mark = operator.mark()
    found = one_of(world, plural)
    assert found, f"the operator made no {plural}"
    for name, before in found:
        wanted = essence(before)
        world.cluster.api.edit(plural, world.namespace, name, EDITS[plural][edit])

        same_again(world, plural, name, wanted, edit)
    assert operator.errors(mark) == []


@pytest.mark.parametrize("plural", list(EDITS))
def test_a_deletion_is_undone(made: tuple[World, Operator], plural: str) -> None:
    world, operator = made
    mark = operator.mark()
    found = one_of(world, plural)
    assert found, f"the operator made no {plural}"
    for name, before in found:
        wanted = essence(before)
        world.cluster.api.delete(plural, world.namespace, name)

        def back(name: str = name, before: Object = before) -> Object | None:
            now = world.one(plural, name)
            return now if now is not None and now["metadata"]["uid"] != before["metadata"]["uid"] else None

        now = until(back, what=f"{plural}/{name} to be made again")
        if plural in ("secrets", "services", "jobs"):
            # A new password, a new address, the server's own selector.
            assert set(now) - {"apiVersion", "kind"} == set(before)
            continue
        assert essence(now) == wanted
    assert operator.errors(mark) == []
    world.ready("fpl/main", "xf/spot")


def test_edits_while_the_operator_was_away_are_undone_at_its_start(made: tuple[World, Operator]) -> None:
    world, operator = made
    before = {key: essence(item) for key, item in world.settled().items()}
    assert operator.stop() == 0
    cluster = world.cluster
    cluster.api.edit("deployments", world.namespace, "spot-receiver-0", set_spec(replicas=5))
    cluster.api.edit("deployments", world.namespace, "main-processor", foreign_environment)
    cluster.api.delete("configmaps", world.namespace, "spot-feed-config")
    operator.start().ready()

    def undone() -> bool:
        now = {key: essence(item) for key, item in world.made().items()}
        return now == before

    until(undone, what="all to be as before")


def test_a_scale_of_the_deployment_itself_is_undone_but_not_one_of_the_pipeline(made: tuple[World, Operator]) -> None:
    world, _ = made
    cluster = world.cluster
    cluster.kubectl("scale", "deployment/main-processor", "--replicas=5", "-n", world.namespace)
    until(lambda: cluster.api.need("deployments", world.namespace, "main-processor")["spec"]["replicas"] == 2)
    cluster.kubectl("scale", "fpl/main", "--replicas=3", "-n", world.namespace)
    until(lambda: cluster.api.need("deployments", world.namespace, "main-processor")["spec"]["replicas"] == 3)
    cluster.kubectl("scale", "fpl/main", "--replicas=2", "-n", world.namespace)
    until(lambda: len(world.pods("processor")) == 2)


def test_what_nobody_may_edit_cannot_be(made: tuple[World, Operator]) -> None:
    """Selectors are immutable: that the operator never tries to change one is seen by its log staying clean."""
    world, operator = made
    mark = operator.mark()
    found = copy.deepcopy(world.cluster.api.need("deployments", world.namespace, "main-processor"))
    found["spec"]["selector"]["matchLabels"]["a"] = "b"
    where = f"/apis/apps/v1/namespaces/{world.namespace}/deployments/main-processor"
    with pytest.raises(Refused):
        world.cluster.api.request("PUT", where, found)
    assert operator.errors(mark) == []
