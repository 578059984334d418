"""The contract of a venue adapter.

Three halves, apart because different processes use them: the **feed** half (URLs, subscribe messages, heartbeats,
limits; used by the receiver), the **rest** half (pure request builders; used by the receiver) and the **mapper** half
(frame -> events; used by the distributor and by replay, unchanged). All of it is pure: no I/O happens in an adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from feedmill.shared.events import Candle, Instrument, Level, Ticker, Trade

if TYPE_CHECKING:
    from feedmill.exchanges.account_base import AccountVenue


class ChannelName(StrEnum):
    TRADES = "Trades"
    BOOK = "Book"
    TICKER = "Ticker"
    CANDLES = "Candles"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One channel of one instrument, as the manifest asks for it."""

    symbol: str
    native: str
    channel: ChannelName
    interval: str = ""
    """Candles only: 1m, 5m, ..."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A subscription under the venue's own name on one of its sockets."""

    name: str
    socket: str
    """Which socket of the feed, e.g. stream (Spot), public / market (USD-M)."""
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message to send. ``topics`` are the ones it asks for; ``request_id`` is echoed in the acknowledgement."""

    payload: bytes
    request_id: int | None = None
    topics: tuple[Topic, ...] = ()


class FrameKind(Enum):
    DATA = "data"
    ACK = "ack"
    ERROR = "error"
    HEARTBEAT = "heartbeat"
    SHUTDOWN = "shutdown"
    """The venue announces that it will close the connection."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the slow path makes of a frame that is not plainly data."""

    kind: FrameKind
    request_id: int | None = None
    accepted: frozenset[str] | None = None
    """Topic names the acknowledgement lists; None where the venue lists none (then all asked for are accepted)."""
    reply: bytes | None = None
    """To send back at once (heartbeats)."""
    error: str = ""
    fatal: bool = False
    """The venue will end or has ended the session: reconnect with back-off."""


@dataclass(frozen=True, slots=True)
class VenueLimits:
    """Limits as the venue documents them; the receiver stays under them."""

    connects: int
    """Connection attempts per ``connects_window`` seconds (per egress address)."""
    connects_window: float
    messages_per_second: float
    """Client messages a connection may send, control frames included."""
    topics_per_connection: int
    topics_per_request: int
    request_weight: int
    """REST weight per ``request_window`` seconds."""
    request_window: float
    connection_lifetime: float | None
    """Seconds after which the venue cuts a connection, None = never."""
    silence: float
    """Seconds without any frame (pings included) after which a connection counts as dead."""
    subscribes: float = 0.0
    """Subscribe requests at once, and each second, of all connections together; 0 = as many as messages."""
    subscribes_per_second: float = 0.0
    signed_weight: int = 0
    """Weight per ``request_window`` of requests that an account signs, which do not count for the address; 0 = they
    do."""
    weight_windows: bool = False
    """Windows of weight begin with the clock (each minute of it), and every answer tells what was used in this one."""


class Feed(ABC):
    """Feed half. Stateless; one instance a receiver process."""

    limits: ClassVar[VenueLimits]
    data_prefixes: ClassVar[tuple[bytes, ...]]
    """A frame that starts with one of these is data for sure: the hot path looks no further."""

    def __init__(self, stream: str, *, authenticated: bool = False) -> None:
        """``stream`` is the base URL (``wss://host[:port][/path]``), the venue's own or the manifest's endpoint."""
        self.stream = stream
        self.authenticated = authenticated

    @abstractmethod
    def topics(self, subscriptions: Sequence[Subscription]) -> list[Topic]: ...

    @abstractmethod
    def url(self, socket: str) -> str: ...

    def opening(self) -> list[Outbound]:
        """Messages to send first on a new connection (heartbeat set-up)."""
        return []

    @abstractmethod
    def subscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        """Chunked by ``limits.topics_per_request``; the receiver paces them."""

    @abstractmethod
    def unsubscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]: ...

    @abstractmethod
    def classify(self, payload: bytes) -> Verdict:
        """Judge a frame without a data prefix. Never raises: what it cannot read is DATA (to be dead-lettered)."""


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request the receiver may make. ``kind`` as in ``control.RestAnswer``."""

    kind: str
    url: str
    params: Mapping[str, str]
    weight: int
    symbol: str = ""
    native: str = ""
    bucket: str = "weight"
    """Which budget it draws on (Deribit: get_instruments has its own)."""


@dataclass(frozen=True, slots=True)
class TradeRange:
    """Trades to ask for by REST: numbers, both included, and receive times (ns) they lie between (0 = not known)."""

    from_id: int
    to_id: int
    from_ns: int = 0
    to_ns: int = 0

    @property
    def count(self) -> int:
        return self.to_id - self.from_id + 1


class Listing(Enum):
    """What the venue's state of an instrument means for who wants to capture it."""

    TRADING = "trading"
    PAUSED = "paused"
    """It will go on (a halt, a settlement), or is not open yet: who has it keeps it, nobody begins with it."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Listed:
    """One instrument of the venue's list, as far as a selection asks for it."""

    symbol: str
    native: str
    type: str
    """As in ``Instrument``."""
    base: str
    quote: str
    expiry_ns: int
    """0 = never."""
    state: Listing


@dataclass(frozen=True, slots=True)
class RestLimits:
    """What the answer's headers say about the budget."""

    used_weight: int | None = None
    retry_after: float | None = None
    """Seconds."""


class Rest(ABC):
    """REST half: pure builders and readers."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")

    @abstractmethod
    def instruments(self, natives: Sequence[str]) -> list[RestRequest]: ...

    @abstractmethod
    def book_snapshot(self, symbol: str, native: str) -> RestRequest: ...

    def trades(self, symbol: str, native: str, wanted: TradeRange) -> RestRequest | None:
        """Trades by the numbers of the stream, at most ``Venue.trades_page``. None = the venue offers no such thing."""
        return None

    def listing(self, types: frozenset[str]) -> list[RestRequest]:
        """What brings, together, every instrument of these types (empty = of all). Empty = the venue has no list."""
        return []

    def read_listing(self, body: bytes) -> Iterator[Listed]:
        """The instruments of one answer, read as they are asked for (there may be thousands).

        Raises MapError where the answer as a whole is not what the venue promises; a row that is not is left out.
        """
        raise MapError("no_list")

    def halves(self, request: RestRequest) -> list[RestRequest]:
        """A refused request as two smaller ones, so that one bad symbol costs only itself; empty = it is the least."""
        return []

    @abstractmethod
    def read_limits(self, status: int, headers: Mapping[str, str], body: bytes) -> RestLimits: ...


class BookUpdate(msgspec.Struct, array_like=True, gc=False):
    """A book message as the venue sent it: a change, or (in-band or REST) a full snapshot."""

    symbol: str
    snapshot: bool
    first_seq: int
    """First update id covered (venues without: equal to ``seq``)."""
    seq: int
    prev_seq: int
    """``seq`` of the message before, where the venue says it; -1 where not."""
    exchange_ns: int
    receive_ns: int
    bids: list[Level]
    asks: list[Level]


class Chain(Enum):
    """How a change relates to a book."""

    APPLY = "apply"
    STALE = "stale"
    """Already contained: ignore."""
    BREAK = "break"
    """Something is missing between: the book is broken."""


class BookRules(ABC):
    """The venue's sequence rules. Pure functions of numbers."""

    bootstrap: ClassVar[str]
    """rest: ask a snapshot by REST, buffer meanwhile. inband: the stream's first message is the snapshot."""
    dense: ClassVar[bool]
    """Update ids have no holes, so a gap's length is known (Spot)."""

    @abstractmethod
    def first(self, snapshot_seq: int, update: BookUpdate) -> Chain:
        """Relate the first changes after a snapshot to it. BREAK = the snapshot is too old, take a newer one."""

    @abstractmethod
    def next(self, last_seq: int, update: BookUpdate) -> Chain:
        """Relate a change to the last one applied."""


class Arbitration(IntEnum):
    """DESIGN's three classes: how events of several sessions become one stream."""

    CONTIGUOUS = 1
    """Ids without holes: merge, first wins, a hole is a gap."""
    MONOTONIC = 2
    """Ids rise but jump: each id once; what a connection missed is known by time only."""
    PRIMARY = 3
    """No id: one source at a time."""


class MapError(ValueError):
    """A frame this mapper cannot turn into events. ``reason`` is short and stable (a metric label)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


VenueEvent = Trade | Ticker | Candle | BookUpdate | Instrument


class Mapper(ABC):
    """Mapper half. Holds no state but the symbol table, so live and replay give equal events."""

    def __init__(self, symbols: Mapping[str, str]) -> None:
        """``symbols``: native -> canonical. May grow by :meth:`learn`."""
        self.symbols: dict[str, str] = dict(symbols)

    def learn(self, native: str, symbol: str) -> None:
        self.symbols[native] = symbol

    @abstractmethod
    def map(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        """Frame -> events. Empty for acknowledgements, heartbeats and other frames that carry no event.

        Raises MapError for anything else that it cannot map (bad JSON, unknown type, missing field, unknown symbol).
        """

    @abstractmethod
    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        """REST answer -> events (BookUpdate with snapshot=True, Instrument, Trade with Flag.BACKFILL)."""


@dataclass(frozen=True, slots=True)
class Venue:
    """One exchange market: what the registry's entry points name."""

    exchange: str
    """As in the manifest: binance, deribit."""
    market: str
    """Spot | UsdM | Derivatives."""
    feed: Callable[..., Feed]
    """(stream URL, *, authenticated: bool) -> Feed"""
    rest: Callable[[str], Rest]
    mapper: Callable[[Mapping[str, str]], Mapper]
    book_rules: BookRules
    endpoints: Mapping[str, Mapping[str, str]]
    """environment -> {stream, rest}; environments Production, Testnet."""
    arbitration: Mapping[ChannelName, Arbitration]
    to_native: Callable[[str], str]
    """Canonical -> native symbol; raises ValueError with a remedy when the symbol is not of the venue's form."""
    candle_intervals: frozenset[str]
    channels: frozenset[ChannelName] = field(default=frozenset(ChannelName))
    trades_page: int = 0
    """Trades that one request of :meth:`Rest.trades` brings at most; 0 = gaps are not filled by REST."""
    accounts: AccountVenue | None = None
    """The private half; None = accounts of this market cannot be listened to."""
    venue_candles_comparable: Mapping[str, Any] = field(default_factory=dict)
    """Which fields of the venue's candles equal ours when complete: {"volume": bool, "trades": bool | "raw", ...}.
    "raw" (trades, first_id, last_id): equal by the raw trades that our units (aggregates) cover."""

    @property
    def name(self) -> str:
        return f"{self.exchange}/{self.market}"
