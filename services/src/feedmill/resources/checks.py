"""What one resource cannot know alone: references, names, what the venue offers. Pure: venues come as a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from feedmill.exchanges.base import Venue
from feedmill.resources.account import AccountExchange, ExchangeAccount
from feedmill.resources.feed import Exchange, ExchangeFeed
from feedmill.resources.parse import Loaded
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.problems import Problem, choose, did_you_mean, show_value
from feedmill.resources.symbols import suggest_symbol


@dataclass(frozen=True, slots=True)
class Venues:
    """How venues are looked up (the registry, or a test's own)."""

    names: Callable[[], Sequence[str]]
    """``exchange/market`` of every installed adapter."""
    get: Callable[[str, str], Venue]


def check_all(loaded: Sequence[Loaded], venues: Venues, *, local: bool) -> list[Problem]:
    """Everything wrong between the resources, and between feeds or accounts and their venues."""
    return [
        *_names(loaded),
        *_references(loaded, local=local),
        *(problem for item in loaded for problem in _venue(item, venues)),
    ]


def _names(loaded: Sequence[Loaded]) -> Iterator[Problem]:
    seen: dict[tuple[str, str, str], Loaded] = {}
    for item in loaded:
        key = (item.resource.kind, *item.resource.key)
        first = seen.setdefault(key, item)
        if first is not item:
            where = f"{first.document.file}:{first.document.line(('metadata', 'name'))}"
            name = show_value(item.resource.metadata.name)
            message = f"{name}: another {key[0]} of that name is in {where}: rename or remove one"
            yield item.document.problem(("metadata", "name"), message)


def _references(loaded: Sequence[Loaded], *, local: bool) -> Iterator[Problem]:
    pipelines = {item.resource.key for item in loaded if isinstance(item.resource, FeedPipeline)}
    if local and not pipelines:
        return
    for item in loaded:
        if isinstance(item.resource, FeedPipeline):
            continue
        namespace, name = item.resource.metadata.namespace, item.resource.spec.pipeline_ref.name
        if (namespace, name) in pipelines:
            continue
        known = sorted(other for space, other in pipelines if space == namespace)
        elsewhere = sorted(space for space, other in pipelines if other == name)
        if elsewhere:
            what = "a feed" if isinstance(item.resource, ExchangeFeed) else "an account"
            remedy = f"it is in namespace {elsewhere[0]}: {what} and its pipeline share one namespace"
        elif known:
            remedy = choose(name, known)
        else:
            remedy = "add one to the files"
        message = f"{show_value(name)}: no FeedPipeline of that name in namespace {namespace}: {remedy}"
        yield item.document.problem(("spec", "pipelineRef", "name"), message)


def _venue(item: Loaded, venues: Venues) -> Iterator[Problem]:
    resource = item.resource
    if isinstance(resource, FeedPipeline):
        return
    exchange = resource.spec.exchange
    names = tuple(venues.names())
    if f"{exchange.name}/{exchange.market}" not in names:
        yield _unknown_venue(item, exchange.name, exchange.market, names)
        return
    try:
        venue = venues.get(exchange.name, exchange.market)
    except (LookupError, ImportError, AttributeError) as error:
        message = f"the adapter {exchange.name}/{exchange.market} cannot be loaded ({error}): install it anew"
        yield item.document.problem(("spec", "exchange"), message)
        return
    if isinstance(resource, ExchangeAccount):
        yield from _account(item, resource.spec.exchange, venue)
        return
    own = {environment: urls.get("stream", "") for environment, urls in venue.endpoints.items()}
    yield from _addresses(item, exchange, venue, own)
    yield from _instruments(item, resource, venue)
    yield from _channels(item, resource, venue)


def _account(item: Loaded, exchange: AccountExchange, venue: Venue) -> Iterator[Problem]:
    if venue.accounts is None:
        message = f"{show_value(exchange.market)}: accounts of {venue.name} cannot be listened to by this installation"
        yield item.document.problem(("spec", "exchange", "market"), message)
        return
    yield from _addresses(item, exchange, venue, venue.accounts.streams)


def _addresses(
    item: Loaded, exchange: Exchange | AccountExchange, venue: Venue, streams: Mapping[str, str]
) -> Iterator[Problem]:
    """``streams``: environment -> base URL of the WebSockets meant."""
    wanted, given = exchange.environment.value, exchange.endpoints
    rest = venue.endpoints.get(wanted, {}).get("rest")
    if not (streams.get(wanted) or (given and given.stream)) or not (rest or (given and given.rest)):
        message = (
            f"{show_value(wanted)}: {venue.name} has no addresses for it: "
            f"{choose(wanted, sorted(venue.endpoints))}, or give both endpoints"
        )
        yield item.document.problem(("spec", "exchange", "environment"), message)


def _unknown_venue(item: Loaded, exchange: str, market: str, names: Sequence[str]) -> Problem:
    exchanges = sorted({name.partition("/")[0] for name in names})
    if exchange in exchanges:
        markets = sorted(name.partition("/")[2] for name in names if name.startswith(f"{exchange}/"))
        message = f"{show_value(market)} is not a market of {exchange}: {choose(market, markets)}"
        return item.document.problem(("spec", "exchange", "market"), message)
    near = did_you_mean(exchange, exchanges)
    remedy = (
        f"did you mean {near}? (installed: {', '.join(names)})"
        if near
        else f"installed are {', '.join(names) or 'none'}"
    )
    message = f"{show_value(exchange)} is not an exchange this installation knows: {remedy}"
    return item.document.problem(("spec", "exchange", "name"), message)


def _instruments(item: Loaded, feed: ExchangeFeed, venue: Venue) -> Iterator[Problem]:
    instruments = feed.spec.instruments
    if instruments.symbols is None:
        return
    natives: dict[str, int] = {}
    for index, symbol in enumerate(instruments.symbols):
        path = ("spec", "instruments", "symbols", index)
        try:
            native = venue.to_native(symbol)
        except ValueError as error:
            guess = suggest_symbol(symbol, venue.to_native)
            remedy = f": write {guess}" if guess else f": {error}"
            yield item.document.problem(path, f"{show_value(symbol)} is not a symbol of {venue.name}{remedy}")
            continue
        first = natives.setdefault(native, index)
        if first != index:
            message = f"{show_value(symbol)} is the same instrument as symbols[{first}]: remove one"
            yield item.document.problem(path, message)
    shards = feed.spec.receiver.shards
    if shards > len(instruments.symbols):
        count = len(instruments.symbols)
        message = f"{shards} shards for {count} symbol{'s' if count > 1 else ''}: some would be empty, write fewer"
        yield item.document.problem(("spec", "receiver", "shards"), message)


def _channels(item: Loaded, feed: ExchangeFeed, venue: Venue) -> Iterator[Problem]:
    offered = sorted(channel.value for channel in venue.channels)
    for index, channel in enumerate(feed.spec.channels):
        path = ("spec", "channels", index)
        if channel.name not in venue.channels:
            message = (
                f"{show_value(channel.name.value)} is not a channel of {venue.name}: write one of {', '.join(offered)}"
            )
            yield item.document.problem((*path, "name"), message)
        elif channel.interval and channel.interval not in venue.candle_intervals:
            known = sorted(venue.candle_intervals, key=_interval_order)
            message = f"{show_value(channel.interval)} is not a candle of {venue.name}: write one of {', '.join(known)}"
            yield item.document.problem((*path, "interval"), message)


def _interval_order(interval: str) -> tuple[int, int]:
    unit = "smhdwM".find(interval[-1:])
    return unit, int(interval[:-1]) if interval[:-1].isdigit() else 0
