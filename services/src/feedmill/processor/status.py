"""The processor's health conditions and sections, and the gauges that are read rather than kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from feedmill.processor import measures
from feedmill.processor.measures import ServerFigures
from feedmill.shared.breaker import Breaker
from feedmill.shared.postgres import remedy_of

if TYPE_CHECKING:
    from feedmill.processor.service import Processor

BREAKER = {"closed": 0, "half-open": 1, "open": 2}


def install(processor: Processor) -> None:
    """Register health conditions and sections, and the gauges' readers."""
    health, figures = processor.health, processor.figures
    health.condition("shards", lambda: working(processor))
    health.detail("shards", lambda: {str(seat.shard.ref): seat.figures.document() for seat in processor.seats})
    health.detail("latency", figures.latencies.document)
    health.detail("lag", figures.lag)
    health.detail("redis", lambda: redis(processor))
    health.detail("postgres", lambda: postgres(processor))
    health.detail("breaker", lambda: {"redis": breaker(processor.redis), "postgres": breaker(processor.postgres)})
    health.detail("leases", lambda: leases(processor))
    health.detail("candles", processor.finisher.document)
    measures.shards_owned.set_function(lambda: sum(seat.figures.owned for seat in processor.seats))
    for server, which in (("redis", processor.redis), ("postgres", processor.postgres)):
        measures.breaker_state.labels(server).set_function(partial(_state, which))
    measures.server_up.labels("redis").set_function(lambda: _up(redis(processor)))
    measures.server_up.labels("postgres").set_function(lambda: _up(postgres(processor)))


def _state(which: Breaker) -> float:
    return BREAKER[which.state]


def _up(section: Mapping[str, Any]) -> float:
    reachable = section["reachable"]
    return math.nan if reachable is None else float(reachable)


def _owns(processor: Processor) -> bool:
    """Whether it works on any shard. Else nothing is asked of the servers: one that failed last may be back."""
    return any(seat.figures.owned for seat in processor.seats)


def working(processor: Processor) -> tuple[bool, str]:
    """Every shard of ours is being worked on, and each of the others is somebody else's."""
    if not processor.seats:
        return True, ""
    if processor.share.alive is None:
        return False, f"Redis did not answer yet{_because(processor.link.error)}"
    waiting = 0
    for seat in processor.seats:
        name, seen = str(seat.shard.ref), seat.figures
        if seen.fault:
            return False, f"shard {name}: {seen.fault}"
        if seat.lease.held and not seen.working:
            return False, f"shard {name}: not connected{_because(seen.error)}"
        waiting += not seat.lease.held and not seat.lease.holder
    if waiting and processor.share.held < processor.share.allowed:
        return False, f"{waiting} shards have no processor yet"
    return True, ""


def _because(error: str) -> str:
    return f" ({error})" if error else ""


def redis(processor: Processor) -> Mapping[str, Any]:
    """Reachable for the shards, or, while none is owned, for the leases."""
    seen = processor.figures.servers["redis"]
    if seen.reachable is None or not _owns(processor):
        error = processor.link.error
        return {"reachable": False if error else (processor.share.alive is not None or None), "lastError": error}
    return seen.document()


def postgres(processor: Processor) -> Mapping[str, Any]:
    """As the shards last saw it, unless the breaker knows better: a shard to which nothing comes asks nothing."""
    which = processor.postgres
    seen: Mapping[str, Any] = processor.figures.servers["postgres"].document()
    if which.state != "closed":
        seen = {"reachable": False, "lastError": which.last_error}
    if seen["reachable"] is False and not _owns(processor):
        return ServerFigures().document()
    return dict(seen) | {"remedy": remedy_of(seen["lastError"])} if seen["reachable"] is False else seen


def breaker(which: Breaker) -> Mapping[str, Any]:
    return {
        "state": which.state,
        "failures": which.failures,
        "retryInSeconds": round(which.retry_in, 1),
        "lastError": which.last_error if which.state != "closed" else "",
    }


def leases(processor: Processor) -> Mapping[str, Any]:
    share = processor.share
    return {
        "replicasAlive": share.alive,
        "allowed": share.allowed,
        "held": share.held,
        "lastError": processor.link.error,
        "holders": {str(seat.shard.ref): seat.lease.holder or None for seat in processor.seats},
    }
