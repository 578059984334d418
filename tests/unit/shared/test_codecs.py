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
    control.Disconnected, control.Shed, control.Alive, control.RestFailed, control.SessionEnd,
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
    encoded = msgspec.msgpack.encode([events.VERSION, [row], [], [], [], [], [], [], "new list"])
    trade = events.decode_events(encoded).trades[0]
    assert (trade.symbol, trade.price, trade.receive_ns) == ("BTC-USDT", "1.0", 11)
    # ... and an older writer may leave out what has a default.
    short = msgspec.msgpack.encode([events.VERSION, [row[:7]]])
    assert events.decode_events(short).trades[0].venue_id == ""


def test_money_keeps_its_digits() -> None:
    trade = events.Trade("BTC-USDT", 1, "0.10000000", "1000000000000.00000001", events.Side.BUY, 1, 2)
    found = events.decode_events(events.encode(events.EventBlock(trades=[trade]))).trades[0]
    assert (found.price, found.size) == ("0.10000000", "1000000000000.00000001")
