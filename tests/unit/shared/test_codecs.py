"""The wire formats: what goes in comes out, and what another version wrote is refused with the remedy."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.shared import control, events, frames
from feedmill.shared.frames import RawBatch, Run, RunKind

int64 = st.integers(-(2**63), 2**63 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=8).map(str)


texts = decimals | st.text(max_size=8)
topics = st.builds(control.TopicRef, texts, texts, texts, texts)
FORMS: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    str | None: st.none() | texts,
    int: int64,
    int | None: st.none() | int64,
    bool: st.booleans(),
    list[str] | None: st.none() | st.lists(texts, max_size=2),
    bytes: st.binary(max_size=32),
    list[control.TopicRef]: st.lists(topics, max_size=2),
    list[events.Level]: st.lists(st.tuples(decimals, decimals), max_size=2),
    list[tuple[int, int]]: st.lists(st.tuples(int64, int64), max_size=2),
}


def fields_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Instances of a struct with any content its field types allow."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: FORMS[hints[name]] for name in kind.__struct_fields__})


CONTROLS = [
    control.Session, control.Connected, control.Subscribed, control.Rejected, control.Unsubscribed,
    control.Disconnected, control.Shed, control.Alive, control.RestFailed, control.Missing,
    control.SessionEnd,
]  # fmt: skip
EVENTS = [
    events.Trade, events.Ticker, events.BookSnapshot, events.Candle, events.Gap, events.DeadLetter, events.Instrument,
]  # fmt: skip


@given(data=st.data())
def test_batches(data: st.DataObject) -> None:
    runs = [
        Run(kind, conn, times, [data.draw(st.binary(max_size=200)) for _ in times])
        for kind, conn, times in data.draw(
            st.lists(
                st.tuples(st.sampled_from(RunKind), st.integers(0, 2**31), st.lists(int64, max_size=5)), max_size=5
            )
        )
    ]
    batch = RawBatch(frames.VERSION, data.draw(st.text(max_size=40)), data.draw(st.integers(1, 2**53)), runs)
    assert frames.decode_batch(frames.encode_batch(batch)) == batch


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.__name__)
def test_control_records(kind: type[Any]) -> None:
    @settings(max_examples=30)
    @given(fields_of(kind))
    def check(record: Any) -> None:
        found = control.decode_control(control.encode(record))
        assert found == record
        assert type(found) is kind

    check()


@given(fields_of(control.RestAnswer), fields_of(control.Command))
def test_answers_and_commands(answer: control.RestAnswer, command: control.Command) -> None:
    assert control.decode_answer(control.encode(answer)) == answer
    assert control.decode_command(control.encode(command)) == command


@settings(max_examples=50)
@given(st.tuples(*(st.lists(fields_of(kind), max_size=2) for kind in EVENTS)))
def test_events(lists: tuple[list[Any], ...]) -> None:
    block = events.EventBlock(events.VERSION, *lists)
    found = events.decode_events(events.encode(block))
    assert found == block
    assert len(found) == sum(map(len, lists))


@given(st.lists(fields_of(events.BookDelta), max_size=5))
def test_deltas(deltas: list[events.BookDelta]) -> None:
    block = events.DeltaBlock(events.VERSION, deltas)
    assert events.decode_deltas(events.encode(block)) == block


def test_another_version_is_refused_with_the_remedy() -> None:
    batch = frames.encode_batch(RawBatch(frames.VERSION + 1, "s", 1, []))
    with pytest.raises(ValueError, match="raw batch has version 2, this code reads 1: upgrade the distributor"):
        frames.decode_batch(batch)
    for block, decode in (
        (events.EventBlock(version=2), events.decode_events),
        (events.DeltaBlock(version=2), events.decode_deltas),
    ):
        with pytest.raises(ValueError, match="event block has version 2, this code reads 1: upgrade the reader"):
            decode(events.encode(block))


@given(st.binary(max_size=100))
def test_junk_is_an_error_of_two_kinds_only(junk: bytes) -> None:
    for decode in (
        frames.decode_batch, control.decode_control, control.decode_answer, control.decode_command,
        events.decode_events, events.decode_deltas,
    ):  # fmt: skip
        try:
            decode(junk)
        except (msgspec.DecodeError, ValueError):
            continue


def test_fields_added_at_the_end_by_a_newer_writer_of_the_same_version_are_passed_over() -> None:
    """array_like structs may grow at the end: an older reader must not fail on it (services N-1 and N run together)."""
    row = ["BTC-USDT", 1, "1.0", "2.0", 1, 10, 11, 0, 0, 0, "", "something new"]
    encoded = msgspec.msgpack.encode([events.VERSION, [row], [], [], [], [], [], [], [], "new list"])
    trade = events.decode_events(encoded).trades[0]
    assert (trade.symbol, trade.price, trade.receive_ns) == ("BTC-USDT", "1.0", 11)
    # ... and an older writer may leave out what has a default.
    short = msgspec.msgpack.encode([events.VERSION, [row[:7]]])
    assert events.decode_events(short).trades[0].venue_id == ""


def test_money_keeps_its_digits() -> None:
    trade = events.Trade("BTC-USDT", 1, "0.10000000", "1000000000000.00000001", events.Side.BUY, 1, 2)
    found = events.decode_events(events.encode(events.EventBlock(trades=[trade]))).trades[0]
    assert (found.price, found.size) == ("0.10000000", "1000000000000.00000001")


DEEP = b"\x91" * 100_000 + b"\x01"
DECODERS: dict[str, tuple[Any, Any]] = {
    "batch": (
        frames.decode_batch,
        frames.encode_batch(RawBatch(1, "s", 7, [Run(0, 1, [5, 6], [b"{}", b"x"]), Run(1, 2, [7], [b"\x80"])])),
    ),
    "control": (
        control.decode_control,
        control.encode(control.Connected(1, "stream", [control.TopicRef("A-B", "AB", "Trades", "ab@trade")])),
    ),
    "answer": (
        control.decode_answer,
        control.encode(control.RestAnswer("c", "trades", "A-B", "AB", 200, 5, b"[]")),
    ),
    "command": (control.decode_command, control.encode(control.Command("i", "trades", "A-B", "AB", "Trades", 1))),
    "events": (
        events.decode_events,
        events.encode(
            events.EventBlock(
                trades=[events.Trade("A-B", 1, "1", "2", 1, 3, 4)],
                gaps=[events.Gap("g", "A-B", "Trades", "sequence", "open", 1, 2, [(1, 2)], 3, 4, "", 1, 5)],
                dead_letters=[events.DeadLetter("s", 1, 2, 3, 4, "r", "d", "v", b"x")],
            )
        ),
    ),
    "deltas": (
        events.decode_deltas,
        events.encode(events.DeltaBlock(deltas=[events.BookDelta("A", True, 1, 2, 3, 4, 5, [("1", "2")], [])])),
    ),
}


@pytest.mark.parametrize("what", DECODERS)
@given(data=st.data())
def test_damaged_records_are_read_or_an_error_of_two_kinds(what: str, data: st.DataObject) -> None:
    decode, whole = DECODERS[what]
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))
        if data.draw(st.integers(0, 9)) == 0:
            del damaged[at:]
    try:
        found = decode(bytes(damaged))
    except (msgspec.DecodeError, ValueError):
        return
    assert type(found) in (
        RawBatch, control.RestAnswer, control.Command, events.EventBlock, events.DeltaBlock, *CONTROLS,
        control.Subscribing,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (frames.decode_batch, b"\x96\x01\xa1s\x01\x90\xa0" + DEEP),
        (control.decode_control, b"\x82\xa4type\xa5alive\xa1x" + DEEP),
        (control.decode_answer, b"\x99\xa1c\xa1k\xa1s\xa1n\xcc\xc8\x01\xc4\x00\xa0" + DEEP),
        (control.decode_command, b"\x81\xa1x" + DEEP),
        (events.decode_events, b"\x9a\x01" + b"\x90" * 8 + DEEP),
        (events.decode_deltas, b"\x93\x01\x90" + DEEP),
    ],
)
def test_an_unknown_field_without_end_is_no_record(decode: Any, payload: bytes) -> None:
    with pytest.raises(ValueError, match="nested deeper than any record is"):
        decode(payload)
