"""The API server refuses or does not answer in the middle of the work: the status stays true, and it is tried again."""

from __future__ import annotations

import pytest
from flow_world import FEED, FEED_TEXT, PIPELINE, PIPELINE_TEXT, World

from feedmill_operator.kube.api import ApiError
from feedmill_operator.reconcile.queue import Key

FEED_KEY = Key("ExchangeFeed", "ns", "btc")
CHILDREN = ["ConfigMap btc-feed-config", "Deployment btc-distributor-0", "Deployment btc-receiver-0"]


def unavailable() -> ApiError:
    return ApiError(503, "ServiceUnavailable", "etcd is away")


async def accepted_pipeline(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.settle()
    await world.migrated()


async def test_one_failure_in_the_middle_is_made_good_and_not_told(world: World) -> None:
    await accepted_pipeline(world)
    world.api.fail["apply", "btc-receiver-0"] = [unavailable()]
    await world.make(FEED_TEXT)
    await world.settle()
    assert world.made(FEED) == CHILDREN
    assert world.conditions(FEED)["Accepted"] == "True/Valid"
    assert world.conditions(FEED)["Progressing"] == "True/RollingOut"
    assert world.told.of("ReconcileFailed") == []
    assert world.writes().count("status ExchangeFeed btc") == 1
    assert world.api.fail["apply", "btc-receiver-0"] == []


async def test_what_lasts_is_told_and_tried_again_until_it_goes(world: World) -> None:
    await accepted_pipeline(world)
    failures = world.api.fail["apply", "btc-receiver-0"] = [unavailable() for _ in range(1000)]
    await world.make(FEED_TEXT)
    await world.settle(1800)
    # What came before it is there, and is not written again at each try.
    assert world.made(FEED) == ["ConfigMap btc-feed-config", "Deployment btc-distributor-0"]
    found = world.conditions(FEED)
    assert found["Accepted"] == "True/Valid"
    assert found["Ready"].startswith("False/")
    assert found["Progressing"] == "True/ReconcileFailed"
    assert "503 ServiceUnavailable: etcd is away" in world.message(FEED, "Progressing")
    assert found["ReceiverAvailable"].startswith("False/")
    assert world.status(FEED)["receiver"]["ready"] == 0
    tries = 1000 - len(failures)
    # Ever more rarely, at most every five minutes.
    assert 5 <= tries <= 60
    assert world.controller.queue.failures(FEED_KEY) == tries
    writes = world.writes()
    assert writes.count("apply ConfigMap btc-feed-config") == 1
    assert writes.count("status ExchangeFeed btc") <= 3

    failures.clear()
    await world.settle(301)
    await world.rolled_out()
    assert world.made(FEED) == CHILDREN
    assert world.conditions(FEED)["Ready"] == "True/AllAvailable"
    assert world.conditions(FEED)["Progressing"] == "False/Reconciled"
    assert world.controller.queue.failures(FEED_KEY) == 0


async def test_what_was_ready_stays_so_while_the_api_server_is_away(world: World) -> None:
    await world.usual()
    world.api.fail["replace", "btc-feed-config"] = [unavailable() for _ in range(1000)]
    world.edit(("ConfigMap", "btc-feed-config"), lambda found: found["data"].update({"resources.yaml": "mine"}))
    await world.settle(600)
    found = world.conditions(FEED)
    assert found["Ready"] == "True/AllAvailable"
    assert found["ReceiverAvailable"] == "True/Available"
    assert found["Progressing"] == "True/ReconcileFailed"


async def test_a_secret_that_cannot_be_read_is_not_called_missing(world: World) -> None:
    await world.usual()
    world.api.fail["get", "servers"] = [unavailable() for _ in range(1000)]
    for key in (FEED_KEY, Key("FeedPipeline", "ns", "main")):
        world.controller.queue.add(key)
    await world.settle(600)
    for what in (FEED, PIPELINE):
        assert world.conditions(what)["Accepted"] == "True/Valid"
        assert world.conditions(what)["Ready"] == "True/AllAvailable"
    assert world.conditions(PIPELINE)["Progressing"] == "True/ReconcileFailed"
    assert world.made(FEED) == CHILDREN
    world.api.fail.clear()
    await world.settle(301)
    assert world.conditions(PIPELINE)["Progressing"] == "False/Reconciled"


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (
            ApiError(403, "Forbidden", "exceeded quota: pods"),
            "QuotaExceeded",
            ["exceeded quota: pods", "raise the quota"],
        ),
        (ApiError(422, "Invalid", "spec.x: bad"), "ObjectRefused", ["Deployment btc-receiver-0", "spec.x: bad"]),
    ],
)
async def test_what_is_refused_is_told_and_the_rest_is_made(
    world: World, error: ApiError, reason: str, words: list[str]
) -> None:
    await accepted_pipeline(world)
    world.api.fail["apply", "btc-receiver-0"] = [error] * 1000
    await world.make(FEED_TEXT)
    await world.settle()
    assert world.made(FEED) == ["ConfigMap btc-feed-config", "Deployment btc-distributor-0"]
    assert world.conditions(FEED)["Ready"] == f"False/{reason}"
    message = world.message(FEED, "Ready")
    assert [word for word in words if word not in message] == []
    assert world.told.of(reason) == [message]
    world.api.fail.clear()
    world.controller.queue.add(FEED_KEY)  # The resync.
    await world.settle()
    assert world.made(FEED) == CHILDREN


async def test_a_status_that_cannot_be_written_is_written_later(world: World) -> None:
    await accepted_pipeline(world)
    world.api.fail["status", "btc"] = [unavailable(), ApiError(409, "Conflict", "newer"), unavailable()]
    await world.make(FEED_TEXT)
    await world.settle()
    assert world.api.fail["status", "btc"] == []
    assert world.conditions(FEED)["Accepted"] == "True/Valid"


async def test_the_wait_the_api_server_asks_for_is_kept(world: World) -> None:
    await accepted_pipeline(world)
    world.api.fail["get", "btc"] = [ApiError(429, "TooManyRequests", "slow down", retry_after=100.0)]
    await world.make(FEED_TEXT)
    await world.settle(99)
    assert world.made(FEED) == []
    await world.settle(2)
    assert world.made(FEED) == CHILDREN


async def test_a_mistake_of_ours_in_one_object_does_not_hold_up_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accepted_pipeline(world)
    reconciler = world.controller.reconcilers["ExchangeFeed"]
    right = reconciler.reconcile

    async def wrong(key: Key) -> float | None:
        if key.name == "btc":
            raise ZeroDivisionError("a mistake")
        return await right(key)

    monkeypatch.setattr(reconciler, "reconcile", wrong)
    await world.make(FEED_TEXT)
    await world.make(FEED_TEXT.replace("name: btc", "name: eth"))
    await world.settle()
    assert len(world.made(("ExchangeFeed", "eth"))) == 3
    assert world.controller.queue.failures(FEED_KEY) >= 3
    monkeypatch.undo()
    await world.settle(301)
    assert world.made(FEED) == CHILDREN
