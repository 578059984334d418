"""Resources -> workloads: which process, which shard, which arguments. Pure; read by the operator and by local mode.

The same manifest gives the same workloads in the same order everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from feedmill.exchanges.base import Subscription, Venue
from feedmill.exchanges.registry import get_venue
from feedmill.resources.account import AccountExchange, ExchangeAccount
from feedmill.resources.collection import Key, Resources
from feedmill.resources.feed import Exchange, ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.keys import ShardRef

VenueOf = Callable[[str, str], Venue]
"""(exchange, market) -> adapter."""


class PlanError(ValueError):
    """The resources are valid and still cannot be turned into work; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One process. ``args`` follow ``feedmill``; whoever starts it adds ``--config`` and where its health is served."""

    role: str
    """receiver | distributor | processor | maintenance | accounts | notify."""
    name: str
    """Unique in its namespace, a DNS label."""
    args: tuple[str, ...]
    pipeline: Key
    feed: Key | None = None
    shard: int | None = None
    replica: str = ""


def shard_of(symbol: str, shards: int) -> int:
    """The shard of an instrument: CRC-32 of its canonical symbol, so it never changes with what else is listed."""
    if shards < 1:
        raise ValueError(f"{shards} shards: there is at least 1")
    return zlib.crc32(symbol.encode()) % shards


def shards_of(feed: ExchangeFeed) -> list[ShardRef]:
    """All shards of a feed, in order."""
    namespace, name = feed.key
    return [ShardRef(namespace, name, number) for number in range(feed.spec.receiver.shards)]


def shard_symbols(feed: ExchangeFeed, shard: int, symbols: Sequence[str] | None = None) -> list[str]:
    """Symbols of one shard in the manifest's order.

    ``symbols``: what ``instruments.select`` came to; without it a feed that lists no symbols has none. Raises PlanError
    for a shard that the feed does not have.
    """
    shards = feed.spec.receiver.shards
    if not 0 <= shard < shards:
        last = f"0 to {shards - 1}" if shards > 1 else "only 0"
        raise PlanError(
            f"feed {show_key(feed.key)} has no shard {shard}: there is {last} (spec.receiver.shards: {shards})"
        )
    listed = feed.spec.instruments.symbols if symbols is None else symbols
    return [symbol for symbol in listed or () if shard_of(symbol, shards) == shard]


def shard_subscriptions(
    feed: ExchangeFeed, shard: int, *, symbols: Sequence[str] | None = None, venue_of: VenueOf = get_venue
) -> list[Subscription]:
    """Every channel of every instrument of one shard, instrument by instrument.

    Raises PlanError (see :func:`shard_symbols`), UnknownVenue, or ValueError for a symbol the venue cannot have.
    """
    venue = venue_of(feed.spec.exchange.name, feed.spec.exchange.market)
    return [
        Subscription(symbol, native, channel.name, channel.interval)
        for symbol in shard_symbols(feed, shard, symbols)
        for native in (venue.to_native(symbol),)
        for channel in feed.spec.channels
    ]


def feed_stream_url(feed: ExchangeFeed, venue_of: VenueOf = get_venue) -> str:
    """Base URL of the WebSocket: the manifest's endpoint, else the venue's own for the feed's environment."""
    exchange = feed.spec.exchange
    own = venue_of(exchange.name, exchange.market).endpoints.get(exchange.environment.value, {})
    return _address(f"feed {show_key(feed.key)}", exchange, "stream", own.get("stream"))


def feed_rest_url(feed: ExchangeFeed, venue_of: VenueOf = get_venue) -> str:
    """Base URL of the REST API: the manifest's endpoint, else the venue's own for the feed's environment."""
    exchange = feed.spec.exchange
    own = venue_of(exchange.name, exchange.market).endpoints.get(exchange.environment.value, {})
    return _address(f"feed {show_key(feed.key)}", exchange, "rest", own.get("rest"))


def account_urls(account: ExchangeAccount, venue_of: VenueOf = get_venue) -> tuple[str, str]:
    """(base URL of private connections, base URL of the REST API): the manifest's, else the venue's own."""
    exchange, what = account.spec.exchange, f"account {show_key(account.key)}"
    venue = venue_of(exchange.name, exchange.market)
    streams = venue.accounts.streams if venue.accounts is not None else {}
    rest = venue.endpoints.get(exchange.environment.value, {}).get("rest")
    return (
        _address(what, exchange, "stream", streams.get(exchange.environment.value)),
        _address(what, exchange, "rest", rest),
    )


def _address(what: str, exchange: Exchange | AccountExchange, kind: str, own: str | None) -> str:
    given = getattr(exchange.endpoints, kind) if exchange.endpoints else None
    if not given and not own:
        raise PlanError(
            f"{what}: {exchange.name}/{exchange.market} has no {kind} address for {exchange.environment.value}: "
            f"give spec.exchange.endpoints.{kind}"
        )
    return str(given or own)


def plan(resources: Resources) -> list[Workload]:
    """All processes the resources ask for, consumers before producers.

    A suspended feed or pipeline has none (a feed of a suspended pipeline goes on: its events wait in the streams);
    neither has a shard no instrument falls into.
    """
    workloads: list[Workload] = []
    for _, pipeline in sorted(resources.pipelines.items()):
        if not pipeline.spec.suspend:
            workloads.extend(_of_pipeline(pipeline))
            if has_account_pool(pipeline, resources.accounts_of(pipeline)):
                workloads.extend(_account_pool(pipeline))
    feeds = [feed for _, feed in sorted(resources.feeds.items()) if not feed.spec.suspend]
    for feed in feeds:
        workloads.extend(_distributors(feed))
    for feed in feeds:
        workloads.extend(_receivers(feed))
    return workloads


def _of_pipeline(pipeline: FeedPipeline) -> list[Workload]:
    key = pipeline.key
    args = ("--pipeline", show_key(key))
    processors = [
        Workload(
            "processor",
            f"{key[1]}-processor-{number}",
            ("run", "processor", *args, "--replica", f"r{number}"),
            key,
            replica=f"r{number}",
        )
        for number in range(pipeline.spec.processor.replicas)
    ]
    maintenance = Workload("maintenance", f"{key[1]}-maintenance", ("run", "maintenance", *args), key)
    spec = pipeline.spec.notifications
    notify = [Workload("notify", f"{key[1]}-notify", ("run", "notify", *args), key)] if spec and spec.telegram else []
    return [maintenance, *processors, *notify]


def has_account_pool(pipeline: FeedPipeline, accounts: Sequence[ExchangeAccount]) -> bool:
    """Whether a pipeline has processes that listen to accounts; ``accounts``: its ExchangeAccounts.

    Also where all of them are suspended: what was captured before is stored.
    """
    return pipeline.spec.accounts is not None or bool(accounts)


def _account_pool(pipeline: FeedPipeline) -> list[Workload]:
    key = pipeline.key
    return [
        Workload(
            "accounts",
            f"{key[1]}-accounts-{number}",
            ("run", "accounts", "--pipeline", show_key(key), "--replica", f"r{number}"),
            key,
            replica=f"r{number}",
        )
        for number in range(pipeline.account_pool.replicas)
    ]


def working_shards(feed: ExchangeFeed) -> list[int]:
    """The shards that some instrument falls into, or may fall into."""
    if feed.spec.instruments.symbols is None:
        return list(range(feed.spec.receiver.shards))
    return [shard for shard in range(feed.spec.receiver.shards) if shard_symbols(feed, shard)]


def _shard_workloads(feed: ExchangeFeed, role: str, replicas: int, *, names_replica: bool) -> list[Workload]:
    namespace, name = feed.key
    pipeline = (namespace, feed.spec.pipeline_ref.name)
    made: list[Workload] = []
    for shard in working_shards(feed):
        for number in range(replicas):
            args = ["run", role, "--feed", show_key(feed.key), "--shard", str(shard)]
            if names_replica:
                args += ["--replica", f"r{number}"]
            label = f"{name}-{role}-{shard}-{number}"
            made.append(Workload(role, label, tuple(args), pipeline, feed.key, shard, f"r{number}"))
    return made


def _distributors(feed: ExchangeFeed) -> list[Workload]:
    return _shard_workloads(feed, "distributor", feed.spec.distributor.replicas, names_replica=False)


def _receivers(feed: ExchangeFeed) -> list[Workload]:
    return _shard_workloads(feed, "receiver", feed.spec.receiver.replicas, names_replica=True)


def show_key(key: Key) -> str:
    """``namespace/name``, as the command line takes it."""
    return "/".join(key)
