"""The mounted resources.yaml is what the services load, and says what the resources said."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from build_cases import (
    ACCOUNT,
    BACKUP,
    CASES,
    FEED,
    INPUTS,
    MANAGED,
    NOTIFICATIONS,
    OWN,
    OWN_FEED,
    account,
    feed,
    pipeline,
)

from feedmill.plan import shard_subscriptions
from feedmill.resources.confighash import config_hash
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import load_texts
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build import config
from feedmill_operator.build.backup import RunInputs

PODS_ONLY = {"replicas", "resources", "pod_template"}
PIPELINE_PODS_ONLY = {"image", "processor", "accounts", "api", "backup", "notifications", "monitoring", "suspend"}


def feed_view(one: ExchangeFeed) -> dict[str, Any]:
    """All of a feed but what shapes pods."""
    return {
        **one.spec.model_dump(exclude={"suspend"}),
        "receiver": one.spec.receiver.model_dump(exclude=PODS_ONLY),
        "distributor": one.spec.distributor.model_dump(exclude=PODS_ONLY),
    }


def pipeline_view(one: FeedPipeline) -> dict[str, Any]:
    return one.spec.model_dump(exclude=PIPELINE_PODS_ONLY)


@pytest.mark.parametrize(("one", "of"), [(FEED, MANAGED), (OWN_FEED, OWN)], ids=["small", "everything given"])
def test_a_feeds_file_loads_into_equal_models(one: str, of: str) -> None:
    wanted, shared = feed(one), pipeline(of)
    loaded = load_texts({"resources.yaml": config.feed_config_text(wanted, shared)})
    (got,) = loaded.feeds.values()
    (of_it,) = loaded.pipelines.values()
    assert got.key == wanted.key
    assert of_it.key == shared.key
    assert feed_view(got) == feed_view(wanted)
    assert of_it.spec.redis == shared.spec.redis
    assert of_it.spec.postgres == shared.spec.postgres
    assert of_it.spec.egress == shared.spec.egress
    assert shard_subscriptions(got, 0) == shard_subscriptions(wanted, 0)


@pytest.mark.parametrize("of", [MANAGED, OWN], ids=["managed", "own"])
def test_a_pipelines_file_loads_into_equal_models(of: str) -> None:
    shared, feeds = pipeline(of), [feed(OWN_FEED), feed(FEED, suspend=True)]
    text = config.pipeline_config_text(shared, feeds)
    assert text == config.pipeline_config_text(shared, reversed(feeds))
    loaded = load_texts({"resources.yaml": text})
    (got,) = loaded.pipelines.values()
    assert pipeline_view(got) == pipeline_view(shared)
    assert {key: feed_view(each) for key, each in loaded.feeds.items()} == {each.key: feed_view(each) for each in feeds}


def test_what_only_shapes_pods_reloads_nothing() -> None:
    of = pipeline(MANAGED)
    before = config.feed_config_text(feed(FEED), of)
    scaled = feed(FEED, receiver={"replicas": 3, "resources": {"limits": {"memory": "1Gi"}}}, suspend=True)
    assert config.feed_config_text(scaled, pipeline(MANAGED, processor={"replicas": 9}, image="other:1")) == before
    shared = config.pipeline_config_text(of, [feed(FEED)])
    assert config.pipeline_config_text(pipeline(MANAGED, processor={"replicas": 9}), [scaled]) == shared


@pytest.mark.parametrize(
    "changes",
    [
        {"instruments": {"symbols": ["BTC-USDT"]}},
        {"channels": [{"name": "Trades"}]},
        {"logLevel": "Debug"},
        {"receiver": {"memory": "32Mi"}},
        {"distributor": {"gapGrace": "9s"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_processes_work_by_changes_the_files(changes: dict[str, Any]) -> None:
    of, one, other = pipeline(MANAGED), feed(FEED), feed(FEED, **changes)
    assert config.feed_config_text(other, of) != config.feed_config_text(one, of)
    assert config.pipeline_config_text(of, [other]) != config.pipeline_config_text(of, [one])


def test_metadata_and_status_of_the_cluster_stay_out() -> None:
    document = yaml.safe_load(FEED)
    document["metadata"] |= {"uid": "1", "resourceVersion": "7", "generation": 3, "labels": {"mine": "yes"}}
    document["status"] = {"observedGeneration": 3}
    seen = ExchangeFeed.model_validate(document)
    assert config.feed_config_text(seen, pipeline(MANAGED)) == config.feed_config_text(feed(FEED), pipeline(MANAGED))


@pytest.mark.parametrize("name", CASES)
def test_the_hash_is_that_of_the_text(name: str) -> None:
    maps = [each for each in CASES[name]() if each["kind"] == "ConfigMap"]
    assert maps or isinstance(INPUTS[name], RunInputs)
    for made in maps:
        assert list(made["data"]) == ["resources.yaml"]
        assert made["metadata"]["annotations"] == {names.CONFIG_HASH: config_hash(made["data"])}
    # Whatever follows the text of a ConfigMap rolls: pods must not, when only it changes.
    assert names.CONFIG_HASH not in str([each for each in CASES[name]() if each["kind"] != "ConfigMap"])


def test_backups_and_notifications_read_what_only_they_need() -> None:
    of = pipeline(MANAGED, backup=BACKUP, notifications=NOTIFICATIONS, processor={"replicas": 3})
    many = feed(FEED, receiver={"replicas": 2}, suspend=True)
    made = load_texts({"r.yaml": config.general_config_text(of, [many], [account(ACCOUNT)])})
    assert (list(made.feeds), list(made.accounts)) == ([("feeds", "btc")], [("feeds", "fund")])
    read = made.pipelines["feeds", "main"].spec
    assert of.spec.backup is not None
    assert read.backup is not None
    assert read.backup.model_dump(exclude=PODS_ONLY) == of.spec.backup.model_dump(exclude=PODS_ONLY)
    assert read.backup.pod_template is None
    assert read.notifications == of.spec.notifications
    # Which processes there should be.
    assert read.processor.replicas == 3
    assert (made.feeds["feeds", "btc"].spec.receiver.replicas, made.feeds["feeds", "btc"].spec.suspend) == (2, True)
    # Processors tell of backups that are due and not there; who else is told reloads nothing of them.
    (stored,) = load_texts({"r.yaml": config.pipeline_config_text(of, [feed(FEED)])}).pipelines.values()
    assert stored.spec.backup == read.backup
    assert stored.spec.notifications is None
    silent = config.pipeline_config_text(pipeline(MANAGED, backup=BACKUP), [feed(FEED)])
    assert config.pipeline_config_text(of, [feed(FEED)]) == silent


def test_a_thousand_feeds_fit_and_too_many_are_refused_with_a_remedy() -> None:
    of, one = pipeline(MANAGED), feed(FEED)

    def named(number: int, symbols: list[str] | None = None) -> ExchangeFeed:
        made = feed(FEED, instruments={"symbols": symbols}) if symbols else one
        return made.model_copy(update={"metadata": one.metadata.model_copy(update={"name": f"feed-{number}"})})

    text = config.pipeline_config_text(of, [named(number) for number in range(1000)])
    assert len(text.encode()) <= config.MOST_BYTES
    large = [named(number, [f"COIN{each:04}-USDT" for each in range(2000)]) for number in range(40)]
    with pytest.raises(config.ConfigTooLarge, match=r"main with its 40 feeds has .* spread the feeds over pipelines"):
        config.pipeline_config_text(of, large)
