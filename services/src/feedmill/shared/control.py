"""Records that travel beside frames: control records and REST answers (raw stream), commands (back to receivers)."""

from __future__ import annotations

import msgspec

from feedmill.shared.decoding import decode


class TopicRef(msgspec.Struct, array_like=True, frozen=True):
    """One subscription as the receiver made it."""

    symbol: str
    """Canonical symbol, e.g. BTC-USDT."""
    native: str
    """The venue's name, e.g. BTCUSDT."""
    channel: str
    """Trades | Book | Ticker | Candles."""
    topic: str
    """The venue's stream or channel name, e.g. btcusdt@trade."""
    interval: str = ""
    """Of candles."""


class Control(msgspec.Struct, tag_field="type", tag=str.lower):
    """Base of control records. They stand in the raw stream in the order in which things happened."""


class Session(Control, tag="session"):
    """First record of a session. A newer session of the same replica ends the older one."""

    session: str
    replica: str
    version: str
    started_ns: int
    lost_session: str | None = None
    """Set when this session replaces one whose unconfirmed tail the server has forgotten beyond repair."""


class Connected(Control, tag="connected"):
    conn: int
    name: str
    """Which of the feed's sockets, e.g. public, market."""
    topics: list[TopicRef] = []
    """What is going to be subscribed: data may come before the venue's acknowledgement, and before a reader's own
    configuration names the instrument."""


class Subscribing(Control, tag="subscribing"):
    """These topics are going to be subscribed on a connection that is open already."""

    conn: int
    topics: list[TopicRef]


class Subscribed(Control, tag="subscribed"):
    """The venue acknowledged these topics (or data proved them)."""

    conn: int
    topics: list[TopicRef]


class Rejected(Control, tag="rejected"):
    """The venue refused a topic, or acknowledged a request without it."""

    conn: int
    topics: list[TopicRef]
    reason: str


class Unsubscribed(Control, tag="unsubscribed"):
    conn: int
    topics: list[TopicRef]
    final: bool = False
    """They are wanted no longer: what the venue emits from here on is not missing. Else they come again at once."""


class Disconnected(Control, tag="disconnected"):
    """A connection ended, for whatever reason. From here on its topics are not covered by it."""

    conn: int
    cause: str
    """closed | aborted | silent | error | shutdown | heartbeat | planned."""
    detail: str = ""
    code: int | None = None


class Shed(Control, tag="shed"):
    """Frames were given up (bounds reached). The range is a gap."""

    conn: int
    frames: int
    size: int
    """Bytes."""
    from_ns: int
    to_ns: int


class Alive(Control, tag="alive"):
    """Written when a session had nothing else to say for a while, so that its silence means something."""


class RestFailed(Control, tag="restfailed"):
    """A command's REST request failed for good (after the receiver's own retries)."""

    command: str
    symbol: str
    reason: str
    status: int = 0
    """HTTP status where the venue refused it for what it asks; 0 = it may do another time."""


class Missing(Control, tag="missing"):
    """Trades that PostgreSQL lacks, whether they were emitted or not: it was restored from a backup. Told by a
    processor, which keeps the gap row, in a session of its own."""

    symbol: str
    ranges: list[tuple[int, int]]
    """Numbers, first and last, ascending."""
    from_ns: int
    """Receive times of what is stored before and after them."""
    to_ns: int


class SessionEnd(Control, tag="sessionend"):
    """Nothing of this session follows."""

    cause: str = "shutdown"
    """shutdown: an orderly stop | killed: said by the process that found what it had spilled, which this ends |
    redis_lost: it goes on as another session."""


AnyControl = (
    Session
    | Connected
    | Subscribing
    | Subscribed
    | Rejected
    | Unsubscribed
    | Disconnected
    | Shed
    | Alive
    | RestFailed
    | Missing
    | SessionEnd
)


class RestAnswer(msgspec.Struct, array_like=True):
    """A REST answer in the raw stream (RunKind.REST). The run's time is when the body was complete."""

    command: str
    """Id of the command that asked; empty when the receiver asked by itself (instrument metadata)."""
    kind: str
    """book_snapshot | instruments | trades."""
    symbol: str
    """Canonical symbol; empty for instruments."""
    native: str
    status: int
    sent_ns: int
    body: bytes
    trace: str = ""
    """``traceparent`` of the request, where it is traced. Others are written without this field."""


class Command(msgspec.Struct):
    """Asked by a distributor on ``ShardRef.commands`` (field ``c``, MessagePack)."""

    id: str
    kind: str
    """book_snapshot | trades (REST) | resubscribe (unsubscribe + subscribe of the topic) | instruments."""
    symbol: str
    native: str
    channel: str
    issued_ns: int
    reason: str = ""
    from_id: int = -1
    """Of trades: first and last number that are missing, and the times (ns) of what came before and after them."""
    to_id: int = -1
    from_ns: int = 0
    to_ns: int = 0
    living: list[str] | None = None
    """Issued once more, under the same id: sessions known to live. What any other one claimed, nobody works on."""
    trace: str = ""
    """``traceparent`` of what asks, where it is traced."""


_encoder = msgspec.msgpack.Encoder()
_control: msgspec.msgpack.Decoder[AnyControl] = msgspec.msgpack.Decoder(AnyControl)
_answer = msgspec.msgpack.Decoder(RestAnswer)
_command = msgspec.msgpack.Decoder(Command)


def encode(record: Control | RestAnswer | Command) -> bytes:
    if isinstance(record, RestAnswer) and not record.trace:
        return _encoder.encode(msgspec.structs.astuple(record)[:-1])
    return _encoder.encode(record)


def decode_control(data: bytes) -> AnyControl:
    return decode(_control, data)


def decode_answer(data: bytes) -> RestAnswer:
    return decode(_answer, data)


def decode_command(data: bytes) -> Command:
    return decode(_command, data)
