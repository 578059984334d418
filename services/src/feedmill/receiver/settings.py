"""What one receiver process needs to know, read once from the resources."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.exchanges.base import Subscription
from feedmill.resources.types import BatchingMode
from feedmill.shared.keys import ShardRef

if TYPE_CHECKING:
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """Durations in seconds, sizes in bytes."""

    shard: ShardRef
    replica: str
    exchange: str
    market: str
    stream_url: str
    rest_url: str
    subscriptions: tuple[Subscription, ...]
    authenticated: bool = False
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)

    mode: BatchingMode = BatchingMode.ADAPTIVE
    max_age: float = 0.02
    """The longest a frame waits for company by our own choice."""
    max_batch_frames: int = 4096
    max_batch_bytes: int = 256 * 1024
    memory: int = 64 * 1024 * 1024
    """Budget of the process for frames not yet confirmed; reading rests while it is used up."""
    spill_dir: Path | None = None
    """Folder for batches while Redis is away or full; None = they stay in memory."""
    spill_size: int = 1024 * 1024 * 1024
    """Most bytes in it."""
    max_message: int = 16 * 1024 * 1024

    breaker_failures: int = 5
    breaker_reset: float = 30.0
    append_deadline: float = 5.0
    confirm_replicas: int = 0
    """Replicas that must have a batch on disk before it is let go."""
    confirm_hold: float = 2.0
    """How long a batch that the server calls on disk is held all the same, unless much is held."""
    pause_limit: float = 30.0
    """Reading rested this long for want of memory: connections are closed until there is room again."""
    alive_interval: float = 2.0
    drain_timeout: float = 15.0

    max_backoff: float = 60.0
    min_backoff: float = 0.5
    stable_after: float = 10.0
    silence_timeout: float | None = None
    lifetime: float | None = None
    """Connections are replaced before they are that old. None, or longer than the venue's limit = before its cut."""
    connect_timeout: float = 10.0
    ack_timeout: float = 10.0
    share: float = 0.5
    """Share of the venue's connect and REST limits to use (others may sit behind the same address)."""

    fleet: str = ""
    """Venue and outgoing address: processes with the same one share these limits in Redis. Empty = none does."""
    fleet_members: int = 1
    """How many share them at least."""

    instruments_interval: float = 3600.0
    rest_timeout: float = 15.0
    command_max_age: float = 30.0

    @classmethod
    def from_resources(
        cls, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int, replica: str, spill_dir: Path | None = None
    ) -> ReceiverSettings:
        """Read the resources' fields once; ``plan`` says which subscriptions are this shard's."""
        from feedmill import plan

        spec = feed.spec
        receiver = spec.receiver
        breaker = pipeline.spec.redis.circuit_breaker
        silence, lifetime = receiver.reconnect.silence_timeout, receiver.reconnect.lifetime
        return cls(
            shard=ShardRef(feed.metadata.namespace, feed.metadata.name, shard),
            replica=replica,
            exchange=spec.exchange.name,
            market=spec.exchange.market,
            stream_url=plan.feed_stream_url(feed),
            rest_url=plan.feed_rest_url(feed),
            subscriptions=tuple(plan.shard_subscriptions(feed, shard)),
            mode=receiver.batching.mode,
            max_age=receiver.batching.max_age.seconds,
            memory=receiver.memory.bytes,
            spill_dir=spill_dir,
            spill_size=receiver.spill.size.bytes,
            breaker_failures=breaker.failure_threshold,
            breaker_reset=breaker.reset_timeout.seconds,
            confirm_replicas=pipeline.spec.redis.confirm.replicas,
            max_backoff=receiver.reconnect.max_backoff.seconds,
            stable_after=receiver.reconnect.stable_after.seconds,
            silence_timeout=None if silence is None else silence.seconds,
            lifetime=None if lifetime is None else lifetime.seconds,
            fleet=".".join(
                (spec.exchange.name, spec.exchange.market, spec.exchange.environment.value, pipeline.spec.egress)
            ),
            fleet_members=receiver.shards * receiver.replicas,
        )
