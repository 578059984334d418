"""Lines that repeat: which are written, and that none is lost without being counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.shared import log_repeats
from feedmill.shared.log_repeats import ALIKE, ALIKE_EVERY, OF_EVENT, REMEMBERED, Repeats, key_of


def line(event: str = "down", **fields: Any) -> dict[str, Any]:
    return {"event": event, **fields}


def admitted(repeats: Repeats, count: int, now: float = 0.0, **fields: Any) -> list[int | None]:
    return [repeats.admit("warning", line(**fields), now) for _ in range(count)]


def test_a_few_at_once_then_one_in_a_while() -> None:
    repeats = Repeats()
    assert admitted(repeats, ALIKE + 3) == [0] * ALIKE + [None] * 3
    assert repeats.admit("warning", line(), ALIKE_EVERY - 1) is None
    # The next one tells of those that were left out.
    assert repeats.admit("warning", line(), ALIKE_EVERY) == 4
    assert not repeats.waiting


def test_the_last_of_what_ended_is_told_too() -> None:
    repeats = Repeats()
    for number in range(ALIKE + 3):
        repeats.admit("warning", line(number=number), 0.0)
    assert repeats.due(ALIKE_EVERY - 1) == []
    assert repeats.due(ALIKE_EVERY) == [line(number=ALIKE + 2, repeated=2)]
    assert repeats.due(10 * ALIKE_EVERY) == []
    assert not repeats.waiting


def test_one_that_was_left_out_stands_for_itself_alone() -> None:
    repeats = Repeats()
    admitted(repeats, ALIKE + 1)
    assert repeats.due(0.0, everything=True) == [line()]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"shard": "a"}, {"shard": "b"}, False),
        ({"slot": 1}, {"slot": 2}, False),
        ({"error": "Refused: port 1"}, {"error": "Refused: port 2"}, True),
        ({"error": "TimeoutError: "}, {"error": "ConnectionRefusedError: "}, False),
        ({"retry_in": 0.1, "frames": 7}, {"retry_in": 9.3, "frames": 8}, True),
        ({"state": "open"}, {"state": "closed"}, False),
        ({"event": "attempt 1 of 3", "logger": "lib"}, {"event": "attempt 2 of 3", "logger": "lib"}, True),
        ({"event": "attempt 1", "logger": "lib"}, {"event": "attempt 1", "logger": "other"}, False),
        ({"exception": "ValueError: 1"}, {"exception": "KeyError: 1"}, False),
    ],
    ids=str,
)
def test_what_makes_lines_alike(one: dict[str, Any], other: dict[str, Any], alike: bool) -> None:
    assert (key_of("warning", line() | one) == key_of("warning", line() | other)) is alike
    assert key_of("warning", line() | one) != key_of("error", line() | one)


def test_many_subjects_of_one_event_are_told_as_one_line() -> None:
    repeats = Repeats()
    seen = [repeats.admit("warning", line(account=f"a{n}"), 0.0) for n in range(1000)]
    assert seen == [0] * OF_EVENT + [None] * (1000 - OF_EVENT)
    assert repeats.admit("warning", line("other"), 0.0) == 0
    assert repeats.due(0.5) == []
    assert repeats.due(1.0) == [line(account="a999", repeated=1000 - OF_EVENT - 1)]


def test_a_stop_tells_all() -> None:
    repeats = Repeats()
    admitted(repeats, ALIKE + 2, server="redis")
    admitted(repeats, ALIKE + 1, server="postgres")
    assert repeats.due(0.0, everything=True) == [line(server="redis", repeated=1), line(server="postgres")]
    assert not repeats.waiting


steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 40), st.floats(0.0, 20.0), st.booleans()), max_size=200
)


@given(steps)
def test_each_line_is_written_or_counted_once(taken: list[tuple[str, int, float, bool]]) -> None:
    repeats, now, given_, told = Repeats(), 0.0, 0, 0
    for event, subject, later, looks in taken:
        now += later
        before = repeats.admit("info", line(event, shard=str(subject)), now)
        given_ += 1
        told += 1 + before if before is not None else 0
        if looks:
            told += sum(1 + item.get("repeated", 0) for item in repeats.due(now))
    told += sum(1 + item.get("repeated", 0) for item in repeats.due(now, everything=True))
    assert told == given_


def test_memory_is_bounded_and_still_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats = Repeats()
    told = 0
    for number in range(3 * REMEMBERED):
        before = repeats.admit("info", line(f"event {number}", shard=str(number)), 0.0)
        told += 1 + (before or 0)
    assert told == 3 * REMEMBERED
    assert len(repeats._alike) <= REMEMBERED
    assert len(repeats._events) <= REMEMBERED
    monkeypatch.setattr(log_repeats, "REMEMBERED", 10)
    repeats = Repeats()
    for _ in range(ALIKE + 2):
        for number in range(30):
            repeats.admit("info", line(shard=str(number)), 0.0)
    assert len(repeats._kept) <= 11
