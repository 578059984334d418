"""Tickers of several receivers whose batches reach Redis in any order: each one stored once, each loss in a gap row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from feedmill.distributor import held as held_module
from feedmill.distributor import seams as seams_module
from feedmill.distributor.seams import Seam, fill, settle, within
from feedmill.shared import control
from feedmill.shared.events import Flag

MS = 1_000_000
LAST = 40
"""The venue emits this many, one each ``pace``."""


@dataclass(frozen=True)
class Life:
    """A connection: from the first emitted one it sees to the last."""

    begin: int
    length: int
    half_open: int
    """This many at the end it never gets, and nobody notices until then."""
    end: str
    """Cause of the disconnection; ``end``: SessionEnd; empty: the receiver is killed."""


LIFE = st.builds(
    Life,
    st.integers(0, LAST),
    st.integers(0, LAST),
    st.sampled_from([0, 0, 0, 3]),
    st.sampled_from(["closed", "planned", "aborted", "silent", "end", ""]),
)


def lives_of(found: list[Life]) -> list[Life]:
    """One after the other, without overlap: a receiver has one connection for the topic."""
    kept: list[Life] = []
    at = 0
    for life in sorted(found, key=lambda each: each.begin):
        if life.begin >= at:
            kept.append(life)
            at = life.begin + life.length
            if life.end in ("end", ""):
                break
    return kept


def batches(
    kit: Any, feeder: Any, lives: list[Life], numbers: list[int], pace: int, exchange_ms: int = 0
) -> tuple[list[bytes], set[int]]:
    """What one receiver writes, and the numbers in it. ``exchange_ms``: unit of the numbers as exchange times."""
    made: list[bytes] = []
    brought: set[int] = set()
    for conn, life in enumerate(lives, 1):
        at = kit.T0 + life.begin * pace
        made.append(feeder.open(at - pace // 2, kit.topic("Ticker"), conn=conn, first=conn == 1))
        end = min(life.begin + life.length, len(numbers))
        seen = range(
            life.begin, max(life.begin, end - (life.half_open if life.end in ("silent", "aborted", "") else 0))
        )
        for index in seen:
            quote = kit.ticker(numbers[index], numbers[index] * exchange_ms * MS)
            made.append(feeder.frames(kit.T0 + index * pace, quote, conn=conn))
            brought.add(numbers[index])
        over = kit.T0 + end * pace - pace // 4
        if life.end == "end":
            made.append(feeder.control(over, control.SessionEnd()))
        elif life.end:
            made.append(feeder.close(over, life.end, conn=conn))
    return made, brought


def inside(gap: Any, number: int) -> bool:
    return (gap.from_seq < 0 or number > gap.from_seq) and (gap.to_seq < 0 or number < gap.to_seq)


RECEIVERS = st.lists(st.lists(LIFE, min_size=1, max_size=3), min_size=1, max_size=3)
JUMPS = st.lists(st.integers(1, 5), min_size=LAST, max_size=LAST).map(lambda jumps: list(accumulate(jumps)))
PACE = st.sampled_from([ms * MS for ms in (10, 1000, 25_000)])
"""Half open connections are noticed within the longest silence that a receiver bears."""


def play(
    kit: Any, host: Any, receivers: list[list[Life]], numbers: list[int], pace: int, chance: Any, **more: Any
) -> Any:
    """Feed what the receivers write in a random order; answers (all events, the numbers that were brought)."""
    restarts = more.pop("restarts")
    streams, brought = [], set()
    for place, found in enumerate(receivers):
        feeder = kit.Feeder(f"r{place}-00000000000{place}aaaaaa")
        made, seen = batches(kit, feeder, lives_of(found), numbers, pace, **more)
        streams.append(made)
        brought |= seen
    while any(streams):
        who = chance.choice([place for place, left in enumerate(streams) if left])
        size = chance.choice([1, 1, 2, 5, 100])
        part, streams[who] = streams[who][:size], streams[who][size:]
        host.feed(*part)
        host.tick(chance.choice([0.0, 0.5, 3.0]))
        if chance.random() < 0.3:
            host.commit()
            if restarts:
                host.restart()
    host.now += LAST * pace
    for _ in range(12):
        host.tick(4.0)  # Who was killed is missed after 30 s.
    return host.commit(), brought


def check_rows(out: Any, numbers: list[int], stored: set[int]) -> None:
    """What is not stored is in a row, what is stored is in none."""
    rows = list(out.rows().values())
    if stored:
        lost = [n for n in numbers if min(stored) < n < max(stored) and n not in stored]
        assert not [n for n in lost if not any(inside(gap, n) for gap in rows)], "lost in silence"
    assert not [(n, gap) for n in stored for gap in rows if inside(gap, n)], "a row says that it was not seen"


@examples(max_examples=600, deadline=None)
@given(RECEIVERS, JUMPS, PACE, st.randoms(use_true_random=False), st.booleans())
def test_each_is_stored_once_and_what_nobody_brought_is_in_a_row(
    kit: Any, receivers: list[list[Life]], numbers: list[int], pace: int, chance: Any, restarts: bool
) -> None:
    out, brought = play(kit, kit.Host(kit.settings_of()), receivers, numbers, pace, chance, restarts=restarts)
    assert sorted(out.tickers) == sorted(brought)
    check_rows(out, numbers, brought)
    top = -1
    for event in out.events.tickers:
        assert bool(event.flags & Flag.LATE) == (event.seq < top)
        top = max(top, event.seq)
    revisions: dict[str, int] = {}
    for gap in out.events.gaps:
        assert gap.revision == revisions.get(gap.id, 0) + 1
        revisions[gap.id] = gap.revision


@examples(max_examples=600, deadline=None)
@given(RECEIVERS, JUMPS, PACE, st.randoms(use_true_random=False), st.booleans())
def test_without_ids_each_is_stored_once_or_lies_in_a_row(
    kit: Any, receivers: list[list[Life]], numbers: list[int], pace: int, chance: Any, restarts: bool
) -> None:
    """One source at a time, so some that were brought may be lost when it ends; a row says which."""
    host = kit.Host(kit.settings_of("inband"))
    out, brought = play(kit, host, receivers, numbers, pace, chance, restarts=restarts, exchange_ms=1)
    stored = set(out.tickers)
    assert len(out.tickers) == len(stored)
    assert stored <= brought
    check_rows(out, sorted({*numbers, *brought}), stored)
    rows = list(out.rows().values())
    assert not [n for n in brought - stored if not any(inside(gap, n) for gap in rows)], "brought, and lost in silence"


def begin(kit: Any, *names: str, rules: str = "dense") -> tuple[Any, list[Any]]:
    return kit.Host(kit.settings_of(rules)), [kit.Feeder(f"{name}-00000000000{place}aaaaaa")
                                              for place, name in enumerate(names)]  # fmt: skip


def test_what_the_replaced_receiver_held_comes_after_the_new_ones(kit: Any) -> None:
    """Redis was away while one receiver took the other's place; the new one reached it first."""
    host, (old, new) = begin(kit, "old", "new")
    t, second = kit.T0, kit.SECOND
    host.feed(old.open(t, kit.topic("Ticker")), old.frames(t, kit.ticker(100)))
    host.feed(new.open(t + second, kit.topic("Ticker")))
    host.feed(*(new.frames(t + n * second, kit.ticker(100 + 10 * n)) for n in range(20, 60)))
    told = list(host.commit().events.gaps)
    assert [(gap.from_seq, gap.to_seq, gap.cause) for gap in told] == [(100, 300, "sequence")]
    host.feed(*(old.frames(t + n * second, kit.ticker(100 + 10 * n)) for n in range(1, 30)))
    host.feed(old.control(t + 30 * second, control.SessionEnd()))
    out = host.tick(5.0).commit()
    assert sorted(out.tickers) == [100 + 10 * n for n in range(60)]
    assert out.tickers[-19:] == [100 + 10 * n for n in range(1, 20)]
    (row,) = out.rows().values()
    assert (row.state, row.repaired_by, row.from_seq, row.to_seq) == ("closed", "late", row.to_seq, row.from_seq)


def test_what_the_old_one_did_not_bring_before_the_new_ones_first_is_a_gap(kit: Any) -> None:
    host, (old, new) = begin(kit, "old", "new")
    t, second = kit.T0, kit.SECOND
    host.feed(old.open(t, kit.topic("Ticker")), old.frames(t, kit.ticker(100)))
    host.feed(new.open(t + 9 * second, kit.topic("Ticker")), new.frames(t + 10 * second, kit.ticker(200)))
    host.feed(old.frames(t + second, kit.ticker(110)), old.close(t + 2 * second, "aborted"))
    host.feed(new.frames(t + 20 * second, kit.ticker(300)))
    out = host.commit()
    assert out.tickers == [100, 200, 110, 300]
    (row,) = out.rows().values()
    assert (row.from_seq, row.to_seq, row.cause, row.repaired_by) == (110, 200, "disconnected", "")
    assert (row.from_ns, row.to_ns) == (t + second, t + 10 * second)


@pytest.mark.parametrize(
    ("cause", "before", "rows"), [("closed", 5, 0), ("closed", -5, 1), ("aborted", 5, 1), ("aborted", 91, 0)]
)
def test_one_that_was_there_before_the_other_ended_is_whole(kit: Any, cause: str, before: int, rows: int) -> None:
    """A quiet instrument: nothing came between the subscription of the second and the end of the first."""
    host, (a, b) = begin(kit, "a", "b")
    t, second = kit.T0, kit.SECOND
    end = t + 100 * second
    host.feed(a.open(t, kit.topic("Ticker")), a.frames(t, kit.ticker(100)))
    host.feed(b.open(end - before * second, kit.topic("Ticker")), a.close(end, cause))
    host.feed(b.frames(t + 200 * second, kit.ticker(200)), b.frames(t + 300 * second, kit.ticker(300)))
    out = host.commit()
    assert out.tickers == [100, 200, 300]
    assert len(out.rows()) == rows


def test_what_came_before_the_first_ever_is_kept(kit: Any) -> None:
    host, (a, b) = begin(kit, "a", "b")
    t, second = kit.T0, kit.SECOND
    host.feed(b.open(t + second, kit.topic("Ticker")), b.frames(t + 2 * second, kit.ticker(50)))
    host.commit()
    host.restart()
    host.feed(a.open(t, kit.topic("Ticker")), *(a.frames(t + n, kit.ticker(n)) for n in (7, 20, 49, 50, 60)))
    host.feed(b.frames(t + 9 * second, kit.ticker(60)))
    out = host.commit()
    assert out.tickers == [50, 7, 20, 49, 60]
    assert not out.events.gaps


def test_a_row_from_before_the_first_ever_is_cut_by_what_came_earlier(kit: Any) -> None:
    host, (a, b) = begin(kit, "a", "b")
    t, second = kit.T0, kit.SECOND
    host.feed(b.open(t, kit.topic("Ticker")), b.close(t + 1), b.open(t + 2, kit.topic("Ticker"), conn=2, first=False))
    host.feed(b.frames(t + 3, kit.ticker(50), conn=2))
    host.feed(a.open(t, kit.topic("Ticker")), a.frames(t, kit.ticker(30)), a.frames(t + 5 * second, kit.ticker(50)))
    out = host.commit()
    assert out.tickers == [50, 30]
    (row,) = out.rows().values()
    assert (row.from_seq, row.to_seq, row.state) == (-1, 30, "closed")
    assert "/since-" in row.id


def test_lost_batches_break_what_a_connection_knows(kit: Any) -> None:
    host, (a, b) = begin(kit, "a", "b")
    t = kit.T0
    host.feed(a.open(t, kit.topic("Ticker")), b.open(t, kit.topic("Ticker")))
    host.feed(a.frames(t, kit.ticker(10)), b.frames(t, kit.ticker(10)))
    host.feed(a.batch(a.run(t + 1, kit.ticker(90)), skip=3))  # What was in the three is not known: b may have it.
    host.feed(b.frames(t + 1, kit.ticker(40)), b.frames(t + 2, kit.ticker(90)))
    out = host.tick(5.0).commit()
    assert out.tickers == [10, 90, 40]
    assert not out.events.gaps


def test_no_more_seams_than_the_limit_and_none_forgotten_in_silence(kit: Any) -> None:
    host, (a, b) = begin(kit, "a", "b")
    t = kit.T0
    host.feed(a.open(t, kit.topic("Ticker")), a.frames(t, kit.ticker(1)))
    for conn in range(1, 20):
        again = b.open(t + conn, kit.topic("Ticker"), conn=conn, first=conn == 1)
        host.feed(again, b.frames(t + conn, kit.ticker(conn * 100), conn=conn), b.close(t + conn, "aborted", conn=conn))
    out = host.tick(5.0).commit()
    assert [(gap.from_seq, gap.to_seq) for gap in out.rows().values()] == [
        (max(1, conn * 100 - 100), conn * 100) for conn in range(1, 20)
    ]
    fields = host.engine._quotes.tracks[kit.SYMBOL]
    assert len(fields.seams) == seams_module.MAX_SEAMS + 1
    assert len(fields.reached) == 1


# without ids: Deribit
def test_without_ids_too_what_came_before_the_first_ever_is_kept(kit: Any) -> None:
    host, (a, b) = begin(kit, "a", "b", rules="inband")
    t = kit.T0
    host.feed(b.open(t, kit.topic("Ticker")), b.frames(t + 9, kit.ticker(77, 9 * MS), kit.ticker(78, 11 * MS)))
    host.commit()
    host.restart()
    host.feed(a.open(t, kit.topic("Ticker")))
    for seq, ms in ((71, 3), (72, 5), (77, 9), (78, 11), (79, 12)):
        host.feed(a.frames(t, kit.ticker(seq, ms * MS)))
    host.feed(b.frames(t + 12, kit.ticker(79, 12 * MS)))
    out = host.commit()
    assert out.tickers == [77, 78, 71, 72, 79]
    assert [bool(event.flags & Flag.LATE) for event in out.events.tickers] == [False, False, True, True, False]
    assert not out.events.gaps


def test_without_ids_what_the_earlier_one_did_not_bring_is_a_gap(kit: Any) -> None:
    host, (a, b) = begin(kit, "a", "b", rules="inband")
    t = kit.T0
    host.feed(b.open(t, kit.topic("Ticker")), b.frames(t + 9, kit.ticker(77, 9 * MS)))
    host.feed(a.open(t, kit.topic("Ticker")), a.frames(t + 3, kit.ticker(71, 3 * MS)), a.close(t + 5, "aborted"))
    out = host.commit()
    assert out.tickers == [77, 71]
    (row,) = out.rows().values()
    assert (row.from_seq, row.to_seq, row.cause, row.state) == (3, 9, "disconnected", "closed")


@examples(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12), st.integers(0, 61))
def test_filling_leaves_exactly_the_rest(spans: list[tuple[int, int]], number: int) -> None:
    seams = [Seam(-1, 20, 0, 5, "sequence"), Seam(25, 60, 0, 5, "sequence")]
    for low, high in spans:
        fill(seams, min(low, high), max(low, high), "s", 1)
    open_still = (-1 < number < 20 or 25 < number < 60) and not any(min(s) <= number <= max(s) for s in spans)
    assert within(seams, number) == open_still
    assert seams == sorted(seams, key=lambda seam: seam.lo)
    gaps: list[Any] = []
    settle(seams, 10, "x", "S", None, gaps)
    told = any(gap.from_seq < number < gap.to_seq for gap in gaps)
    beginning = seams[0].hi if seams and seams[0].lo == -1 else 0
    assert told == (open_still and number >= beginning)


def test_without_ids_what_the_next_one_brought_meanwhile_is_kept(kit: Any) -> None:
    """Redis was away while one receiver took the other's place; the new one reached it first."""
    host, (old, new) = begin(kit, "old", "new", rules="inband")
    t, second = kit.T0, kit.SECOND
    host.feed(old.open(t, kit.topic("Ticker")), old.frames(t, kit.ticker(70, 1 * MS)))
    host.feed(new.open(t + 2 * second, kit.topic("Ticker")))
    host.feed(*(new.frames(t + n * second, kit.ticker(70 + n, (1 + n) * MS)) for n in range(3, 9)))
    host.feed(*(old.frames(t + n * second, kit.ticker(70 + n, (1 + n) * MS)) for n in range(1, 5)))
    host.feed(old.control(t + 5 * second, control.SessionEnd()))
    out = host.commit()
    assert out.tickers == [70, 71, 72, 73, 74, 75, 76, 77, 78]
    assert not out.events.gaps
    assert not host.engine._quotes.tracks[kit.SYMBOL].held.kept


def test_too_many_of_one_that_does_not_count_are_given_up_and_told(kit: Any) -> None:
    host, (old, new) = begin(kit, "old", "new", rules="inband")
    host.feed(old.open(kit.T0, kit.topic("Ticker")), old.frames(kit.T0, kit.ticker(7, 1 * MS)))
    host.feed(new.open(kit.T0 + 1, kit.topic("Ticker")))
    many = [kit.ticker(100 + n, (10 + n) * MS) for n in range(held_module.MOST + 3)]
    host.feed(new.frames(kit.T0 + 2, *many), old.close(kit.T0 + 3))
    out = host.commit()
    assert out.tickers == [7, 100 + held_module.MOST + 1, 100 + held_module.MOST + 2]
    (row,) = out.rows().values()
    assert (row.from_seq, row.to_seq, row.cause) == (1, 10 + held_module.MOST + 1, "disconnected")


def test_one_that_is_far_ahead_and_has_missed_nothing_counts_from_then_on(kit: Any) -> None:
    """The one that counted lags: its end, while it does, costs nothing."""
    host, (slow, quick) = begin(kit, "slow", "quick", rules="inband")
    host.feed(slow.open(kit.T0, kit.topic("Ticker")), slow.frames(kit.T0, kit.ticker(7, 1 * MS)))
    host.feed(quick.open(kit.T0 + 1, kit.topic("Ticker")), quick.frames(kit.T0 + 1, kit.ticker(7, 1 * MS)))
    many = [kit.ticker(100 + n, (10 + n) * MS) for n in range(3 * held_module.MOST)]
    host.feed(quick.frames(kit.T0 + 2, *many), slow.frames(kit.T0 + 3, *many[:9]), slow.close(kit.T0 + 4, "aborted"))
    out = host.commit()
    assert out.tickers == [7, *range(100, 100 + 3 * held_module.MOST)]
    assert not out.events.gaps
    assert not host.engine._quotes.tracks[kit.SYMBOL].held.kept
