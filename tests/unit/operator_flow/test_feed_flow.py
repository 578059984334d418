"""An ExchangeFeed from its first sight on: what is made of it, what its status says, what is left alone."""

from __future__ import annotations

import pytest
from flow_world import FEED, FEED_TEXT, IMAGE, PIPELINE, PIPELINE_TEXT, SERVERS, World

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.reconcile.queue import Key

CHILDREN = ["ConfigMap btc-feed-config", "Deployment btc-distributor-0", "Deployment btc-receiver-0"]


async def test_an_accepted_feed_makes_its_objects_and_says_so(world: World) -> None:
    await world.usual()
    assert world.made(FEED) == CHILDREN
    status = world.status(FEED)
    assert world.conditions(FEED) == {
        "Ready": "True/AllAvailable",
        "Accepted": "True/Valid",
        "Progressing": "False/Reconciled",
        "ReceiverAvailable": "True/Available",
        "DistributorAvailable": "True/Available",
        "RedisReachable": "Unknown/NobodyAnswered",
        "DataFresh": "Unknown/NobodyAnswered",
        "Suspended": "False/NotSuspended",
        "Paused": "False/NotPaused",
    }
    assert status["observedGeneration"] == 1
    assert status["image"] == IMAGE
    assert status["instruments"] == 2
    assert status["receiver"] == {"replicas": 1, "updated": 1, "ready": 1}
    config = world.get("ConfigMap", "btc-feed-config")
    assert status["config"]["hash"] == config["metadata"]["annotations"][names.CONFIG_HASH]
    for name in ("btc-receiver-0", "btc-distributor-0"):
        (container,) = world.get("Deployment", name)["spec"]["template"]["spec"]["containers"]
        assert container["image"] == IMAGE
    assert len(world.told.of("Ready")) == 2  # One of the feed, one of the pipeline.


async def test_what_a_pipeline_knows_of_its_feeds_reaches_its_configuration(world: World) -> None:
    await world.usual()
    assert world.status(PIPELINE)["feeds"] == 1
    assert world.configured("main-pipeline-config") == ["FeedPipeline main", "ExchangeFeed btc"]


async def test_before_its_pods_are_ready_it_is_not(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.make(FEED_TEXT)
    await world.settle()
    found = world.conditions(FEED)
    assert found["Accepted"] == "True/Valid"
    assert found["Ready"] == "False/Starting"
    assert found["Progressing"] == "True/RollingOut"


async def test_without_its_secret_nothing_is_made_until_it_appears(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    exchange = {"name": "deribit", "market": "Derivatives", "credentialsSecretRef": {"name": "venue"}}
    await world.make(FEED_TEXT, exchange=exchange, instruments={"symbols": ["BTC-PERPETUAL"]})
    await world.settle()
    assert world.made(FEED) == []
    assert world.conditions(FEED)["Accepted"] == "False/SecretNotFound"
    assert world.conditions(FEED)["Ready"] == "False/SecretNotFound"
    message = world.message(FEED, "Accepted")
    assert "Secret venue in namespace ns" in message
    assert "spec.exchange.credentialsSecretRef" in message
    assert "apiKey" in message
    assert world.told.of("SecretNotFound") == [message]

    await world.secret({"apiKey": "the-key"}, "venue")
    await world.settle()
    assert world.made(FEED) == []
    assert world.conditions(FEED)["Accepted"] == "False/SecretKeyMissing"
    assert "Secret venue has no key apiSecret (it has: apiKey)" in world.message(FEED, "Accepted")
    assert "the-key" not in str(world.status(FEED))

    world.edit(("Secret", "venue"), lambda found: found["data"].update(apiSecret="c2VjcmV0"))
    # Nobody watches it: it is looked at again after a while.
    await world.settle()
    assert world.conditions(FEED)["Accepted"] == "True/Valid"
    assert world.made(FEED) == CHILDREN


async def test_a_secret_that_goes_away_stops_nothing_that_runs(world: World) -> None:
    await world.secret({"apiKey": "a", "apiSecret": "b"}, "venue")
    exchange = {"name": "deribit", "market": "Derivatives", "credentialsSecretRef": {"name": "venue"}}
    await world.usual(exchange=exchange, instruments={"symbols": ["BTC-PERPETUAL"]})
    assert world.conditions(FEED)["Ready"] == "True/AllAvailable"
    await world.api.delete(kinds.SECRET, "ns", "venue")
    world.controller.queue.add(Key(*_key(FEED)))  # The resync.
    await world.settle()
    assert world.made(FEED) == CHILDREN
    found = world.conditions(FEED)
    assert found["Accepted"] == "False/SecretNotFound"
    assert found["ReceiverAvailable"] == "True/Available"


async def test_a_feed_waits_for_its_pipeline(world: World) -> None:
    await world.make(FEED_TEXT)
    await world.settle()
    assert world.conditions(FEED)["Accepted"] == "False/PipelineNotFound"
    assert '"main"' in world.message(FEED, "Accepted")
    await world.make(PIPELINE_TEXT)
    await world.settle()
    assert world.conditions(FEED)["Accepted"] == "False/PipelineNotAccepted"
    assert "SecretNotFound" in world.message(FEED, "Accepted")
    assert world.made(FEED) == []
    await world.secret(SERVERS)
    await world.settle()
    assert world.conditions(FEED)["Accepted"] == "True/Valid"
    assert world.made(FEED) == CHILDREN


async def test_a_spec_that_cannot_be_makes_nothing_and_names_the_field(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.make(FEED_TEXT, exchange={"name": "binance", "market": "Futures"})
    await world.settle()
    assert world.made(FEED) == []
    assert world.conditions(FEED)["Accepted"].startswith("False/")
    assert "Futures" in world.message(FEED, "Accepted")


async def test_a_wrong_edit_leaves_what_runs_as_it_was(world: World) -> None:
    await world.usual()
    before = {name: world.get("Deployment", name) for name in ("btc-receiver-0", "btc-distributor-0")}
    world.edit(FEED, lambda found: found["spec"]["instruments"].update(symbols=[]))
    await world.settle()
    assert world.conditions(FEED)["Accepted"].startswith("False/")
    assert {name: world.get("Deployment", name) for name in before} == before
    assert world.status(FEED)["observedGeneration"] == 2


async def test_looked_at_again_nothing_is_written(world: World) -> None:
    await world.usual()
    world.writes()
    for what in (FEED, PIPELINE):
        world.controller.queue.add(Key(*_key(what)))
    await world.settle(600)
    assert world.writes() == []
    await world.stop()
    await world.start()
    await world.settle(600)
    assert world.writes() == []


async def test_a_paused_feed_is_only_observed(world: World) -> None:
    await world.usual()
    world.annotate(FEED, names.PAUSE, "true")
    await world.settle()
    assert world.conditions(FEED)["Paused"] == "True/Paused"
    assert world.conditions(FEED)["Ready"] == "True/AllAvailable"
    world.writes()
    world.edit(FEED, lambda found: found["spec"].update(receiver={"replicas": 2}))
    world.edit(("Deployment", "btc-receiver-0"), lambda found: found["spec"].update(replicas=0))
    await world.settle()
    assert set(world.writes()) == {"status ExchangeFeed btc"}
    assert world.get("Deployment", "btc-receiver-0")["spec"]["replicas"] == 0
    assert world.conditions(FEED)["Ready"] == "False/Paused"
    assert world.status(FEED)["observedGeneration"] == 1  # The new spec is not worked on.

    world.annotate(FEED, names.PAUSE, None)
    await world.settle()
    await world.rolled_out()
    assert world.get("Deployment", "btc-receiver-0")["spec"]["replicas"] == 2
    assert world.conditions(FEED)["Ready"] == "True/AllAvailable"
    assert world.conditions(FEED)["Paused"] == "False/NotPaused"
    assert world.status(FEED)["observedGeneration"] == 2


async def test_a_suspended_feed_has_no_pods_and_keeps_its_configuration(world: World) -> None:
    await world.usual()
    world.edit(FEED, lambda found: found["spec"].update(suspend=True))
    await world.settle()
    assert world.made(FEED) == ["ConfigMap btc-feed-config"]
    found = world.conditions(FEED)
    assert found["Suspended"] == "True/Suspended"
    assert found["Ready"] == "False/Suspended"
    assert found["Accepted"] == "True/Valid"
    assert world.status(FEED)["receiver"] == {"replicas": 0, "updated": 0, "ready": 0}
    # What it has received is still to be processed.
    assert world.status(PIPELINE)["feeds"] == 1

    world.edit(FEED, lambda found: found["spec"].update(suspend=False))
    await world.settle()
    await world.rolled_out()
    assert world.made(FEED) == CHILDREN
    assert world.conditions(FEED)["Ready"] == "True/AllAvailable"


@pytest.mark.parametrize("field", ["ours", "theirs"])
async def test_what_somebody_edits_is_put_back_and_told(world: World, field: str) -> None:
    await world.usual()
    before = world.get("Deployment", "btc-receiver-0")["spec"]
    change = {"replicas": 7} if field == "ours" else {"minReadySeconds": 60}
    world.edit(("Deployment", "btc-receiver-0"), lambda found: found["spec"].update(change))
    await world.settle()
    assert world.get("Deployment", "btc-receiver-0")["spec"] == before
    assert world.told.of("DriftUndone") == ["changed by somebody and put back: Deployment btc-receiver-0"]


@pytest.mark.parametrize("child", CHILDREN)
async def test_what_somebody_deletes_is_made_again(world: World, child: str) -> None:
    await world.usual()
    kind, name = child.split()
    await world.api.delete({"ConfigMap": kinds.CONFIG_MAP, "Deployment": kinds.DEPLOYMENT}[kind], "ns", name)
    await world.settle()
    assert world.made(FEED) == CHILDREN


async def test_what_is_not_wanted_any_more_is_deleted_and_strangers_stay(world: World) -> None:
    await world.usual(receiver={"replicas": 2})
    assert "PodDisruptionBudget btc-receiver-0" in world.made(FEED)
    labels = dict(world.get("Deployment", "btc-receiver-0")["metadata"]["labels"])
    for name, owners in (("no-owner", []), ("other-owner", [_owner("another-uid")])):
        metadata = {"name": name, "namespace": "ns", "labels": labels, "ownerReferences": owners}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}
        await world.api.create(kinds.CONFIG_MAP, manifest)
    world.edit(FEED, lambda found: found["spec"]["receiver"].update(replicas=1))
    await world.settle()
    assert world.made(FEED) == CHILDREN
    assert {"no-owner", "other-owner"} <= set(world.names("ConfigMap"))
    assert [call for call in world.writes() if call.startswith("delete")] == [
        "delete-Background PodDisruptionBudget btc-receiver-0"
    ]


async def test_a_feed_that_is_gone_is_forgotten(world: World) -> None:
    await world.usual()
    world.writes()
    await world.api.delete(kinds.FEED, "ns", "btc")
    await world.settle()
    # Its objects go with it by the garbage collector; the pipeline goes on without it.
    assert all(call.split()[1] in ("FeedPipeline", "ConfigMap", "ExchangeFeed") for call in world.writes())
    assert world.status(PIPELINE)["feeds"] == 0
    assert world.configured("main-pipeline-config") == ["FeedPipeline main"]


async def test_a_new_instrument_changes_the_configuration_and_rolls_nothing(world: World) -> None:
    await world.usual()
    templates = [world.get("Deployment", name)["spec"]["template"] for name in world.names("Deployment")]
    before = world.status(FEED)["config"]["hash"]
    world.edit(FEED, lambda found: found["spec"]["instruments"]["symbols"].append("SOL-USDT"))
    await world.settle()
    assert [world.get("Deployment", name)["spec"]["template"] for name in world.names("Deployment")] == templates
    assert "SOL-USDT" in world.get("ConfigMap", "btc-feed-config")["data"]["resources.yaml"]
    assert world.status(FEED)["config"]["hash"] not in ("", before)
    assert world.status(FEED)["instruments"] == 3


async def test_a_selection_makes_every_shards_processes_and_counts_by_what_they_say(world: World) -> None:
    await world.usual(instruments={"select": {"base": ["BTC"], "types": ["Spot"]}}, receiver={"shards": 2})
    assert world.conditions(FEED)["Accepted"] == "True/Valid"
    found = {name for name in world.names("Deployment") if name.startswith("btc-")}
    assert found == {f"btc-{role}-{shard}" for role in ("receiver", "distributor") for shard in (0, 1)}
    assert world.status(FEED).get("instruments") is None  # No receiver has said it yet.


async def test_the_restart_annotation_rolls_the_pods_once(world: World) -> None:
    await world.usual()
    before = world.get("Deployment", "btc-receiver-0")["spec"]["template"]
    world.annotate(FEED, names.RESTART, "now")
    await world.settle()
    after = world.get("Deployment", "btc-receiver-0")["spec"]["template"]
    assert after != before
    assert after["metadata"]["annotations"][names.RESTARTED] == "now"
    world.writes()
    await world.settle(600)
    assert [call for call in world.writes() if not call.startswith("status")] == []


def _key(what: tuple[str, str]) -> tuple[str, str, str]:
    return (what[0], "ns", what[1])


def _owner(uid: str) -> dict[str, object]:
    return {
        "apiVersion": "feedmill.dev/v1alpha1",
        "kind": "ExchangeFeed",
        "name": "btc",
        "uid": uid,
        "controller": True,
    }
