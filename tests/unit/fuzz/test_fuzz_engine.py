"""Damaged frames, answers and records through the distributor's engine with each venue's real mapper.

Whatever comes, nothing is raised, each frame ends as events, as a dead letter or as a message known to carry none, what
follows it is handled as if it had not been there, and the commit can be encoded, read and loaded again.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.distributor import checkpoint
from feedmill.distributor.books import BookSettings
from feedmill.distributor.engine import Engine
from feedmill.distributor.output import Taken
from feedmill.distributor.settings import DistributorSettings
from feedmill.exchanges.base import FrameKind
from feedmill.processor.batch import Batch
from feedmill.processor.rows import Windows
from feedmill.shared import control
from feedmill.shared.control import TopicRef
from feedmill.shared.events import Trade, decode_deltas, decode_events
from feedmill.shared.frames import RawBatch, Run, RunKind, encode_batch
from feedmill.shared.keys import ShardRef

from .damage import DEEP, damaged
from .seeds import OWN, RECORDED, Seeds

SHARD = ShardRef("test", "fuzz", 0)
SECOND = 1_000_000_000
T0 = 1_750_000_000 * SECOND
CHANNELS = ("Trades", "Ticker", "Book", "Candles")
SLOW = 1.0
"""Seconds of CPU that no frame of a megabyte may take: an ordinary one takes some microseconds."""
NOTHING = re.compile(rb'serverShutdown|"heartbeat"|"data"\s*:\s*\[\s*\]|"(result|error|code)"\s*:')
"""A notice or heartbeat, a notification about no trades, or an answer, however wrong."""
SESSION = "r0-000000000001aaaaaa"
venues = pytest.mark.parametrize("venue", OWN)


@pytest.fixture(scope="module", autouse=True)
def what_others_left_is_not_looked_through() -> Iterator[None]:
    """A collection over all that thousands of tests before have in memory takes up to a second of CPU: no frame's."""
    gc.freeze()
    yield
    gc.unfreeze()


class Host:
    """An engine that has begun: a session, a connection, all topics subscribed."""

    def __init__(self, seeds: Seeds) -> None:
        self.seeds = seeds
        venue = seeds.venue
        books = BookSettings(str(SHARD), venue.book_rules, 20, SECOND)
        natives = {symbol: native for native, symbol in seeds.natives.items()}
        settings_ = DistributorSettings(
            SHARD, "x", "y", natives, books, venue.arbitration, trades_page=venue.trades_page, image_interval=0.0
        )
        self.settings = settings_
        self.fields: dict[bytes, bytes] = {}
        self.images: dict[str, bytes] = {}
        self.number = 0
        self.now = T0
        self.engine = self.load()
        topics = [TopicRef(symbol, native, channel, native + channel, "1m" if channel == "Candles" else "")
                  for native, symbol in seeds.natives.items() for channel in CHANNELS]  # fmt: skip
        self.records(
            control.Session(SESSION, "r0", "1", 1), control.Connected(1, "stream", topics),
            control.Subscribed(1, topics),
        )  # fmt: skip

    def load(self) -> Engine:
        mapper = self.seeds.venue.mapper(self.seeds.natives)
        return Engine(self.settings, mapper, checkpoint.load(self.fields), self.images)

    def batch(self, *runs: Run) -> None:
        self.number += 1
        self.entry(encode_batch(RawBatch(1, SESSION, self.number, list(runs))))

    def entry(self, payload: bytes) -> None:
        self.now += SECOND // 2
        self.engine.entry(f"{self.now // 1_000_000}-{self.number}", payload, self.now, self.now / SECOND)

    def run(self, kind: RunKind, payloads: list[bytes], conn: int = 1) -> Run:
        return Run(int(kind), conn, [self.now] * len(payloads), payloads)

    def records(self, *records: control.Control) -> None:
        self.batch(self.run(RunKind.CONTROL, [control.encode(record) for record in records]))

    def frames(self, payloads: list[bytes]) -> None:
        self.batch(self.run(RunKind.FRAMES, payloads))

    def commit(self) -> Taken:
        """As the dispatcher does: time passes, everything is encoded; what was stored is read again elsewhere."""
        self.now += 5 * SECOND
        self.engine.tick(self.now, self.now / SECOND, idle=True)
        taken = self.engine.take()
        self.fields |= {name.encode(): value for name, value in taken.fields.items()}
        self.fields |= {b"pos": taken.pos.encode(), b"id": b"x", b"en": str(self.engine.en).encode()}
        for name in taken.deleted:
            self.fields.pop(name.encode(), None)
        self.images |= taken.images
        for command in taken.commands:
            control.decode_command(command)
        if taken.deltas:
            decode_deltas(taken.deltas)
        if taken.events:
            block = decode_events(taken.events)
            ids = {symbol: number for number, symbol in enumerate(self.settings.natives)}
            batch = Batch()
            everything = (0, 2**63)
            windows = Windows(everything, everything, everything)
            assert batch.rows.add_block((1, "x"), block, ids, windows, batch.deferred) == len(block)
        return taken

    def letters(self) -> list[Any]:
        return list(self.engine.out.events.dead_letters)

    def assert_goes_on(self) -> None:
        """A frame of an untouched instrument is emitted, and so it is by an engine that loads what was stored."""
        before = len(self.letters())
        self.frames([self.seeds.good])
        (good,) = self.seeds.venue.mapper(self.seeds.natives).map(self.seeds.good, 0)
        assert isinstance(good, Trade)
        assert good.id in [trade.id for trade in self.engine.out.events.trades if trade.symbol == good.symbol]
        assert len(self.letters()) == before
        self.commit()
        self.engine = self.load()
        self.frames([self.seeds.good])
        assert not [trade for trade in self.engine.out.events.trades if trade.symbol == good.symbol]
        self.commit()


def outcome(seeds: Seeds, frame: bytes) -> str:
    """events | nothing | refused, by the mapper alone."""
    try:
        frame.decode()
        return "events" if list(seeds.venue.mapper(seeds.natives).map(frame, 5)) else "nothing"
    except Exception:
        return "refused"


@venues
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_frames_end_as_events_or_dead_letters(venue: str, data: st.DataObject) -> None:
    seeds = RECORDED[venue]
    host = Host(seeds)
    feed = seeds.venue.feed("wss://h")
    chosen = data.draw(st.lists(st.sampled_from(seeds.frames), min_size=1, max_size=4))
    frames = [data.draw(damaged(frame)) for frame in chosen]
    began = time.thread_time()
    host.frames(frames)
    assert time.thread_time() - began < SLOW * len(frames)
    letters = {letter.index: letter for letter in host.letters()}
    for index, frame in enumerate(frames):
        found = outcome(seeds, frame)
        if found == "refused":
            assert letters[index].payload == frame
            assert letters[index].reason
        elif found == "nothing":
            assert index not in letters
            assert feed.classify(frame).kind is not FrameKind.DATA or NOTHING.search(frame)
        elif index in letters:
            # Mapped, but the state could not take it: a book's levels are looked into there.
            assert letters[index].payload == frame
    host.commit()
    host.assert_goes_on()


@venues
@settings(max_examples=50)
@given(data=st.data())
def test_damaged_answers_end_as_events_or_dead_letters(venue: str, data: st.DataObject) -> None:
    seeds = OWN[venue]
    host = Host(seeds)
    kind, body = data.draw(st.sampled_from(seeds.answers))
    native = next(iter(seeds.natives))
    symbol = data.draw(st.sampled_from([seeds.natives[native], "NO-SUCH", ""]))
    status = data.draw(st.sampled_from([200, 200, 200, 400, 0]))
    record = control.RestAnswer("c", kind, symbol, native, status, T0, data.draw(damaged(body)))
    began = time.thread_time()
    host.batch(host.run(RunKind.REST, [control.encode(record)], 0), host.run(RunKind.FRAMES, list(seeds.frames[:5])))
    assert time.thread_time() - began < SLOW
    host.commit()
    host.assert_goes_on()


@venues
@settings(max_examples=50)
@given(data=st.data())
def test_books_go_on_beside_damaged_changes(venue: str, data: st.DataObject) -> None:
    seeds = OWN[venue]
    """Snapshots and changes in any order and state, through images, restarts and resyncs."""
    host = Host(seeds)
    native, symbol = next(iter(seeds.natives.items()))
    changes = [frame for frame in seeds.frames if b"depthUpdate" in frame or b'"book.' in frame]
    bodies = [body for kind, body in seeds.answers if kind == "book_snapshot"]
    for _ in range(data.draw(st.integers(1, 5))):
        what = data.draw(st.sampled_from(["change", "change", "snapshot", "commit", "restart", "lost"]))
        if what == "change":
            frame = data.draw(st.sampled_from(changes))
            host.frames([data.draw(damaged(frame)) if data.draw(st.booleans()) else frame])
        elif what == "snapshot":
            body = data.draw(st.sampled_from(bodies))
            body = data.draw(damaged(body)) if data.draw(st.booleans()) else body
            answer = control.RestAnswer("", "book_snapshot", symbol, native, 200, T0, body)
            host.batch(host.run(RunKind.REST, [control.encode(answer)], 0))
        elif what == "lost":
            host.records(control.Disconnected(1, "closed"))
        else:
            host.commit()
            if what == "restart":
                host.engine = host.load()
    host.commit()
    host.assert_goes_on()


texts = st.sampled_from(["", "BTC-USDT", "BTCUSDT", "Trades", "Book", "Ticker", "Candles", "x", "\x00", "r0", SESSION])
numbers = st.sampled_from([0, 1, -1, 2, 2**31, 2**63 - 1, -(2**63), 2**64 - 1])
topics = st.lists(st.builds(TopicRef, texts, texts, texts, texts, texts), max_size=3)
RECORDS = st.one_of(
    st.builds(control.Session, texts, texts, texts, numbers, st.none() | texts),
    st.builds(control.Connected, numbers, texts, topics),
    st.builds(control.Subscribing, numbers, topics),
    st.builds(control.Subscribed, numbers, topics),
    st.builds(control.Rejected, numbers, topics, texts),
    st.builds(control.Unsubscribed, numbers, topics, st.booleans()),
    st.builds(control.Disconnected, numbers, texts, texts, st.none() | numbers),
    st.builds(control.Shed, numbers, numbers, numbers, numbers, numbers),
    st.builds(control.Alive),
    st.builds(control.RestFailed, texts, texts, texts, numbers),
    st.builds(control.Missing, texts, st.lists(st.tuples(numbers, numbers), max_size=3), numbers, numbers),
    st.builds(control.SessionEnd, texts),
)


@venues
@settings(max_examples=50)
@given(records=st.lists(RECORDS, max_size=8), data=st.data())
def test_control_records_that_make_no_sense(venue: str, records: list[control.Control], data: st.DataObject) -> None:
    seeds = OWN[venue]
    host = Host(seeds)
    for record in records:
        payload = control.encode(record)
        if data.draw(st.integers(0, 4)) == 0:
            at = data.draw(st.integers(0, len(payload)))
            payload = payload[:at] + data.draw(st.binary(max_size=4)) + payload[at + 1 :]
        host.batch(host.run(RunKind.CONTROL, [payload], data.draw(st.sampled_from([0, 1, 2]))))
        host.frames(list(seeds.frames[:6]))
        if data.draw(st.booleans()):
            host.commit()
    host.commit()
    host.assert_goes_on()


@settings(max_examples=100)
@given(data=st.data())
def test_entries_of_any_bytes(data: st.DataObject) -> None:
    seeds = OWN["binance/Spot"]
    host = Host(seeds)
    run = host.run(RunKind.FRAMES, list(seeds.frames[:2]))
    session = data.draw(texts.filter(lambda name: name != SESSION))
    runs = [run, Run(data.draw(numbers), data.draw(numbers), [data.draw(numbers)], [b"x"])]
    batch = encode_batch(RawBatch(1, session, data.draw(numbers), runs))
    damaged_batch = bytearray(batch)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(damaged_batch)))
        damaged_batch[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    host.entry(bytes(damaged_batch))
    host.commit()
    host.assert_goes_on()


BIG = 1 << 20
HUGE = {
    "deep": DEEP * 150,
    "deep objects": b'{"a":' * 200_000,
    "nested": b'{"stream":"x","data":' * 40_000 + b"1" + b"}" * 40_000,
    "digits": b'{"stream":"btcusdt@trade","data":{"e":"trade","t":' + b"9" * BIG + b"}}",
    "long text": b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"' + b"x" * BIG + b'"}}',
    "escapes": b'{"stream":"' + b"\\u0041" * (BIG // 6) + b'","data":{}}',
    "keys": b'{"stream":"a","data":{' + b'"s":1,' * (BIG // 6) + b'"e":"trade"}}',
    "levels": b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":['
    + b'["1","1"],' * (BIG // 10) + b'["1","1"]],"a":[]}}',
    "commas": b'{"stream":"a","data":[' + b"," * BIG + b"]}",
    "spaces": b'{"stream":"a","data":' + b" " * BIG + b"1}",
    "exponent": b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC-PERPETUAL","data":'
    b'{"timestamp":1,"instrument_name":"BTC-PERPETUAL","best_bid_price":1e999999999,"best_bid_amount":1,'
    b'"best_ask_price":1,"best_ask_amount":1}}}',
    "long number": b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC-PERPETUAL","data":'
    b'{"timestamp":1,"instrument_name":"BTC-PERPETUAL","best_bid_price":1' + b"0" * BIG + b'e-5,"best_bid_amount":1,'
    b'"best_ask_price":1,"best_ask_amount":1}}}',
    "bad text": b'{"stream":"a","data":"' + b"\xff" * BIG + b'"}',
}  # fmt: skip


@venues
@pytest.mark.parametrize("kind", HUGE)
def test_frames_of_a_megabyte_take_no_time(venue: str, kind: str) -> None:
    host = Host(OWN[venue])
    began = time.thread_time()
    host.frames([HUGE[kind]])
    assert time.thread_time() - began < SLOW
    host.commit()
    host.assert_goes_on()


@venues
@pytest.mark.parametrize("kind", HUGE)
def test_the_receiver_judges_frames_of_a_megabyte_without_raising(venue: str, kind: str) -> None:
    began = time.thread_time()
    OWN[venue].venue.feed("wss://h").classify(HUGE[kind])
    assert time.thread_time() - began < SLOW
