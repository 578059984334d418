"""Which streams are of no feed any more, and which of them may go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from feedmill.general.maintenance.orphans import Listed, Streams, field_of, gone, read_list
from feedmill.shared.keys import ShardRef

DAY = 86_400_000_000_000
NOW = 20_000 * DAY
OLD = f"{(NOW - 8 * DAY) // 1_000_000}-3"
YOUNG = f"{(NOW - 6 * DAY) // 1_000_000}-0"
DRAINED = Streams(ShardRef("default", "btc", 0), OLD, OLD, OLD, OLD, "c1", "c1", "", 2, 3, False)


def test_a_list_is_read_as_it_was_written() -> None:
    listed = {("default", "btc"): Listed(4, NOW), ("team", "eth-2"): Listed(1, 5)}
    fields = {field_of(key).encode(): str(item).encode() for key, item in listed.items()}
    assert fields == {b"default.btc": f"4 {NOW}".encode(), b"team.eth-2": b"1 5"}
    assert read_list(fields) == listed


def test_what_cannot_be_read_is_nobodys_to_judge() -> None:
    assert read_list({b"default.btc": b"{json of a later version}", b"default.eth": b"1 2"}) == {
        ("default", "eth"): Listed(1, 2)
    }


def test_a_feed_is_gone_once_no_manifest_held_it_for_long() -> None:
    listed = {
        ("default", "here"): Listed(1, NOW - 9 * DAY),
        ("default", "long"): Listed(1, NOW - 7 * DAY),
        ("default", "since-yesterday"): Listed(1, NOW - DAY),
    }
    assert gone(listed, {("default", "here"): 1}, NOW, 7 * DAY) == [("default", "long")]


def test_drained_and_old_streams_may_go() -> None:
    assert not DRAINED.in_use(NOW, 7 * DAY)
    assert DRAINED.left == ""
    never = replace(DRAINED, captured="", dispatched="", emitted="", stored="", commit="", stored_commit="")
    assert not never.in_use(NOW, 7 * DAY)
    assert never.left == ""


@pytest.mark.parametrize("changed", [{"held": True}, {"captured": YOUNG}, {"emitted": YOUNG}], ids=str)
def test_what_is_worked_on_or_young_is_in_use(changed: dict[str, object]) -> None:
    assert replace(DRAINED, **changed).in_use(NOW, 7 * DAY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"dispatched": "1-0"}, "captured frames were not dispatched (2 entries)"),
        ({"dispatched": ""}, "captured frames were not dispatched (2 entries)"),
        ({"stored": "1-0"}, "events were not stored (3 entries)"),
        ({"stored": ""}, "events were not stored (3 entries)"),
    ],
)
def test_what_was_not_stored_is_told(changed: dict[str, str], left: str) -> None:
    assert replace(DRAINED, **changed).left == left  # type: ignore[arg-type]


def test_the_state_that_is_looked_at_again_is_the_one_that_was_judged() -> None:
    assert replace(DRAINED, dispatched="2-0", emitted="3-0", owner="7").state == (OLD, "2-0", "3-0", "c1", "7", "0")


@pytest.mark.parametrize(
    ("changed", "lost"),
    [
        ({"dispatched": "5-0"}, (5_000_000, NOW - 8 * DAY)),
        ({"dispatched": ""}, (None, NOW - 8 * DAY)),
        ({"dispatched": "0-0"}, (None, NOW - 8 * DAY)),
        ({"stored": "7-2"}, (7_000_000, NOW - 8 * DAY)),
        ({"stored": "", "captured": "", "dispatched": ""}, (None, NOW - 8 * DAY)),
    ],
    ids=str,
)
def test_from_when_to_when_something_is_lost(changed: dict[str, str], lost: tuple[int | None, int]) -> None:
    assert replace(DRAINED, **changed).lost_ns == lost  # type: ignore[arg-type]
