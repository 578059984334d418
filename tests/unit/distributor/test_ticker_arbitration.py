"""Tickers: by a rising id (merged), and without one (one source at a time). What is missing lies inside gap rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from feedmill.shared import control
from feedmill.shared.events import Flag

MS = 1_000_000


def begin(kit: Any, rules: str = "dense", conns: int = 1) -> tuple[Any, list[Any]]:
    host = kit.Host(kit.settings_of(rules))
    feeders = [kit.Feeder(f"r{n}-00000000000{n}aaaaaa") for n in range(conns)]
    host.feed(*(feeder.open(kit.T0, kit.topic("Ticker")) for feeder in feeders))
    return host, feeders


def seqs(kit: Any, *numbers: int) -> list[bytes]:
    return [kit.ticker(number) for number in numbers]


def test_each_id_once_from_whichever_session(kit: Any) -> None:
    host, (a, b) = begin(kit, conns=2)
    host.feed(a.frames(1, *seqs(kit, 10, 20, 30)), b.frames(2, *seqs(kit, 10, 20, 30, 40)), a.frames(3, *seqs(kit, 40)))
    out = host.commit()
    assert out.tickers == [10, 20, 30, 40]
    assert not out.events.gaps


def test_an_older_unseen_one_is_late_within_the_window_and_dropped_below_it(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, *seqs(kit, *range(100, 300, 10))))  # 20 of them: the window is 140..290.
    host.feed(a.frames(2, *seqs(kit, 285, 141, 151, 285)))
    out = host.commit()
    assert out.tickers[20:] == [285, 151]
    assert [bool(event.flags & Flag.LATE) for event in out.events.tickers[19:]] == [False, True, True]


@examples(max_examples=200)
@given(st.lists(st.integers(0, 60), max_size=120))
def test_no_id_twice_and_late_means_out_of_order(kit: Any, numbers: list[int]) -> None:
    host, (a,) = begin(kit)
    for number in numbers:
        host.feed(a.frames(1, kit.ticker(number)))
    out = host.commit()
    assert len(out.tickers) == len(set(out.tickers))
    top = -1
    for event in out.events.tickers:
        assert bool(event.flags & Flag.LATE) == (event.seq < top)
        top = max(top, event.seq)
    if numbers:
        assert top == max(numbers)


@pytest.mark.parametrize("cause", ["closed", "silent", "planned"])
def test_a_disconnect_opens_a_gap_that_the_next_ticker_closes(kit: Any, cause: str) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(5, *seqs(kit, 10, 20)), a.close(7, cause))
    (gap,) = host.commit().events.gaps
    assert (gap.id, gap.state, gap.cause) == ("test.toy.0/BTC-USDT/Ticker/20", "open", "disconnected")
    assert (gap.from_seq, gap.to_seq, gap.from_ns, gap.to_ns, gap.detected_ns) == (20, -1, 5, 0, 7)
    host.feed(a.open(8, kit.topic("Ticker"), conn=2, first=False), a.frames(9, *seqs(kit, 50, 60), conn=2))
    out = host.commit()
    assert out.tickers == [10, 20, 50, 60]
    gap = out.events.gaps[-1]
    assert (gap.state, gap.revision, gap.from_seq, gap.to_seq, gap.to_ns) == ("closed", 2, 20, 50, 9)
    assert len(out.events.gaps) == 2


def test_what_was_lost_before_any_ticker_is_a_gap_since_the_connection(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.close(7))
    (gap,) = host.commit().events.gaps
    assert (gap.state, gap.from_seq, gap.to_seq, gap.from_ns, gap.detected_ns) == ("open", -1, -1, kit.T0, 7)
    host.restart()
    again = a.open(8, kit.topic("Ticker"), conn=2, first=False)
    host.feed(again, a.close(9, conn=2), a.open(10, kit.topic("Ticker"), conn=3, first=False))
    assert len(host.commit().events.gaps) == 1
    host.feed(a.frames(11, *seqs(kit, 50), conn=3), a.close(12, conn=3))
    _, closed, following = host.commit().events.gaps
    assert (closed.id, closed.state, closed.revision) == (gap.id, "closed", 2)
    assert (closed.from_seq, closed.to_seq, closed.to_ns) == (-1, 50, 11)
    assert (following.from_seq, following.state) == (50, "open")


def test_a_topic_that_was_never_lost_has_no_gap_before_its_first_ticker(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(9, *seqs(kit, 50)))
    assert not host.commit().events.gaps


def test_the_same_id_again_closes_the_gap_and_a_second_one_is_the_same_row(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(5, *seqs(kit, 20)))
    for conn in (2, 3):
        host.feed(a.close(7, conn=conn - 1), a.open(8, kit.topic("Ticker"), conn=conn, first=False))
        host.feed(a.frames(9, *seqs(kit, 20), conn=conn))
        host.commit()
    out = host.out
    assert out.tickers == [20]
    assert [(gap.revision, gap.state, gap.to_seq) for gap in out.events.gaps] == [
        (1, "open", -1), (2, "closed", 20), (3, "open", -1), (4, "closed", 20),
    ]  # fmt: skip
    assert len(out.rows()) == 1


def test_another_session_covers_so_there_is_no_gap(kit: Any) -> None:
    host, (a, b) = begin(kit, conns=2)
    host.feed(a.frames(1, *seqs(kit, 10)), b.frames(1, *seqs(kit, 10)), a.close(2), b.frames(3, *seqs(kit, 20)))
    assert not host.commit().events.gaps
    host.feed(b.close(4))
    assert [gap.from_seq for gap in host.commit().events.gaps] == [20]


def test_a_late_one_that_a_closed_gap_covers_shrinks_it(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(5, *seqs(kit, 10, 20)), a.close(7), a.open(8, kit.topic("Ticker"), conn=2, first=False))
    host.feed(a.frames(9, *seqs(kit, 50, 45, 60), conn=2))  # The venue swapped the first two.
    out = host.commit()
    assert out.tickers == [10, 20, 50, 45, 60]
    (gap,) = out.rows().values()
    assert (gap.state, gap.from_seq, gap.to_seq, gap.revision) == ("closed", 20, 45, 3)


# without ids: Deribit
def quotes(kit: Any, *pairs: tuple[int, int]) -> list[bytes]:
    """(hash, exchange ms)"""
    return [kit.ticker(seq, ms * MS) for seq, ms in pairs]


def test_only_the_first_source_counts(kit: Any) -> None:
    host, (a, b) = begin(kit, "inband", 2)
    host.feed(a.frames(1, *quotes(kit, (7, 1), (5, 2))), b.frames(1, *quotes(kit, (7, 1), (5, 2))))
    host.feed(a.frames(1, *quotes(kit, (9, 2), (4, 3), (4, 3))))
    out = host.commit()
    assert out.tickers == [7, 5, 9, 4]
    assert not any(event.flags for event in out.events.tickers)


def test_an_earlier_one_is_late(kit: Any) -> None:
    host, (a,) = begin(kit, "inband")
    host.feed(a.frames(1, *quotes(kit, (7, 1), (5, 3), (6, 2))))
    assert [(t.seq, t.flags) for t in host.commit().events.tickers] == [(7, 0), (5, 0), (6, int(Flag.LATE))]


def test_a_repeat_after_subscribing_again_closes_the_gap_and_is_not_emitted(kit: Any) -> None:
    host, (a,) = begin(kit, "inband")
    host.feed(a.frames(1, *quotes(kit, (7, 1), (5, 3))), a.close(2))
    host.feed(a.open(3, kit.topic("Ticker"), conn=2, first=False), a.frames(4, *quotes(kit, (5, 3), (8, 9)), conn=2))
    out = host.commit()
    assert out.tickers == [7, 5, 8]
    (gap,) = out.rows().values()
    assert (gap.state, gap.from_seq, gap.to_seq) == ("closed", 3, 3)


def test_the_other_source_goes_on_when_the_first_ends(kit: Any) -> None:
    host, (a, b) = begin(kit, "inband", 2)
    both = quotes(kit, (7, 1), (5, 3))
    host.feed(a.frames(1, *both), b.frames(1, *both), a.close(2), b.frames(3, *quotes(kit, (8, 4))))
    out = host.commit()
    assert out.tickers == [7, 5, 8]
    assert not out.events.gaps


def test_what_only_the_other_source_showed_before_the_switch_is_kept_for_it(kit: Any) -> None:
    """The first connection is half open: it brings nothing, and ends long after."""
    host, (a, b) = begin(kit, "inband", 2)
    host.feed(a.frames(1, *quotes(kit, (7, 1))))
    host.commit()
    host.feed(b.frames(1, *quotes(kit, (7, 1), (5, 3), (6, 4))))
    host.commit()
    host.restart()
    host.feed(a.close(2, "silent"), b.frames(3, *quotes(kit, (8, 9))))
    out = host.commit()
    assert out.tickers == [7, 5, 6, 8]
    assert not out.events.gaps


def test_a_source_that_lags_behind_repeats_nothing_after_the_switch(kit: Any) -> None:
    host, (a, b) = begin(kit, "inband", 2)
    many = [(1000 + n, n) for n in range(1, 40)]
    host.feed(a.frames(1, *quotes(kit, *many)), a.close(2), b.frames(3, *quotes(kit, *many, (9, 50))))
    out = host.commit()
    assert out.tickers == [seq for seq, _ in many] + [9]
    assert not out.events.gaps


def test_a_topic_given_up_alone_moves_to_the_other_source(kit: Any) -> None:
    host, (a, b) = begin(kit, "inband", 2)
    host.feed(a.frames(1, *quotes(kit, (7, 1))), a.control(2, control.Unsubscribed(1, [kit.topic("Ticker")])))
    host.feed(b.frames(3, *quotes(kit, (8, 4))))
    assert host.commit().tickers == [7, 8]


@pytest.mark.parametrize("early", [True, False])
def test_it_is_the_subscription_that_counts_not_the_connection(kit: Any, early: bool) -> None:
    """The next one was connected when the first ended; what came until it was subscribed nobody brought."""
    host, (a,) = begin(kit, "inband")
    b = kit.Feeder("r1-000000000002aaaaaa")
    host.feed(
        a.frames(kit.T0 + 1, kit.ticker(1, 1 * MS)),
        b.control(kit.T0 + 2, b.begin(), control.Connected(1, "stream")),
        b.control(kit.T0 + (3 if early else 5), control.Subscribed(1, [kit.topic("Ticker")])),
        a.close(kit.T0 + 4),
        b.frames(kit.T0 + 6, kit.ticker(3, 3 * MS)),
    )
    out = host.commit()
    assert out.tickers == [1, 3]
    assert [(gap.from_seq, gap.to_seq) for gap in out.rows().values()] == ([] if early else [(1, 3)])


def test_connections_that_ended_leave_nothing_behind(kit: Any) -> None:
    host, (a,) = begin(kit, "inband")
    host.feed(a.frames(1, kit.ticker(1, 1 * MS)))
    sizes = []
    for number in range(2, 40):
        host.feed(a.open(number, kit.topic("Ticker"), conn=number, first=False), a.close(number, conn=number - 1))
        host.feed(a.frames(number, kit.ticker(number, number * MS), conn=number))
        host.commit()
        sizes.append(sum(map(len, host.fields.values())))
    assert max(sizes[20:]) - sizes[19] < 40, sizes


def test_a_source_whose_process_was_killed_is_replaced_while_the_other_goes_on_without_a_pause(kit: Any) -> None:
    """Nobody tells its end: its session falls silent. The flow of the others leaves no moment in which nothing came."""
    host, (a, b) = begin(kit, "inband", 2)
    host.tick().feed(a.frames(1, *quotes(kit, (7, 1))))
    for second in range(40):
        # Long before it: what is still to be read may be of the one that is missed.
        host.feed(b.frames(2 + second, *quotes(kit, (100 + second, 10 + second)))).tick(1.0, idle=False)
    assert host.commit().tickers == [7]
    for second in range(40, 45):
        host.feed(b.frames(2 + second, *quotes(kit, (100 + second, 10 + second))))
        host.tick(1.0, idle=False, all_read=True)
    out = host.commit()
    assert out.tickers[-4:] == [141, 142, 143, 144]
    (gap,) = out.rows().values()
    assert (gap.state, gap.cause, gap.from_seq) == ("closed", "session_lost", 1)
    assert {100 + at - 10 for at in range(gap.to_seq, 55)} <= set(out.tickers), "what is not there lies in the gap"
