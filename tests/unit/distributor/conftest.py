"""A venue of our own whose frames are small JSON lists, raw batches made by hand, and an engine that can be restarted.

Importlib mode has no shared modules, so everything is reached through the fixture ``kit``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from feedmill.distributor import checkpoint
from feedmill.distributor.books import BookSettings
from feedmill.distributor.engine import Engine
from feedmill.distributor.output import Taken
from feedmill.distributor.settings import DistributorSettings
from feedmill.exchanges.base import Arbitration, BookUpdate, ChannelName, MapError, Mapper, VenueEvent
from feedmill.exchanges.binance_spot.mapper import SpotBook
from feedmill.exchanges.binance_usdm.mapper import UsdmBook
from feedmill.exchanges.deribit.mapper import DeribitBook
from feedmill.shared import control
from feedmill.shared.control import TopicRef
from feedmill.shared.events import (
    Candle,
    DeltaBlock,
    EventBlock,
    Instrument,
    Ticker,
    Trade,
    decode_deltas,
    decode_events,
)
from feedmill.shared.frames import RawBatch, Run, RunKind, encode_batch
from feedmill.shared.keys import ShardRef

SECOND = 1_000_000_000
T0 = 1_750_000_000 * SECOND
SYMBOL = "BTC-USDT"
SHARD = ShardRef("test", "toy", 0)
RULES = {"dense": SpotBook(), "pu": UsdmBook(), "inband": DeribitBook()}
RAISES = {
    "map": MapError("bad_field", "x"),
    "value": ValueError("v"),
    "type": TypeError("t"),
    "zero": ZeroDivisionError(),
}


class ToyMapper(Mapper):
    """``["t", symbol, id, exchange ns]`` and so on; anything else raises as a careless mapper would."""

    def map(self, payload: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        return [self._one(item, receive_ns) for item in msgspec.json.decode(payload)]

    def _one(self, item: list[Any], receive_ns: int) -> VenueEvent:
        kind, *x = item
        if kind == "t":
            return Trade(x[0], x[1], "10.5", "1", 1, x[2], receive_ns)
        if kind == "q":
            return Ticker(x[0], x[1], "1", "1", "2", "1", x[2], receive_ns)
        if kind == "c":
            return Candle(x[0], x[1], x[2], "1", "1", "1", x[3], "1", "", -1, -1, -1, x[4], x[5], receive_ns)
        if kind == "b":
            bids, asks = ([(p, s) for p, s in levels] for levels in (x[6], x[7]))
            return BookUpdate(x[0], x[1], x[2], x[3], x[4], x[5], receive_ns, bids, asks)
        if kind == "i":
            return Instrument(x[0], x[0], "Spot", "", "", "", "open", "", "", "", 0, "", "", receive_ns)
        raise RAISES[kind]

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[VenueEvent]:
        if status != 200:
            raise MapError("rest_status", str(status))
        return self.map(body, receive_ns)


def frame(*items: Sequence[Any]) -> bytes:
    return msgspec.json.encode(list(items))


def trade(number: int, at: int = T0, symbol: str = SYMBOL) -> bytes:
    return frame(["t", symbol, number, at])


def ticker(seq: int, at: int = 0, symbol: str = SYMBOL) -> bytes:
    return frame(["q", symbol, seq, at])


def candle(open_ns: int, close: str, *, closed: bool = False, at: int = 0, interval: str = "1m") -> bytes:
    return frame(["c", SYMBOL, interval, open_ns, close, closed, at])


def topic(channel: str, symbol: str = SYMBOL, name: str = "") -> TopicRef:
    return TopicRef(symbol, symbol.replace("-", ""), channel, name or f"{symbol}@{channel}")


class Feeder:
    """One receiver session that makes batches."""

    def __init__(self, session: str = "r0-000000000001aaaaaa", *, started_ns: int = 1) -> None:
        self.session = session
        self.replica = session.rpartition("-")[0]
        self.started_ns = started_ns
        self.n = 0

    def batch(self, *runs: Run, skip: int = 0) -> bytes:
        self.n += 1 + skip
        return encode_batch(RawBatch(1, self.session, self.n, list(runs)))

    def frames(self, at: int, *payloads: bytes, conn: int = 1) -> bytes:
        return self.batch(self.run(at, *payloads, conn=conn))

    @staticmethod
    def run(at: int, *payloads: bytes, conn: int = 1, kind: int = RunKind.FRAMES) -> Run:
        return Run(int(kind), conn, [at] * len(payloads), list(payloads))

    def control(self, at: int, *records: control.Control, conn: int = 1) -> bytes:
        return self.batch(self.run(at, *map(control.encode, records), conn=conn, kind=RunKind.CONTROL))

    def begin(self, at: int = T0, *, lost: str | None = None) -> control.Session:
        return control.Session(self.session, self.replica, "1", self.started_ns, lost)

    def open(self, at: int, *topics: TopicRef, conn: int = 1, first: bool = True) -> bytes:
        """Session (when first), Connected, Subscribed."""
        records: list[control.Control] = [self.begin(at)] if first else []
        records += [control.Connected(conn, "stream"), control.Subscribed(conn, list(topics))]
        return self.control(at, *records, conn=conn)

    def close(self, at: int, cause: str = "closed", conn: int = 1) -> bytes:
        return self.control(at, control.Disconnected(conn, cause), conn=conn)

    def answer(
        self,
        at: int,
        body: bytes,
        *,
        command: str = "",
        kind: str = "book_snapshot",
        status: int = 200,
        symbol: str = SYMBOL,
    ) -> bytes:
        record = control.RestAnswer(command, kind, symbol, symbol, status, at, body)
        return self.batch(self.run(at, control.encode(record), conn=0, kind=RunKind.REST))


@dataclass
class Emitted:
    """All events of all commits, in order."""

    events: EventBlock = field(default_factory=EventBlock)
    deltas: DeltaBlock = field(default_factory=DeltaBlock)
    commands: list[control.Command] = field(default_factory=list)

    def add(self, taken: Taken) -> None:
        if taken.events:
            block = decode_events(taken.events)
            for name in block.__struct_fields__[1:]:
                getattr(self.events, name).extend(getattr(block, name))
        if taken.deltas:
            self.deltas.deltas.extend(decode_deltas(taken.deltas).deltas)
        self.commands += [control.decode_command(each) for each in taken.commands]

    def rows(self) -> dict[str, Any]:
        """The last revision of each gap row."""
        rows: dict[str, Any] = {}
        for gap in self.events.gaps:
            if gap.id not in rows or rows[gap.id].revision < gap.revision:
                rows[gap.id] = gap
        return rows

    @property
    def trades(self) -> list[int]:
        return [event.id for event in self.events.trades]

    @property
    def tickers(self) -> list[int]:
        return [event.seq for event in self.events.tickers]


NATIVES = {f"{base}-USDT": f"{base}USDT" for base in ("BTC", "ETH", "SOL", "XRP")}


def settings_of(rules: str = "dense", **more: Any) -> DistributorSettings:
    primary = rules == "inband"
    arbitration = {
        ChannelName.TRADES: Arbitration.CONTIGUOUS,
        ChannelName.TICKER: Arbitration.PRIMARY if primary else Arbitration.MONOTONIC,
        ChannelName.BOOK: Arbitration.PRIMARY,
        ChannelName.CANDLES: Arbitration.PRIMARY,
    }
    slot = more.pop("slot_ns", SECOND)
    depth = more.pop("depth", 20)
    books = BookSettings(str(SHARD), RULES[rules], depth, slot)
    natives = more.pop("natives", NATIVES)
    return DistributorSettings(SHARD, "toy", "Spot", natives, books, arbitration, **more)


class Host:
    """An engine, the stored checkpoint and the raw stream. Commits are made by hand; restarts read them back."""

    def __init__(self, settings: DistributorSettings | None = None, mapper: Callable[[], Mapper] | None = None) -> None:
        self.settings = settings or settings_of()
        self._mapper = mapper or (lambda: ToyMapper({}))
        self.fields: dict[bytes, bytes] = {}
        self.images: dict[str, bytes] = {}
        self.raw: list[tuple[str, bytes]] = []
        self.out = Emitted()
        self.takes: list[Taken] = []
        self.now = T0
        self.engine = self._start()

    def _start(self) -> Engine:
        engine = Engine(self.settings, self._mapper(), checkpoint.load(self.fields), self.images)
        begin = checkpoint_id(engine.replay_from())
        for stream_id, payload in self.raw:
            if begin < checkpoint_id(stream_id) <= checkpoint_id(engine.pos):
                engine.replay(stream_id, payload)
        return engine

    def feed(self, *payloads: bytes | None) -> Host:
        for payload in payloads:
            stream_id = f"{len(self.raw) + 1}-0"
            self.raw.append((stream_id, payload or b""))
            self.engine.entry(stream_id, payload, self.now, self.now / 1e9)
        return self

    def tick(self, seconds: float = 0.0, *, idle: bool = True, all_read: bool = False) -> Host:
        self.now += int(seconds * SECOND)
        self.engine.tick(self.now, self.now / 1e9, idle=idle, all_read=all_read)
        return self

    def commit(self) -> Emitted:
        if not self.engine.moved:
            return self.out
        taken = self.engine.take()
        self.takes.append(taken)
        fields = {name.encode(): value for name, value in taken.fields.items()}
        if taken.en:
            self.engine.eid = f"e{taken.en}"
            fields |= {b"en": str(taken.en).encode(), b"eid": self.engine.eid.encode()}
        self.fields |= fields | {b"pos": taken.pos.encode(), b"id": b"i"}
        for name in taken.deleted:
            self.fields.pop(name.encode(), None)
        self.images |= taken.images
        self.out.add(taken)
        return self.out

    def restart(self) -> Host:
        """Everything in memory is lost; what was not committed is read again."""
        self.engine = self._start()
        for stream_id, payload in self.raw:
            if checkpoint_id(stream_id) > checkpoint_id(self.engine.pos):
                self.engine.entry(stream_id, payload, self.now, self.now / 1e9)
        return self

    def trim(self) -> None:
        """As the commit's floor allows."""
        floor = checkpoint_id(next((t.floor for t in reversed(self.takes) if t.floor), "0-0"))
        self.raw = [(i, p if checkpoint_id(i) >= floor else b"") for i, p in self.raw]


def checkpoint_id(stream_id: str) -> tuple[int, int]:
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number)


def missing_of(rows: Iterable[Any]) -> set[int]:
    return {number for gap in rows for low, high in gap.missing for number in range(low, high + 1)}


class Kit:
    """What tests use."""

    T0, SECOND, SYMBOL, SHARD, RULES = T0, SECOND, SYMBOL, SHARD, RULES
    Host, Feeder, ToyMapper, Emitted = Host, Feeder, ToyMapper, Emitted
    frame, trade, ticker, candle, topic = (staticmethod(f) for f in (frame, trade, ticker, candle, topic))
    settings_of, missing_of = staticmethod(settings_of), staticmethod(missing_of)


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()
