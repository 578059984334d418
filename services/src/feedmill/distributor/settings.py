"""What one distributor process needs to know, read once from the resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from feedmill.distributor.books import BookSettings
from feedmill.distributor.sources import TopicKey
from feedmill.exchanges.base import Arbitration, ChannelName
from feedmill.exchanges.registry import get_venue
from feedmill.plan import shard_subscriptions
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.types import BatchingMode
from feedmill.shared.clock import SECOND
from feedmill.shared.keys import ShardRef

LINGER = {BatchingMode.LATENCY: 0.0, BatchingMode.ADAPTIVE: 0.001, BatchingMode.THROUGHPUT: 0.08}
"""Seconds between reads of a stream that brings little: fewer, larger commits for that much more delay."""


@dataclass(frozen=True, slots=True)
class DistributorSettings:
    """Durations in seconds where not named otherwise."""

    shard: ShardRef
    exchange: str
    market: str
    natives: Mapping[str, str]
    """Symbol -> the venue's name."""
    books: BookSettings
    arbitration: Mapping[ChannelName, Arbitration] = field(default_factory=dict)
    grace_ns: int = 2 * SECOND
    image_interval: float = 5.0
    image_bytes_per_second: int = 4 * 1024 * 1024
    """Images are made less often where all books together would write more than this."""
    session_silence: float = 30.0
    """A session that says nothing for so long while everything was read is over (it writes every 2 s)."""
    linger: float = LINGER[BatchingMode.ADAPTIVE]
    wanted: frozenset[TopicKey] | None = None
    """What the manifest asks for; None = not known, nothing is forgotten for it."""
    selected: bool = False
    """``wanted`` is what the receivers follow too (the record of a selection), so what is not in it has ended."""
    trades_page: int = 0
    """Trades that one REST request brings at most; 0 = gaps are not filled by REST."""
    breaker_failures: int = 5
    breaker_reset: float = 30.0
    lease_ttl: float = 3.0
    memory_share: float = 0.8
    """Share of Redis' maxmemory above which nothing is added to the events stream while processors are behind."""

    @classmethod
    def from_resources(
        cls, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int, symbols: Sequence[str] | None = None
    ) -> DistributorSettings:
        """``symbols``: of the feed, where the manifest does not list them; None = not known yet.

        Raises PlanError, UnknownVenue or ValueError for what the manifest cannot mean.
        """
        spec = feed.spec
        venue = get_venue(spec.exchange.name, spec.exchange.market)
        reference = ShardRef(*feed.key, shard)
        breaker = pipeline.spec.redis.circuit_breaker
        book = next((channel for channel in spec.channels if channel.name is ChannelName.BOOK), None)
        books = BookSettings(str(reference), venue.book_rules)
        if book is not None:
            slot = int(book.sample_interval.seconds * SECOND)
            books = BookSettings(str(reference), venue.book_rules, book.depth, slot)
        subscriptions = shard_subscriptions(feed, shard, symbols=symbols)
        wanted = frozenset((each.channel.value, each.symbol, each.interval) for each in subscriptions)
        known = symbols is not None or spec.instruments.symbols is not None
        return cls(
            shard=reference,
            exchange=spec.exchange.name,
            market=spec.exchange.market,
            natives={wanted.symbol: wanted.native for wanted in subscriptions},
            books=books,
            arbitration=venue.arbitration,
            grace_ns=int(spec.distributor.gap_grace.seconds * SECOND),
            image_interval=spec.distributor.image_interval.seconds,
            wanted=wanted if known else None,
            selected=symbols is not None and spec.instruments.symbols is None,
            trades_page=venue.trades_page,
            linger=LINGER[spec.receiver.batching.mode],
            breaker_failures=breaker.failure_threshold,
            breaker_reset=breaker.reset_timeout.seconds,
        )
