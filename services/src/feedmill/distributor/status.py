"""The distributor's health sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedmill.distributor.books import IDLE, SYNCING, VALID

if TYPE_CHECKING:
    from feedmill.distributor.service import Distributor


def install(distributor: Distributor) -> None:
    """Register the health condition and sections."""
    health, figures = distributor.health, distributor.figures
    health.condition("dispatching", lambda: dispatching(distributor))
    health.detail("dispatch", figures.document)
    health.detail("lag", lambda: {"seconds": figures.lag_seconds})
    health.detail("sessions", lambda: {"known": figures.sessions, "connections": figures.connections})
    health.detail("books", lambda: books(figures.books, figures.resyncs))
    health.detail("redis", lambda: redis(distributor))
    health.detail("breaker", lambda: breaker(distributor))
    health.detail("lease", distributor.lease.document)
    health.detail("latency", figures.latencies.document)


def dispatching(distributor: Distributor) -> tuple[bool, str]:
    """The checkpoint is loaded and entries are read; one that stands by is ready to take over."""
    figures = distributor.figures
    if figures.standby and distributor.lease.holder and not distributor.lease.held:
        return True, ""
    if not figures.loaded:
        return False, figures.error or "the checkpoint is not loaded yet"
    return True, ""


def books(states: dict[str, int], resyncs: int) -> dict[str, Any]:
    return {
        "total": sum(states.values()),
        "valid": states.get(VALID, 0),
        "syncing": states.get(SYNCING, 0),
        "idle": states.get(IDLE, 0),
        "resyncs": resyncs,
    }


def redis(distributor: Distributor) -> dict[str, Any]:
    return {
        "server": str(distributor.redis_url),
        "state": "connected" if distributor.figures.loaded else "away",
        "problem": distributor.figures.error,
    }


def breaker(distributor: Distributor) -> dict[str, Any]:
    state = distributor.breaker
    return {
        "state": state.state,
        "failures": state.failures,
        "retryInSeconds": round(state.retry_in, 1),
        "lastError": state.last_error if state.state != "closed" else "",
    }
