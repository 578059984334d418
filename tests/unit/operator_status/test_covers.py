"""Drift is what of ours reads differently; what the server added is none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill_operator.reconcile.covers import covers, difference, quantity

POD: dict[str, Any] = {
    "containers": [
        {
            "name": "receiver",
            "image": "a:1",
            "args": ["run", "receiver"],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"name": "health", "containerPort": 8080}],
            "resources": {"limits": {"memory": "1Gi", "cpu": "500m"}, "requests": {}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "config", "mountPath": "/etc/x"}],
            "securityContext": {"readOnlyRootFilesystem": True},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "config", "configMap": {"name": "c"}}],
}


def served(manifest: dict[str, Any]) -> dict[str, Any]:
    """As the API server gives it back: defaults filled in, empty maps gone, quantities in its own words."""
    done = copy.deepcopy(manifest)
    container = done["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["ports"][0]["protocol"] = "TCP"
    container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
    container["resources"] = {"limits": {"cpu": "0.5", "memory": "1024Mi"}}
    done["volumes"][1]["configMap"]["defaultMode"] = 420
    done["restartPolicy"] = "Always"
    return done


def test_what_the_server_adds_is_no_drift() -> None:
    assert difference(served(POD), POD) is None


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda p: p["containers"][0].update(image="b:1"), "containers[receiver].image"),
        (lambda p: p["containers"][0]["args"].append("x"), "containers[receiver].args"),
        (lambda p: p["containers"][0]["args"].reverse(), "containers[receiver].args[0]"),
        (lambda p: p["containers"].append({"name": "x"}), "containers"),
        (lambda p: p["containers"][0]["env"].clear(), "containers[receiver].env"),
        (lambda p: p["containers"][0]["env"][0].update(name="OTHER"), "containers[receiver].env[POD_NAME]"),
        (lambda p: p["containers"][0].pop("env"), "containers[receiver].env"),
        (
            lambda p: p["containers"][0]["resources"]["limits"].update(memory="2Gi"),
            "containers[receiver].resources.limits.memory",
        ),
        (
            lambda p: p["containers"][0]["ports"][0].update(containerPort=1),
            "containers[receiver].ports[0].containerPort",
        ),
        (
            lambda p: p["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
            "containers[receiver].securityContext.readOnlyRootFilesystem",
        ),
        (lambda p: p["volumes"][0].pop("emptyDir"), "volumes[tmp].emptyDir"),
        (lambda p: p["volumes"][0].update(emptyDir=None), "volumes[tmp].emptyDir"),
        (lambda p: p["volumes"].pop(), "volumes"),
        (lambda p: p.update(volumes="x"), "volumes"),
    ],
)
def test_drift_is_named(edit: Any, path: str) -> None:
    live = served(POD)
    edit(live)
    assert difference(live, POD) == path


def test_lists_by_key_may_come_in_another_order() -> None:
    live = served(POD)
    live["volumes"].reverse()
    live["containers"][0]["volumeMounts"].reverse()
    assert covers(live, POD)


@pytest.mark.parametrize(
    ("live", "desired", "same"),
    [
        ({"port": 8080}, {"port": "8080"}, True),
        ({"port": "health"}, {"port": 8080}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": True}, {"a": "True"}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({}, {"a": None}, True),
        ({}, {"a": []}, True),
        ({}, {"labels": {}}, True),
        ({}, {"emptyDir": {}}, False),
        ({"emptyDir": {}}, {"emptyDir": {}}, True),
        ({"podSelector": {}}, {"podSelector": {}}, True),
        ({}, {"a": False}, False),
        ({}, {"a": 0}, False),
        ({"a": ""}, {"a": "x"}, False),
        ({"limits": {"cpu": 1}}, {"limits": {"cpu": "1000m"}}, True),
        ({"storage": "2Gi"}, {"storage": "2048Mi"}, True),
        ({"name": "1k"}, {"name": "1000"}, False),
        ({"sizeLimit": "1Gi"}, {"sizeLimit": "1073741824"}, True),
        ({"ingress": [{"from": []}]}, {"ingress": [{}]}, True),
        ({"egress": [{"ports": [1]}]}, {"egress": [{"ports": [1]}, {}]}, False),
    ],
)
def test_values(live: dict[str, Any], desired: dict[str, Any], same: bool) -> None:
    assert covers(live, desired) is same


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("1k", 1000), ("1.5Gi", 1610612736), ("x", None), ("", None)],
)
def test_quantities(text: str, number: float | None) -> None:
    found = quantity(text)
    assert (None if found is None else float(found)) == number


SCALARS = st.one_of(st.booleans(), st.integers(-5, 5), st.text("abc1", max_size=3))
NAMES = st.sampled_from(["a", "b", "spec", "template", "labels", "data"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, TREES, max_size=4)


@given(OBJECTS)
def test_a_thing_covers_itself(desired: dict[str, Any]) -> None:
    assert covers(copy.deepcopy(desired), desired)


@given(OBJECTS, st.dictionaries(st.sampled_from(["x", "y"]), TREES, max_size=2))
def test_more_keys_are_no_drift_anywhere(desired: dict[str, Any], more: dict[str, Any]) -> None:
    def add(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {**{key: add(item) for key, item in tree.items()}, **copy.deepcopy(more)}
        return [add(item) for item in tree] if isinstance(tree, list) else tree

    assert covers(add(desired), desired)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(tree, dict):
        return [leaf for key, item in tree.items() for leaf in leaves(item, (*path, key))]
    if isinstance(tree, list):
        return [leaf for index, item in enumerate(tree) for leaf in leaves(item, (*path, index))]
    return [path]


@given(OBJECTS.filter(leaves), st.data())
def test_any_other_value_is_drift(desired: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(desired)))
    live = copy.deepcopy(desired)
    place: Any = live
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = "something else"
    assert not covers(live, desired)


@given(OBJECTS.filter(leaves), st.data())
def test_any_missing_value_is_drift(desired: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(desired)))
    live = copy.deepcopy(desired)
    place: Any = live
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    assert not covers(live, desired)
