"""What holds for every manifest, whatever the resources say."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import kubernetes_validate
import pytest
from build_cases import (
    CASES,
    FEED,
    INPUTS,
    MANAGED,
    OWN,
    POSTGRES_PASSWORD,
    REDIS_PASSWORD,
    feed,
    of_feed,
    of_pipeline,
    pipeline,
    templates,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.cli.run_process import REPLICA
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build.feed import build_feed, working_shards
from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.pipeline import build_pipeline
from feedmill_operator.kube import kinds

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
K8S_VERSIONS = ("1.29", "1.37")
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
LONGEST = st.from_regex(r"[a-z0-9][-a-z0-9]{38}[a-z0-9]", fullmatch=True)


@st.composite
def feeds(draw: st.DrawFn) -> ExchangeFeed:
    symbols = [f"A{number}-USDT" for number in range(draw(st.integers(1, 30)))]
    made = feed(
        FEED,
        pipelineRef={"name": draw(st.one_of(NAMES, LONGEST))},
        instruments={"symbols": symbols},
        receiver={"shards": draw(st.sampled_from([1, 2, 7, 64])), "replicas": draw(st.integers(1, 3))},
        distributor={"replicas": draw(st.integers(1, 3))},
        suspend=draw(st.sampled_from([False, False, False, True])),
    )
    metadata = made.metadata.model_copy(update={"name": draw(st.one_of(NAMES, LONGEST))})
    return made.model_copy(update={"metadata": metadata})


@st.composite
def pipelines(draw: st.DrawFn, name: str | None = None) -> FeedPipeline:
    made = pipeline(
        draw(st.sampled_from([MANAGED, OWN])),
        processor={"replicas": draw(st.integers(1, 16))},
        suspend=draw(st.booleans()),
        monitoring={"podMonitor": draw(st.sampled_from(["Auto", "Enabled", "Disabled"])), "prometheusRule": "Enabled"},
    )
    metadata = made.metadata.model_copy(update={"name": name or draw(st.one_of(NAMES, LONGEST))})
    return made.model_copy(update={"metadata": metadata})


def check(manifests: list[Manifest], owner: dict[str, Any], labels: dict[str, str]) -> None:
    """All that must hold of a resource's objects."""
    for each in manifests:
        metadata = each["metadata"]
        assert kinds.kind_of(each) in kinds.MADE
        assert metadata["namespace"] == "feeds"
        assert metadata["ownerReferences"] == [owner]
        assert "blockOwnerDeletion" not in owner
        assert metadata["labels"].items() >= labels.items()
        assert metadata["labels"][names.COMPONENT]
        assert DNS_LABEL.fullmatch(metadata["name"]), metadata["name"]
        if each["kind"] == "Service":
            assert metadata["name"][0].isalpha()
        if each["kind"] == "StatefulSet":
            service = next(
                other
                for other in manifests
                if other["kind"] == "Service" and other["spec"]["selector"] == each["spec"]["selector"]["matchLabels"]
            )
            assert each["spec"]["serviceName"] == service["metadata"]["name"]
        if each["kind"] == "CronJob":
            assert len(metadata["name"]) <= 52
        for found in _labels(each):
            assert all(LABEL_VALUE.fullmatch(value) for value in found.values()), found
        if each["kind"] in ("Deployment", "StatefulSet"):
            template = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= template.items()
            # A pod's name is a replica's name: at most 63 characters, as the API server cuts it.
            pod = f"{metadata['name']}-{'a' * 10}-"[:58] + "12345"
            assert REPLICA.fullmatch(pod)
    keys = Counter((each["kind"], each["metadata"]["name"]) for each in manifests)
    assert max(keys.values()) == 1
    selectors = [
        json.dumps(each["spec"]["selector"]["matchLabels"], sort_keys=True)
        for each in manifests
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert len(selectors) == len(set(selectors))
    for where, template in templates(manifests).items():
        restricted(where, template["spec"])


def _labels(value: Any) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if key in ("labels", "matchLabels"):
                yield inside
            else:
                yield from _labels(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _labels(inside)


def restricted(where: str, spec: Manifest) -> None:
    """The restricted profile of the Pod Security Standards, and what we ask beyond it."""
    assert spec["securityContext"]["runAsNonRoot"] is True, where
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
    for volume in spec["volumes"]:
        (kind,) = set(volume) - {"name"}
        assert kind in ("configMap", "emptyDir", "projected"), where
        if kind == "emptyDir":
            assert volume[kind]["sizeLimit"]
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not {"privileged", "runAsUser", "procMount"} & set(context)
    assert not any("hostPort" in port for port in container.get("ports", ()))
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_objects_of_any_feed(data: st.DataObject) -> None:
    one = data.draw(feeds())
    of = data.draw(pipelines(one.spec.pipeline_ref.name))
    inputs = of_feed(one, of)
    made = build_feed(inputs)
    check(
        made,
        inputs.owner.reference(),
        {names.FEED: one.metadata.name, names.PIPELINE: of.metadata.name, names.MANAGED_BY: names.MANAGER},
    )
    assert made == build_feed(of_feed(copy.deepcopy(one), copy.deepcopy(of)))
    count = Counter(each["kind"] for each in made)
    working = 0 if one.spec.suspend else len(working_shards(one))
    budgets = sum(replicas > 1 for replicas in (one.spec.receiver.replicas, one.spec.distributor.replicas))
    assert count == Counter(ConfigMap=1, Deployment=2 * working, PodDisruptionBudget=budgets * working)


@settings(max_examples=60, deadline=None)
@given(pipelines(), st.booleans())
def test_the_objects_of_any_pipeline(of: FeedPipeline, migrated: bool) -> None:
    inputs = of_pipeline(of, feed(FEED), migrated=migrated)
    made = build_pipeline(inputs)
    check(made, inputs.owner.reference(), {names.PIPELINE: of.metadata.name, names.MANAGED_BY: names.MANAGER})
    assert all(names.FEED not in each["metadata"]["labels"] for each in made)
    assert made == build_pipeline(inputs)


@pytest.mark.parametrize("name", CASES)
def test_no_password_stands_outside_of_a_secret(name: str) -> None:
    secrets = 0
    for each in CASES[name]():
        text = json.dumps(each, ensure_ascii=False)
        if each["kind"] == "Secret":
            secrets += 1
            each["data"] = {}
            text = json.dumps(each, ensure_ascii=False)
        for password in (REDIS_PASSWORD, POSTGRES_PASSWORD):
            forms = (password, quote(password, safe=""), base64.b64encode(password.encode()).decode()[:12], "Password/")
            assert not any(form in text for form in forms), each["metadata"]["name"]
    assert secrets == (2 if INPUTS[name].pipeline.spec.redis.managed and "pipeline" in name else 0)


@pytest.mark.parametrize("version", K8S_VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    native = [each for each in CASES[name]() if kinds.kind_of(each) not in kinds.OPTIONAL]
    assert native
    for each in native:
        kubernetes_validate.validate(each, version, strict=True)


def test_an_unknown_field_would_be_noticed() -> None:
    wrong = CASES["managed-feed"]()[0] | {"datum": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, K8S_VERSIONS[-1], strict=True)
