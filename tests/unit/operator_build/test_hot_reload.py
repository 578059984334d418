"""What a change of a resource touches: the mounted configuration, which running processes follow, or the pods."""

from __future__ import annotations

from typing import Any

import pytest
from build_cases import FEED, MANAGED, OWN, OWN_FEED, feed, of_feed, of_pipeline, pipeline, templates

from feedmill.resources.load import load_texts
from feedmill_operator import names
from feedmill_operator.build import config
from feedmill_operator.build.feed import build_feed
from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.pipeline import build_pipeline

POD_TEMPLATE = {
    "metadata": {"labels": {"team": "data"}, "annotations": {"note": "kept"}},
    "spec": {"nodeSelector": {"disk": "fast"}, "terminationGracePeriodSeconds": 60},
}


def split(made: list[Manifest]) -> tuple[list[Manifest], list[Manifest]]:
    """ConfigMaps; everything else."""
    maps = [each for each in made if each["kind"] == "ConfigMap"]
    return maps, [each for each in made if each["kind"] != "ConfigMap"]


@pytest.mark.parametrize(
    "changes",
    [
        {"instruments": {"symbols": ["BTC-USDT"]}},
        {"instruments": {"symbols": ["BTC-USDT", "ETH-USDT", "SOL-USDT"]}},
        {"channels": [{"name": "Trades"}, {"name": "Ticker"}]},
        {"channels": [{"name": "Trades"}, {"name": "Book", "depth": 10}]},
        {"logLevel": "Debug"},
        {"receiver": {"memory": "32Mi"}},
        {"receiver": {"reconnect": {"maxBackoff": "5s"}}},
        {"receiver": {"batching": {"mode": "Latency"}}},
        {"distributor": {"gapGrace": "9s"}},
    ],
    ids=str,
)
def test_processes_follow_a_feed_without_a_new_pod(changes: dict[str, Any]) -> None:
    of, one, other = pipeline(MANAGED), feed(FEED), feed(FEED, **changes)
    (before, same), (after, still) = split(build_feed(of_feed(one, of))), split(build_feed(of_feed(other, of)))
    assert before != after
    assert same == still
    (shared, kept), (changed, as_kept) = (split(build_pipeline(of_pipeline(of, each))) for each in (one, other))
    assert shared != changed
    assert kept == as_kept


@pytest.mark.parametrize(
    "changes",
    [
        {"logLevel": "Debug"},
        {"retention": {"trades": "5d"}},
        {"candles": {"intervals": ["1m", "1h"]}},
        {"redis": {"circuitBreaker": {"failureThreshold": 2}}},
    ],
    ids=str,
)
def test_processes_follow_a_pipeline_without_a_new_pod(changes: dict[str, Any]) -> None:
    before, same = split(build_pipeline(of_pipeline(pipeline(MANAGED), feed(FEED))))
    after, still = split(build_pipeline(of_pipeline(pipeline(MANAGED, **changes), feed(FEED))))
    assert before != after
    assert same == still


def test_receivers_learn_how_many_replicas_are_to_confirm_without_a_new_pod() -> None:
    asked = pipeline(OWN, redis={"confirm": {"replicas": 2}})
    before, same = split(build_feed(of_feed(feed(FEED), pipeline(OWN))))
    after, still = split(build_feed(of_feed(feed(FEED), asked)))
    assert before != after
    assert same == still


def test_what_only_processors_read_of_a_pipeline_touches_no_feed() -> None:
    other = pipeline(MANAGED, logLevel="Debug", retention={"trades": "5d"}, candles={"intervals": ["1m"]})
    assert build_feed(of_feed(feed(FEED), other)) == build_feed(of_feed(feed(FEED), pipeline(MANAGED)))
    slower = pipeline(MANAGED, redis={"circuitBreaker": {"failureThreshold": 2}})
    assert build_feed(of_feed(feed(FEED), slower)) != build_feed(of_feed(feed(FEED), pipeline(MANAGED)))


@pytest.mark.parametrize("role", [names.RECEIVER, names.DISTRIBUTOR])
@pytest.mark.parametrize(
    ("changes", "rolls"),
    [
        ({"replicas": 3}, False),
        ({"resources": {"limits": {"memory": "3Gi"}}}, True),
        ({"podTemplate": POD_TEMPLATE}, True),
    ],
    ids=["replicas", "resources", "podTemplate"],
)
def test_what_shapes_the_pods_of_one_role_reloads_nothing_and_rolls_no_other(
    role: str, changes: dict[str, Any], rolls: bool
) -> None:
    of = pipeline(MANAGED)
    before = build_feed(of_feed(feed(FEED), of))
    after = build_feed(of_feed(feed(FEED, **{role: changes}), of))
    assert split(before)[0] == split(after)[0]
    old, new = templates(before), templates(after)
    assert old.keys() == new.keys()
    rolled = {new[where]["metadata"]["labels"][names.COMPONENT] for where in old if old[where] != new[where]}
    assert rolled == ({role} if rolls else set())


def test_another_image_rolls_every_service_and_reloads_none() -> None:
    of, newer = pipeline(MANAGED), pipeline(MANAGED, image="registry.example/services:2")
    for before, after in (
        (build_feed(of_feed(feed(FEED), of)), build_feed(of_feed(feed(FEED), newer))),
        (build_pipeline(of_pipeline(of, feed(FEED))), build_pipeline(of_pipeline(newer, feed(FEED)))),
    ):
        assert split(before)[0] == split(after)[0]
        old = templates(before).values()
        assert not [template for template in old if template in list(templates(after).values())]


def test_suspension_reloads_nothing() -> None:
    of, stopped = pipeline(MANAGED), pipeline(MANAGED, suspend=True)
    one, ended = feed(FEED), feed(FEED, suspend=True)
    assert split(build_feed(of_feed(one, of)))[0] == split(build_feed(of_feed(ended, of)))[0]
    assert build_feed(of_feed(one, of)) == build_feed(of_feed(one, stopped))
    former, latter = (split(build_pipeline(of_pipeline(*each)))[0] for each in ((of, one), (stopped, ended)))
    assert former == latter


NOT_TEXT = ["1e3", "0x1", "0o7", "on", "no", "null", "true", "123", "01", "1-1", "2026-11-26"]
"""Names that YAML would read as something else than text."""


@pytest.mark.parametrize("name", NOT_TEXT)
def test_names_that_look_like_numbers_stay_text(name: str) -> None:
    of = pipeline(OWN, egress=name, redis={"urlSecretRef": {"name": name, "key": name}})
    one = feed(OWN_FEED, pipelineRef={"name": name})
    of, one = (
        each.model_copy(update={"metadata": each.metadata.model_copy(update={"name": name, "namespace": name})})
        for each in (of, one)
    )
    for text in (config.feed_config_text(one, of), config.pipeline_config_text(of, [one])):
        loaded = load_texts({"resources.yaml": text})
        assert list(loaded.feeds) == [(name, name)]
        got = loaded.pipelines[name, name].spec
        assert (got.redis, got.egress) == (of.spec.redis, name)


# A letter beyond U+FFFF, which JSON escapes in a way YAML does not know.
@pytest.mark.parametrize("symbol", ["币安-USDT", "\U00020000-USDT", "É-USDT", "1000-USDT", "NO-1E3"])
def test_symbols_in_any_script_stay_what_they_are(symbol: str) -> None:
    of, one = pipeline(MANAGED), feed(FEED, instruments={"symbols": [symbol]})
    for text in (config.feed_config_text(one, of), config.pipeline_config_text(of, [one])):
        (loaded,) = load_texts({"resources.yaml": text}).feeds.values()
        assert loaded.spec.instruments.symbols == [symbol]
