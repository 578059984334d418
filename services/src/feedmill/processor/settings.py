"""What the processor needs to know, taken from the resources once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedmill.exchanges.base import Arbitration, ChannelName
from feedmill.exchanges.registry import get_venue
from feedmill.plan import shard_subscriptions, shards_of
from feedmill.processor.due import DRILL, Plan
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.types import BatchingMode
from feedmill.shared.clock import SECOND
from feedmill.shared.keys import ShardRef
from feedmill.shared.lease import TTL

INTERVALS = {
    "1m": 60,
    "3m": 180,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "4h": 14400,
    "6h": 21600,
    "8h": 28800,
    "12h": 43200,
    "1d": 86400,
}
"""Candle lengths in seconds. All divide a day, so their begins count from midnight UTC."""

LINGER = {BatchingMode.LATENCY: 0.0, BatchingMode.ADAPTIVE: 0.004, BatchingMode.THROUGHPUT: 0.1}
"""Seconds between reads of a stream that brings little: fewer, larger transactions for that much more delay.

At 3,000 rows/s of 10 instruments a row costs 55, 22 and 16 us (both sides) with 4, 40 and 100 ms.
"""


@dataclass(frozen=True, slots=True)
class VenueRules:
    """What holds for the candles of a venue."""

    dense: bool
    """Trade ids have no holes, so they prove completeness."""
    comparable: Mapping[str, Any] = field(default_factory=dict)
    """Field of the venue's candle -> True (must be equal) or "raw" (compare with the raw ids that aggregates carry)."""
    tickers_by_time: bool = False
    """Tickers have no number: the gap rows' is their exchange time in ms."""


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """One shard and where its events come from."""

    ref: ShardRef
    exchange: str
    market: str
    rules: VenueRules
    natives: Mapping[str, str] = field(default_factory=dict)
    """Symbol -> the venue's name, for the instruments of the manifest."""
    channels: frozenset[str] = frozenset({ChannelName.TRADES.value, ChannelName.TICKER.value})
    """Channels subscribed."""
    linger: float = LINGER[BatchingMode.ADAPTIVE]
    """Seconds."""
    trades_page: int = 0
    """Trades that one REST request by number gives; 0 = there is no such request."""
    selected_of: int = 0
    """Shards of a feed that selects its instruments, so that ``natives`` is empty; 0 = it lists them."""

    @property
    def venue(self) -> str:
        return f"{self.exchange}/{self.market}"


@dataclass(frozen=True, slots=True)
class ProcessorSettings:
    """Everything one processor process works by."""

    shards: tuple[ShardSettings, ...]
    replica: str = "r0"
    """For people: several processes may have the same name."""
    members_key: str = "fm:{default.main}:processors"
    """Redis key of the set of processors alive."""
    lease_ttl: float = TTL
    """Seconds after which the shards of a processor that was killed are another's."""
    intervals: tuple[str, ...] = ("1m", "5m", "15m", "1h", "4h", "1d")
    retention_ns: Mapping[str, int] = field(
        default_factory=lambda: {
            "trades": 30 * 86400 * SECOND,
            "tickers": 3 * 86400 * SECOND,
            "book_snapshots": 7 * 86400 * SECOND,
        }
    )
    """Table -> how long its rows are kept."""
    max_rows: int = 10_000
    """Rows gathered for one transaction; reading pauses at this (fewer where a process has many shards)."""
    max_bytes: int = 16 << 20
    """The same in bytes of stream entries."""
    block_ms: int = 1000
    """Longest wait of one read."""
    statement_timeout: float = 30.0
    """Seconds after which a server that does not answer counts as away."""
    postgres_failures: int = 5
    postgres_reset: float = 30.0
    redis_failures: int = 5
    redis_reset: float = 30.0
    finish_every: float = 2.0
    """Seconds between two runs of the finisher."""
    repair_every: float = 10.0
    """Seconds between two looks for trades of lost commits."""
    records_every: float = 15.0
    """Seconds between two looks at what the database tells of backups, maintenance and gaps."""
    due: Plan = field(default_factory=Plan)
    """When backups are due."""
    drain_timeout: float = 8.0
    """Seconds an orderly end waits for what was read to be stored."""
    finish_timeout: float = 3.0
    """Seconds it waits for the last run of the finisher."""


def retention_of(pipeline: FeedPipeline) -> dict[str, int]:
    """Table -> ns its rows are kept."""
    kept = pipeline.spec.retention
    return {
        "trades": int(kept.trades.seconds * SECOND),
        "tickers": int(kept.tickers.seconds * SECOND),
        "book_snapshots": int(kept.book_snapshots.seconds * SECOND),
    }


def shard_settings(feed: ExchangeFeed) -> list[ShardSettings]:
    """The shards of a feed. Raises UnknownVenue when its adapter is not installed."""
    exchange = feed.spec.exchange
    venue = get_venue(exchange.name, exchange.market)
    dense = venue.arbitration.get(ChannelName.TRADES) is Arbitration.CONTIGUOUS
    by_time = venue.arbitration.get(ChannelName.TICKER) is Arbitration.PRIMARY
    rules = VenueRules(dense, dict(venue.venue_candles_comparable), by_time)
    channels = frozenset(channel.name.value for channel in feed.spec.channels)
    made = []
    for ref in shards_of(feed):
        natives = {item.symbol: item.native for item in shard_subscriptions(feed, ref.shard)}
        linger = LINGER[feed.spec.receiver.batching.mode]
        page = venue.trades_page if dense else 0
        selected_of = feed.spec.receiver.shards if feed.spec.instruments.symbols is None else 0
        made.append(
            ShardSettings(ref, exchange.name, exchange.market, rules, natives, channels, linger, page, selected_of)
        )
    return made


def due_of(pipeline: FeedPipeline) -> Plan:
    """When backups and drills are due; empty while none are made by schedule."""
    backup = pipeline.spec.backup
    if backup is None or backup.suspend:
        return Plan()
    schedules = {"logical": backup.schedule}
    if backup.continuous.enabled:
        schedules["base"] = backup.continuous.base_schedule
    if not backup.verify.suspend:
        schedules[DRILL] = backup.verify.schedule
    return Plan(schedules, backup.time_zone)


def processor_settings(pipeline: FeedPipeline, feeds: Sequence[ExchangeFeed], replica: str) -> ProcessorSettings:
    spec = pipeline.spec
    return ProcessorSettings(
        shards=tuple(shard for feed in feeds for shard in shard_settings(feed)),
        replica=replica,
        members_key=f"fm:{{{'.'.join(pipeline.key)}}}:processors",
        intervals=tuple(sorted(spec.candles.intervals, key=INTERVALS.__getitem__)),
        retention_ns=retention_of(pipeline),
        postgres_failures=spec.postgres.circuit_breaker.failure_threshold,
        postgres_reset=spec.postgres.circuit_breaker.reset_timeout.seconds,
        redis_failures=spec.redis.circuit_breaker.failure_threshold,
        redis_reset=spec.redis.circuit_breaker.reset_timeout.seconds,
        due=due_of(pipeline),
    )
