"""Facts for tests, as short as they can be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from feedmill_operator.reconcile.answer import Answer, Connection, Server
from feedmill_operator.reconcile.facts import FeedFacts, Migration, PipelineFacts, Role, Rollout
from feedmill_operator.reconcile.pods import ContainerFacts, PodFacts
from feedmill_operator.reconcile.status import feed_status, pipeline_status

HASH = "0123456789abcdef"
NOW = "2026-11-26T00:00:00Z"
LATER = "2026-11-26T00:10:00Z"


def rollout(name: str = "spot-receiver-0", shard: int | None = 0, wanted: int = 1, **more: Any) -> Rollout:
    """One that is finished."""
    done = Rollout(
        name,
        "ns",
        shard,
        wanted,
        exists=True,
        current=True,
        replicas=wanted,
        updated=wanted,
        ready=wanted,
        complete=True,
    )
    return replace(done, **more)


def fresh_pod(name: str, shard: int | None = 0, **more: Any) -> PodFacts:
    """One that is ready."""
    done = PodFacts(
        "ns", name, pipeline="main", shard=shard, ip="10.0.0.1", phase="Running", ready=True,
        containers=(ContainerFacts("c", ready=True, running=True),),
    )  # fmt: skip
    return replace(done, **more)


def good(**more: Any) -> Answer:
    """Of a process that has nothing to complain about."""
    done = Answer(
        ready=True, config_hash=HASH, redis=Server(True, breaker="closed"), lag="<1s",
        connections=(Connection("stream-0", open=True, fresh=True),),
    )  # fmt: skip
    return replace(done, **more)


def role(
    *rollouts: Rollout, pods: tuple[PodFacts, ...] | None = None, answers: dict[str, Answer] | Answer | None = None
) -> Role:
    """A pod for each rollout, each with the same answer, unless told otherwise."""
    own = pods if pods is not None else tuple(fresh_pod(f"{each.name}-x", each.shard) for each in rollouts)
    if answers is None:
        answers = good()
    if isinstance(answers, Answer):
        answers = {pod.name: answers for pod in own}
    return Role(rollouts, own, answers)


def feed(**more: Any) -> FeedFacts:
    """A feed with nothing wrong, never seen before."""
    done = FeedFacts(
        generation=1, before={}, image="i:1", config_hash=HASH, instruments=2,
        receiver=role(rollout()), distributor=role(rollout("spot-distributor-0")),
    )  # fmt: skip
    return replace(done, **more)


def pipeline(**more: Any) -> PipelineFacts:
    """A pipeline with nothing wrong, never seen before."""
    done = PipelineFacts(
        generation=1, before={}, image="i:1", config_hash=HASH, selector="a=b", feeds=1,
        processor=role(rollout("main-processor", None), answers=good(postgres=Server(True, breaker="closed"))),
        migration=Migration("main-migration-1"), migrated="main-migration-1",
    )  # fmt: skip
    return replace(done, **more)


def after(facts: FeedFacts | PipelineFacts, **more: Any) -> Any:
    """The same, seen again after its status was written; ``more`` is new."""
    write = feed_status if isinstance(facts, FeedFacts) else pipeline_status
    status = write(facts, NOW)  # type: ignore[arg-type]
    return replace(facts, **{"before": status, **more})


def shown(status: dict[str, Any]) -> dict[str, str]:
    """Type -> "Status/Reason"."""
    return {item["type"]: f"{item['status']}/{item['reason']}" for item in status["conditions"]}
