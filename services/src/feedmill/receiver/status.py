"""The receiver's health sections and the gauges that are read rather than kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from feedmill.exchanges.base import ChannelName
from feedmill.receiver import metrics
from feedmill.receiver.keeper import Keeper
from feedmill.receiver.subscriber import TopicState
from feedmill.shared.clock import monotonic
from feedmill.shared.fleet import Fleet
from feedmill.shared.health import Health

if TYPE_CHECKING:
    from feedmill.receiver.service import Receiver
    from feedmill.receiver.spill.spool import Spool

BREAKER = {"closed": 0, "half-open": 1, "open": 2}
SPILL = {"idle": 0, "spilling": 1, "full": 2, "unusable": 3}


def install(receiver: Receiver) -> None:
    """Register health conditions and sections, and the gauges' readers."""
    health = receiver.health
    health.condition("capturing", lambda: capturing(receiver))
    health.detail("connections", lambda: {k.plan.name: connection(k) for k in receiver.supervisor.keepers})
    health.detail("redis", lambda: redis(receiver))
    health.detail("breaker", lambda: breaker(receiver))
    health.detail("session", lambda: session(receiver))
    health.detail("rest", lambda: rest(receiver))
    if (spool := receiver.spool) is not None:
        health.detail("spill", lambda: spill(receiver, spool))
        metrics.spill_state.set_function(lambda: SPILL[spool.state])
        metrics.spill_bytes.set_function(lambda: spool.folder.used)
        metrics.spill_segments.set_function(lambda: len(spool.folder.sizes))
        metrics.spill_unsent.set_function(lambda: spool.unsent_bytes)
        metrics.spill_oldest.set_function(lambda: spool.oldest_seconds)
    backlog = receiver.producer.backlog
    metrics.budget_bytes.set(receiver.budget.limit)
    metrics.buffered_bytes.set_function(lambda: receiver.budget.used)
    metrics.unsent_bytes.set_function(lambda: unsent(receiver))
    metrics.unconfirmed_bytes.set_function(lambda: backlog.bytes - backlog.unsent_bytes)
    metrics.in_flight.set_function(lambda: int(receiver.appender.in_flight))
    metrics.breaker_state.set_function(lambda: BREAKER[receiver.breaker.state])
    metrics.connections.set_function(lambda: len(receiver.supervisor.links))
    for channel in ChannelName:
        metrics.silent_topics.labels(channel.value).set_function(partial(silent, receiver, channel.value))
    for state in TopicState:
        metrics.subscriptions.labels(state.value).set_function(partial(count, receiver, state))


def install_fleet(fleet: Fleet, health: Health) -> None:
    health.detail("fleet", fleet.document)
    metrics.fleet_members.set_function(lambda: fleet.members)
    metrics.fleet_alone.set_function(lambda: fleet.alone)
    for kind in ("connects", "weight", "subscribe"):
        metrics.budget_blocked.labels(kind).set_function(partial(fleet.blocked_for, kind))


def unsent(receiver: Receiver) -> int:
    """Bytes of batches that wait for Redis, in memory and on disk."""
    spool = receiver.spool
    return receiver.producer.backlog.unsent_bytes + (spool.unsent_bytes if spool is not None else 0)


def count(receiver: Receiver, state: TopicState) -> float:
    return sum(
        1 for link in receiver.supervisor.links for each in link.subscriber.states.values() if each is state
    )  # fmt: skip


def silent(receiver: Receiver, channel: str) -> float:
    links = receiver.supervisor.links
    return sum(link.attention.counted(link.subscriber.topics)[channel] for link in links)


def capturing(receiver: Receiver) -> tuple[bool, str]:
    """Every socket is open and subscribed. Redis being away does not matter while memory lasts."""
    for keeper in receiver.supervisor.keepers:
        link = keeper.link
        if link is None or link.over.is_set():
            return False, f"connection {keeper.plan.name}: {keeper.state}{_why(keeper)}"
        states = list(link.subscriber.states.values())
        if TopicState.PENDING in states:
            return False, f"connection {keeper.plan.name}: {states.count(TopicState.PENDING)} topics wait for the venue"
        if TopicState.ACTIVE not in states:
            return False, f"connection {keeper.plan.name}: the venue accepted none of its topics"
    return True, ""


def _why(keeper: Keeper) -> str:
    if keeper.failure is not None:
        return f" ({keeper.failure})"
    return f" (last: {keeper.last_end})" if keeper.last_end else ""


def connection(keeper: Keeper) -> Mapping[str, Any]:
    now = monotonic()
    link = keeper.link
    section: dict[str, Any] = {"state": keeper.state, "topics": len(keeper.plan.topics)}
    if keeper.failure is not None:
        failure = keeper.failure
        section["failure"] = {"host": failure.host, "cause": failure.cause, "detail": failure.detail}
    if keeper.last_end:
        section["lastEnd"] = keeper.last_end
    if keeper.state == "backoff":
        section["retryInSeconds"] = round(max(0.0, keeper.retry_at - now), 1)
    if link is None or link.over.is_set():
        return section
    socket = link.connection
    states = list(link.subscriber.states.values())
    return section | {
        "number": link.number,
        "openSeconds": round(now - link.opened_at, 1),
        "frames": socket.received,
        "framesPerSecond": round(socket.pacer.rate, 1),
        "restMilliseconds": round(socket.pacer.rest * 1000, 1),
        "held": socket.held,
        "lastDataSeconds": round(now - socket.last_data, 3) if socket.last_data else None,
        "active": states.count(TopicState.ACTIVE),
        "pending": states.count(TopicState.PENDING),
        "rejected": [name for name, state in link.subscriber.states.items() if state is TopicState.REJECTED],
        "freshness": link.freshness.ages(now),
        **link.attention.document(),
    }


def redis(receiver: Receiver) -> Mapping[str, Any]:
    appender, confirmer = receiver.appender, receiver.confirmer
    return {
        "server": str(appender.url),
        "state": appender.state,
        "since": round(monotonic() - appender.since, 1),
        "problem": appender.problem,
        "runId": appender.run_id,
        "held": appender.held,
        "confirms": {None: "unknown", True: "WAITAOF", False: "append-only file is off: acknowledged = confirmed"}[
            confirmer.aof
        ],
        "confirmProblem": confirmer.problem or confirmer.short_of_replicas,
        "confirmReplicas": {"wanted": confirmer.replicas, "seen": confirmer.replicas_seen},
    }


def breaker(receiver: Receiver) -> Mapping[str, Any]:
    state = receiver.breaker
    return {
        "state": state.state,
        "failures": state.failures,
        "retryInSeconds": round(state.retry_in, 1),
        "lastError": state.last_error if state.state != "closed" else "",
    }


def spill(receiver: Receiver, spool: Spool) -> Mapping[str, Any]:
    producer = receiver.producer
    return {
        "state": spool.state,
        "problem": spool.problem,
        "folder": str(spool.folder.path),
        "bytes": spool.folder.used,
        "limitBytes": spool.folder.limit,
        "segments": len(spool.folder.sizes),
        "unsentBytes": spool.unsent_bytes,
        "oldestSeconds": round(spool.oldest_seconds, 1),
        "pastSessions": [past.id for past in producer.past],
        "shedding": producer.shedding,
        "shedFrames": producer.shed.frames,
        "shedBytes": producer.shed.bytes,
    }


def rest(receiver: Receiver) -> Mapping[str, Any]:
    desk = receiver.desk
    return {"waiting": desk.waiting, "blockedSeconds": round(desk.blocked_for, 1), "problem": desk.problem}


def session(receiver: Receiver) -> Mapping[str, Any]:
    producer, budget = receiver.producer, receiver.budget
    backlog = producer.backlog
    return {
        "id": producer.id,
        "replica": producer.replica,
        "batches": backlog.last,
        "acknowledged": backlog.acked,
        "confirmed": backlog.confirmed,
        "heldBytes": budget.used,
        "budgetBytes": budget.limit,
        "peakBytes": budget.peak,
        "pausedSeconds": round(receiver.flow.held_for, 1),
        "closedForMemory": receiver.flow.closed_for_room,
    }
