"""What a member of the pool needs to know, taken from the resources once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedmill.shared.lease import TTL

if TYPE_CHECKING:
    from feedmill.resources.pipeline import FeedPipeline


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Durations in seconds, sizes in bytes."""

    pipeline: tuple[str, str] = ("default", "main")
    replica: str = "r0"
    """For people: several processes may have the same name."""
    egress: str = "default"
    """Name of the outgoing address: who shares it shares the venues' limits."""
    members: int = 1
    """How many there are at least."""
    lease_ttl: float = TTL
    """Seconds after which the accounts of a member that was killed are another's."""
    list_every: float = 2.0
    """Between two looks at the list of accounts."""
    memory: int = 64 * 1024 * 1024
    """Budget of the process for what is heard and not yet confirmed."""
    connections: int = 4
    """To PostgreSQL, for storing."""
    statement_timeout: float = 30.0
    postgres_failures: int = 5
    postgres_reset: float = 30.0
    redis_failures: int = 5
    redis_reset: float = 30.0
    share: float = 0.5
    """Share of the venue's limits to use (others may sit behind the same address)."""
    append_timeout: float = 4.0
    distribute_timeout: float = 4.0
    store_timeout: float = 5.0
    """How long an orderly end waits for what was heard to be appended, distributed and stored."""


def pool_settings(pipeline: FeedPipeline, replica: str) -> PoolSettings:
    spec = pipeline.spec
    return PoolSettings(
        pipeline=pipeline.key,
        replica=replica,
        egress=spec.egress,
        postgres_failures=spec.postgres.circuit_breaker.failure_threshold,
        postgres_reset=spec.postgres.circuit_breaker.reset_timeout.seconds,
        redis_failures=spec.redis.circuit_breaker.failure_threshold,
        redis_reset=spec.redis.circuit_breaker.reset_timeout.seconds,
    )
