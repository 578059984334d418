"""What local mode knows about itself: plain data, read by the API, the live view and the tests.

A number that is not known is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ServiceStatus:
    """One supervised process."""

    name: str
    role: str
    feed: str
    """namespace/name, empty for services of a pipeline."""
    shard: int | None
    replica: str
    state: str
    """waiting | starting | running | backoff | stopping | stopped | failed."""
    pid: int | None = None
    port: int | None = None
    """Of its health server on 127.0.0.1."""
    restarts: int = 0
    crash_loop: bool = False
    next_start_seconds: float | None = None
    ready: bool | None = None
    waiting_for: dict[str, str] = field(default_factory=dict)
    """Condition -> why it does not hold."""
    rss_bytes: int | None = None
    cpu_percent: float | None = None
    """Of one core, over the last look."""
    uptime_seconds: float | None = None
    last_error: str | None = None
    last_exit: str | None = None
    health: dict[str, Any] | None = None
    """Its /health document; None when it did not answer."""


@dataclass(slots=True)
class ServerStatus:
    """Redis or PostgreSQL."""

    name: str
    """redis | postgres."""
    kind: str
    """embedded | external."""
    address: str
    """Without credentials."""
    state: str
    """running | stopped | restarting | unknown (external: see the services' health)."""
    pid: int | None = None
    rss_bytes: int | None = None
    restarts: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class Totals:
    services: int
    running: int
    ready: int
    restarts: int
    rss_bytes: int | None
    """Services and embedded servers together."""
    cpu_percent: float | None


@dataclass(slots=True)
class ManagerStatus:
    phase: str
    """starting | running | draining | stopped."""
    step: str
    """What it is doing now, for people."""
    ready: bool
    uptime_seconds: float
    data_dir: str
    services: list[ServiceStatus]
    servers: list[ServerStatus]
    totals: Totals
    looked_at: float = 0.0
    """When the services were asked for their health, by the monotonic clock of this machine; 0 = not yet."""


def total(services: list[ServiceStatus], servers: list[ServerStatus]) -> Totals:
    sizes = [item.rss_bytes for item in services] + [item.rss_bytes for item in servers]
    memory = [size for size in sizes if size is not None]
    cpu = [item.cpu_percent for item in services if item.cpu_percent is not None]
    return Totals(
        services=len(services),
        running=sum(item.state == "running" for item in services),
        ready=sum(item.ready is True for item in services),
        restarts=sum(item.restarts for item in services),
        rss_bytes=sum(memory) if memory else None,
        cpu_percent=round(sum(cpu), 1) if cpu else None,
    )
