"""``ExchangeFeed``: which exchange, which instruments, which channels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feedmill.exchanges.base import ChannelName
from feedmill.resources.base import NAME_RULE, Boolean, Hint, Implied, Integer, Model, ObjectMeta, Rule
from feedmill.resources.common import PipelineRef, PodTemplate, Replicas, ResourceRequirements, SecretRef
from feedmill.resources.status import FeedStatus
from feedmill.resources.types import (
    BatchingMode,
    Duration,
    Environment,
    InstrumentType,
    KeepFor,
    LogLevel,
    Quantity,
    RefreshInterval,
    SampleInterval,
)

SYMBOL_PATTERN = r"^[^\s/,:{}@?#&%\\\"']{1,64}$"
_CURRENCY = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$"), Hint("write a currency in capitals, such as BTC")]


_SYMBOL = Annotated[str, Field(pattern=SYMBOL_PATTERN, max_length=64), Hint("write BASE-QUOTE, such as BTC-USDT")]


class Endpoints(Model):
    """Where to connect instead of the venue's own addresses: a proxy or a simulator."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.stream) || has(self.rest)", "give stream, rest or both, or leave endpoints out"),
    )

    stream: (
        Annotated[
            str,
            Field(pattern=r"^wss?://[^\s/@?#]+(/[^\s@?#]*)?$", max_length=512),
            Hint("write ws:// or wss://, a host and perhaps a path, without user, password or query"),
        ]
        | None
    ) = None
    """Base URL of the WebSocket (`ws://` or `wss://`), without credentials; the venue's paths are appended."""
    rest: (
        Annotated[
            str,
            Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", max_length=512),
            Hint("write http:// or https://, a host and perhaps a path, without user, password or query"),
        ]
        | None
    ) = None
    """Base URL of the REST API (`http://` or `https://`), without credentials."""


class Exchange(Model):
    """The venue: one market of one exchange."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.name == oldSelf.name", "the exchange of a feed is immutable: make a new feed", ".name", True),
        Rule("self.market == oldSelf.market", "the market of a feed is immutable: make a new feed", ".market", True),
        Rule(
            "self.environment == oldSelf.environment",
            "the environment of a feed is immutable: make a new feed",
            ".environment",
            True,
        ),
    )

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), Hint("write it in lower case, such as binance")]
    """Exchange, in lower case: `binance`, `deribit`. Immutable."""
    market: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,31}$"), Hint("write it in CamelCase, such as Spot")]
    """Market of the exchange: `Spot`, `UsdM` (binance), `Derivatives` (deribit). Immutable."""
    environment: Environment = Environment.PRODUCTION
    """Which installation of the venue. Immutable."""
    endpoints: Endpoints | None = None
    """Other addresses than the venue's own."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with the keys `apiKey` and `apiSecret`, for channels that need a login (Deribit: raw channels; without it
    the 100 ms ones are taken)."""


class Select(Model):
    """Instruments by their properties; all given criteria must hold."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.types) || has(self.base) || has(self.quote) || has(self.expiresWithin)",
            "give at least one criterion of types, base, quote, expiresWithin",
        ),
    )

    types: Annotated[list[InstrumentType], Field(min_length=1, max_length=8)] | None = None
    """Kinds of instruments."""
    base: Annotated[list[_CURRENCY], Field(min_length=1, max_length=200)] | None = None
    """Base currencies."""
    quote: Annotated[list[_CURRENCY], Field(min_length=1, max_length=200)] | None = None
    """Quote currencies."""
    expires_within: KeepFor | None = None
    """Only instruments that expire within this time; what never expires does not."""
    max_instruments: Annotated[Integer, Field(ge=1, le=2000)] = 500
    """Where more match, the last list stays as it is, and health says so: narrow the selection, or raise this."""
    refresh_interval: RefreshInterval | None = None
    """How often the venue's list is read, also when one of the instruments expires. Default: `1m` where options may be
    among them, else `5m`."""


class Instruments(Model):
    """Which instruments: a list, or a selection."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.symbols) != has(self.select)", "give exactly one of symbols and select"),
    )

    symbols: (
        Annotated[
            list[_SYMBOL],
            Field(min_length=1, max_length=2000, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Symbols, each once: `BTC-USDT` (Binance Spot and USD-M), `BTC-USDT-260925` (USD-M delivery), Deribit's own names
    (`BTC-PERPETUAL`)."""
    select: Select | None = None
    """Instruments by their properties, instead of `symbols`: the list follows the venue's listings and expiries."""


class Channel(Model):
    """One kind of data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.name == 'Book' || !has(self.depth)", "depth is only for the channel Book: remove it", ".depth"),
        Rule(
            "self.name == 'Book' || !has(self.sampleInterval)",
            "sampleInterval is only for the channel Book: remove it",
            ".sampleInterval",
        ),
        Rule(
            "self.name == 'Candles' || !has(self.interval)",
            "interval is only for the channel Candles: remove it",
            ".interval",
        ),
        Rule(
            "self.name != 'Candles' || has(self.interval)",
            "the channel Candles needs an interval: add interval: 1m",
        ),
    )

    name: ChannelName
    """Kind of data."""
    depth: Annotated[Integer, Field(ge=1, le=1000), Implied()] = 20
    """Book only: price levels a side in a stored snapshot."""
    sample_interval: Annotated[SampleInterval, Implied()] = SampleInterval("1s")
    """Book only: a snapshot is stored once per slot of this length (100ms or more), if the book changed in it."""
    interval: Annotated[
        str, Field(pattern=r"^[1-9][0-9]{0,2}(s|m|h|d|w|M)$"), Implied(), Hint("write it as the venue does, such as 1m")
    ] = ""
    """Candles only, and required there: length of a candle as the venue names it (`1m`, `1h`, ...)."""


class Spill(Model):
    """The receiver's log on disk for the time Redis is away or full."""

    size: Quantity = Quantity("1Gi")
    """Most bytes it may take (15/16 of it are used). Beyond it, and once memory is full too, the newest data is shed,
    and each shed range becomes a gap."""


class Reconnect(Model):
    """How connections are made anew."""

    max_backoff: Duration = Duration("60s")
    """Longest pause between two attempts."""
    stable_after: Duration = Duration("10s")
    """Back-off starts anew once data has come for this long."""
    silence_timeout: Duration | None = None
    """A connection without any frame for this long counts as dead. Default: as fits the venue."""
    lifetime: Duration | None = None
    """A connection is replaced, new before old, after half to nearly all of this time. Default, and at most: the time
    after which the venue ends it (Binance: 24h); where there is none (Deribit): never."""


class Batching(Model):
    """How frames are packed into entries of the raw stream."""

    mode: BatchingMode = BatchingMode.ADAPTIVE
    """`Latency`: at once; `Throughput`: fewer, larger entries for less CPU; `Adaptive`: by the load."""
    max_age: Duration = Duration("20ms")
    """Longest time a frame waits to be packed."""


class Receiver(Model):
    """The processes that hold the connections."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.shards == oldSelf.shards",
            "the shards of a feed cannot be changed, since streams and positions are kept by shard: make a new feed",
            ".shards",
            True,
        ),
    )

    shards: Annotated[Integer, Field(ge=1, le=64)] = 1
    """Shares of the instruments (by a stable hash), each with its own streams and processes. Immutable."""
    replicas: Replicas = 1
    """Receivers of the same shard; 2 or more survive the loss of one without a gap."""
    spill: Spill = Field(default_factory=Spill)
    """Log on disk for the time Redis is away or full. This version does not write to it."""
    reconnect: Reconnect = Field(default_factory=Reconnect)
    """How connections are made anew."""
    batching: Batching = Field(default_factory=Batching)
    """How frames are packed."""
    memory: Quantity = Quantity("64Mi")
    """Most bytes of frames one process holds; reading pauses at this."""
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """CPU and memory of the container."""
    pod_template: PodTemplate | None = None
    """Additions to the pods."""


class Distributor(Model):
    """The processes that order, complete and normalise."""

    replicas: Replicas = 1
    """Processes a shard; one works, the others stand by."""
    gap_grace: Duration = Duration("2s")
    """How long a hole may stay before it becomes a gap."""
    image_interval: Duration = Duration("5s")
    """How often images of the books are kept for a restart."""
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """CPU and memory of the container."""
    pod_template: PodTemplate | None = None
    """Additions to the pods."""


class FeedSpec(Model):
    """What is wanted of a feed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.channels.all(a, self.channels.exists_one(b, b.name == a.name && "
            "(has(b.interval) ? b.interval : '') == (has(a.interval) ? a.interval : '')))",
            "each channel may be listed once (Candles: once per interval)",
            ".channels",
        ),
        Rule(
            "self.pipelineRef.name == oldSelf.pipelineRef.name",
            "the pipeline of a feed is immutable, since its streams and positions live there: make a new feed",
            ".pipelineRef",
            True,
        ),
    )

    pipeline_ref: PipelineRef
    """The FeedPipeline the data goes through. Immutable."""
    exchange: Exchange
    """The venue."""
    instruments: Instruments
    """Which instruments."""
    channels: Annotated[list[Channel], Field(min_length=1, max_length=32)]
    """Which kinds of data."""
    receiver: Receiver = Field(default_factory=Receiver)
    """The processes that hold the connections."""
    distributor: Distributor = Field(default_factory=Distributor)
    """The processes that order, complete and normalise."""
    log_level: LogLevel = LogLevel.INFO
    """Least weight of the log lines of the feed's processes. Changed without a restart."""
    suspend: Boolean = False
    """True stops the feed's processes; what is stored stays."""


class ExchangeFeed(Model):
    """One feed: which exchange, which instruments and which channels."""

    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["ExchangeFeed"] = "ExchangeFeed"
    """Always `ExchangeFeed`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: FeedSpec
    """What is wanted."""
    status: FeedStatus | None = None
    """Written by the operator."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name
