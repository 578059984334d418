"""What of a status is worth a write, and when; the patch that makes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from memory_api import MemoryApi
from status_facts import LATER, NOW, after, feed, good, pipeline, role, rollout

from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError
from feedmill_operator.reconcile.facts import FeedFacts
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.status import Change, change, feed_status, patch, pipeline_status
from feedmill_operator.reconcile.writer import LIVE, MINOR, StatusWriter

KEY = Key("ExchangeFeed", "ns", "spot")
GOOD = feed_status(feed(), NOW)


def seen_again(facts: FeedFacts) -> dict[str, Any]:
    return feed_status(after(feed(), receiver=facts.receiver, distributor=facts.distributor), LATER)


def test_the_same_facts_are_no_change() -> None:
    assert change(GOOD, feed_status(after(feed()), LATER)) is Change.NONE
    assert feed_status(after(feed()), LATER) == GOOD
    facts = pipeline()
    assert pipeline_status(after(facts), LATER) == pipeline_status(facts, NOW)


def test_a_time_alone_is_no_change() -> None:
    other = copy.deepcopy(GOOD)
    for item in other["conditions"]:
        item["lastTransitionTime"] = LATER
    assert change(GOOD, other) is Change.NONE


def edited(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **fields}


def condition(kind: str, **fields: Any) -> dict[str, Any]:
    done = copy.deepcopy(GOOD)
    next(item for item in done["conditions"] if item["type"] == kind).update(fields)
    return done


@pytest.mark.parametrize(
    ("before", "now", "much"),
    [
        ({}, GOOD, Change.MAJOR),
        (GOOD, edited(lag="<10s"), Change.LIVE),
        (GOOD, edited(receiver={"replicas": 1, "updated": 1, "ready": 0}), Change.MINOR),
        (GOOD, edited(config={"hash": "x", "pods": 1, "acknowledged": 0}), Change.MINOR),
        (GOOD, edited(image="i:2"), Change.MAJOR),
        (GOOD, edited(observedGeneration=2), Change.MAJOR),
        (GOOD, condition("Ready", status="False"), Change.MAJOR),
        (condition("Ready", status="False"), GOOD, Change.MAJOR),
        (GOOD, condition("Ready", reason="Other"), Change.MAJOR),
        (GOOD, condition("Ready", message="other"), Change.MINOR),
        (GOOD, condition("Accepted", message="other Secret"), Change.MAJOR),
        (GOOD, condition("Progressing", status="True"), Change.MAJOR),
        # Worse at once, better on the way to Ready in time.
        (GOOD, condition("ReceiverAvailable", status="False"), Change.MAJOR),
        (condition("ReceiverAvailable", status="False"), GOOD, Change.MINOR),
        (condition("DataFresh", status="Unknown"), GOOD, Change.MINOR),
        (GOOD, condition("DataFresh", reason="Other"), Change.MINOR),
        (condition("DataFresh", observedGeneration=0), GOOD, Change.MAJOR),
        (edited(rejected=[]), {k: v for k, v in GOOD.items() if k != "rejected"}, Change.NONE),
        (edited(conditions=GOOD["conditions"][:-1]), GOOD, Change.MAJOR),
    ],
)
def test_how_much_differs(before: dict[str, Any], now: dict[str, Any], much: Change) -> None:
    assert change(before, now) is much


def test_the_patch_turns_one_into_the_other() -> None:
    before = edited(lag="<1s", gone=1, config={"hash": "x", "pods": 2, "old": 3})
    body = patch(before, GOOD)["status"]
    assert body["gone"] is None
    assert body["config"]["old"] is None
    assert "image" not in body

    def merge(have: Any, change_: Any) -> Any:
        for key, value in change_.items():
            if value is None:
                have.pop(key, None)
            else:
                have[key] = merge(dict(have.get(key, {})), value) if isinstance(value, dict) else value
        return have

    assert merge(copy.deepcopy(before), body) == GOOD


class Times:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Written:
    """A feed in an API server, written by a writer with a clock of its own."""

    def __init__(self) -> None:
        self.api, self.clock = MemoryApi(), Times()
        self.writer = StatusWriter(self.api, self.clock)  # type: ignore[arg-type]
        self.api.objects["ExchangeFeed", "ns", "spot"] = {"metadata": {"name": "spot", "namespace": "ns", "uid": "u"}}

    async def write(self, status: dict[str, Any]) -> float | None:
        body = self.api.objects["ExchangeFeed", "ns", "spot"]
        return await self.writer.write(KEY, kinds.FEED, body, status)

    @property
    def patches(self) -> int:
        return len(self.api.calls("status"))


async def test_nothing_is_written_when_nothing_changed() -> None:
    world = Written()
    assert await world.write(GOOD) is None
    for _ in range(3):
        world.clock.now += 100
        assert await world.write(GOOD) is None
    assert world.patches == 1


@pytest.mark.parametrize(
    ("status", "least"),
    [
        (edited(lag="<10s"), LIVE),
        (condition("DataFresh", message="x"), MINOR),
        (condition("Ready", status="False"), 0.0),
    ],
)
async def test_numbers_wait_for_their_time(status: dict[str, Any], least: float) -> None:
    world = Written()
    await world.write(GOOD)
    world.clock.now += 1
    wait = await world.write(status)
    if not least:
        assert wait is None
        assert world.patches == 2
        return
    assert wait == pytest.approx(least - 1)
    assert world.patches == 1
    world.clock.now += wait
    assert await world.write(status) is None
    assert world.patches == 2
    assert world.api.objects["ExchangeFeed", "ns", "spot"]["status"] == status


async def test_a_new_leader_writes_what_is_due_at_once() -> None:
    world = Written()
    await world.write(GOOD)
    world.writer = StatusWriter(world.api, world.clock)  # type: ignore[arg-type]
    assert await world.write(edited(lag="<10s")) is None
    assert world.patches == 2


async def test_an_object_that_is_gone_needs_no_status() -> None:
    world = Written()
    world.api.fail["status", "spot"] = [ApiError(404, "NotFound", "gone"), ApiError(500, "x", "y")]
    assert await world.write(GOOD) is None
    with pytest.raises(ApiError):
        await world.write(GOOD)


def test_a_rollout_is_written_at_its_begin_and_its_end() -> None:
    """Of the steps between, none is major."""
    start = feed_status(after(feed(), generation=2, receiver=role(rollout(current=False, updated=0, wanted=3))), NOW)
    steps = [
        role(rollout(wanted=3, replicas=4, updated=1, ready=3, complete=False)),
        role(rollout(wanted=3, replicas=4, updated=2, ready=3, complete=False)),
        role(rollout(wanted=3, replicas=3, updated=3, ready=2, complete=False)),
    ]
    before = start
    for step in steps:
        now = feed_status(feed(generation=2, before=before, receiver=step), LATER)
        assert change(before, now) in (Change.MINOR, Change.NONE)
        before = now
    done = feed_status(feed(generation=2, before=before, receiver=role(rollout(wanted=3))), LATER)
    assert change(before, done) is Change.MAJOR


def test_health_that_moves_within_its_steps_is_no_change() -> None:
    facts = feed(receiver=role(rollout(), answers=good()))
    assert change(GOOD, seen_again(facts)) is Change.NONE
