"""Entries that are traced, and those that are not: the same on the wire as before there were traces."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.shared import account_events, events, frames, traceparent
from feedmill.shared.account_events import AccountBlock
from feedmill.shared.control import RestAnswer, decode_answer, encode
from feedmill.shared.events import EventBlock, Trade
from feedmill.shared.frames import RawBatch, Run
from feedmill.shared.traceparent import TraceRef

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RUN = Run(0, 1, [5, 6], [b"{}", b"x"])
TRADE = Trade("A-B", 1, "1", "2", 1, 3, 4)


class BatchBefore(msgspec.Struct, array_like=True):
    """As version 0.1.0 reads it."""

    version: int
    session: str
    n: int
    runs: list[Run]


def test_what_is_not_traced_is_written_as_before_there_were_traces() -> None:
    assert frames.encode_batch(RawBatch(1, "s", 7, [RUN])) == msgspec.msgpack.encode([1, "s", 7, [RUN]])
    assert events.encode(EventBlock(trades=[TRADE])) == msgspec.msgpack.encode([1, [TRADE], *[[]] * 6])
    answer = RestAnswer("c", "trades", "A-B", "AB", 200, 5, b"[]")
    assert encode(answer) == msgspec.msgpack.encode(["c", "trades", "A-B", "AB", 200, 5, b"[]"])
    assert account_events.encode_account(AccountBlock(account="a/b")) == msgspec.msgpack.encode([1, "a/b", *[[]] * 8])


def test_what_was_written_before_there_were_traces_has_none() -> None:
    assert frames.decode_batch(msgspec.msgpack.encode([1, "s", 7, [RUN]])) == RawBatch(1, "s", 7, [RUN])
    assert events.decode_events(msgspec.msgpack.encode([1, [TRADE], *[[]] * 6])).traces == []
    assert decode_answer(msgspec.msgpack.encode(["c", "trades", "A-B", "AB", 200, 5, b"[]"])).trace == ""


def test_a_reader_of_before_passes_over_the_trace() -> None:
    batch = RawBatch(1, "s", 7, [RUN], PARENT)
    found = msgspec.msgpack.decode(frames.encode_batch(batch), type=BatchBefore)
    assert (found.session, found.n, found.runs) == ("s", 7, [RUN])


def test_traces_come_back_as_they_were_written() -> None:
    batch = RawBatch(1, "s", 7, [RUN], PARENT)
    assert frames.decode_batch(frames.encode_batch(batch)) == batch
    refs = [TraceRef(PARENT, 3, 4), TraceRef(PARENT)]
    block = EventBlock(trades=[TRADE], traces=refs)
    assert events.decode_events(events.encode(block)) == block
    account = AccountBlock(account="a/b", traces=refs)
    assert account_events.decode_account(account_events.encode_account(account)) == account
    answer = RestAnswer("c", "trades", "A-B", "AB", 200, 5, b"[]", PARENT)
    assert decode_answer(encode(answer)) == answer


def test_a_trace_is_no_event() -> None:
    assert len(EventBlock(traces=[TraceRef(PARENT)])) == 0
    assert len(AccountBlock(traces=[TraceRef(PARENT)])) == 0


def test_a_traceparent_is_taken_apart_and_put_together() -> None:
    found = traceparent.split(PARENT)
    assert found == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert traceparent.join(*found) == PARENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT + "0",
        PARENT.upper(),
        "01" + PARENT[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_anything_else_is_no_traceparent(text: str) -> None:
    assert traceparent.split(text) is None


@given(st.text(max_size=60))
def test_no_text_is_an_error(text: str) -> None:
    assert traceparent.split(text) is None


def test_people_look_for_the_trace_id() -> None:
    assert traceparent.trace_id(PARENT) == "0af7651916cd43dd8448eb211c80319c"
    assert traceparent.trace_id("something else") == ""
