"""The venue's candles: later over earlier, closed over open, and no candle called closed that nobody saw closing."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.shared import control
from feedmill.shared.control import TopicRef

MINUTE = 60 * 1_000_000_000
MS = 1_000_000
MINUTES = TopicRef("BTC-USDT", "BTCUSDT", "Candles", "chart.1", "1m")


def begin(kit: Any, conns: int = 1) -> tuple[Any, list[Any]]:
    host = kit.Host(kit.settings_of())
    feeders = [kit.Feeder(f"r{n}-00000000000{n}aaaaaa") for n in range(conns)]
    host.feed(*(feeder.open(kit.T0, kit.topic("Candles")) for feeder in feeders))
    return host, feeders


def bar(kit: Any, minute: int, close: str, **more: Any) -> bytes:
    return kit.candle(minute * MINUTE, close, **more)


def told(host: Any) -> list[tuple[int, str, bool]]:
    return [(c.open_ns // MINUTE, c.close, c.closed) for c in host.commit().events.candles]


def test_a_successor_on_the_same_connection_closes(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a"), bar(kit, 1, "b"), bar(kit, 1, "b"), bar(kit, 2, "c"), bar(kit, 4, "d")))
    assert told(host) == [
        (1, "a", False),
        (1, "b", False),
        (1, "b", True),
        (2, "c", False),
        (2, "c", True),
        (4, "d", False),
    ]
    assert not host.out.events.gaps


def test_an_older_one_is_dropped(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 2, "a"), bar(kit, 1, "b")))
    assert told(host) == [(2, "a", False)]


def test_closed_wins_over_a_later_open_one(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a", at=5), bar(kit, 1, "b", closed=True, at=6), bar(kit, 1, "a", at=7)))
    host.feed(a.frames(1, bar(kit, 2, "c", at=8)))
    assert told(host) == [(1, "a", False), (1, "b", True), (2, "c", False)]
    assert not host.out.events.gaps


def test_a_venue_that_says_closed_and_was_not_heard_saying_it_leaves_a_gap(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a", at=5), bar(kit, 2, "b", at=9)))
    assert told(host) == [(1, "a", False), (2, "b", False)]
    (gap,) = host.out.events.gaps
    assert (gap.cause, gap.state, gap.channel) == ("sequence", "closed", "Candles")
    assert gap.id == f"test.toy.0/BTC-USDT/Candles:1m/{gap.from_seq}"
    assert gap.from_seq < MINUTE // MS < gap.to_seq == 2 * MINUTE // MS


def test_a_disconnect_within_the_same_candle_loses_nothing(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a")), a.close(2), a.open(3, kit.topic("Candles"), conn=2, first=False))
    host.feed(a.frames(4, bar(kit, 1, "a"), bar(kit, 2, "b"), conn=2))
    assert told(host) == [(1, "a", False), (1, "a", True), (2, "b", False)]
    assert not host.out.events.gaps


@pytest.mark.parametrize("closed", [False, True])
def test_candles_that_ended_while_disconnected_are_a_gap(kit: Any, closed: bool) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a", closed=closed)), a.close(2))
    host.commit()
    host.restart()
    host.feed(a.open(3, kit.topic("Candles"), conn=2, first=False), a.frames(4, bar(kit, 5, "b"), conn=2))
    assert told(host) == [(1, "a", closed), (5, "b", False)]
    (gap,) = host.out.events.gaps
    assert (gap.cause, gap.state, gap.revision) == ("disconnected", "closed", 1)
    covered = [m for m in range(10) if gap.from_seq < m * MINUTE // MS < gap.to_seq]
    assert covered == ([2, 3, 4] if closed else [1, 2, 3, 4])


def test_the_next_candle_after_a_disconnect_is_no_gap(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a", closed=True)), a.close(2))
    host.feed(a.open(3, kit.topic("Candles"), conn=2, first=False), a.frames(4, bar(kit, 2, "b"), conn=2))
    host.commit()
    assert not host.out.events.gaps


def test_only_one_source_counts_and_the_other_goes_on(kit: Any) -> None:
    host, (a, b) = begin(kit, 2)
    host.feed(a.frames(1, bar(kit, 1, "a")), b.frames(1, bar(kit, 1, "b")), a.close(2), b.frames(3, bar(kit, 1, "c")))
    host.feed(b.frames(4, bar(kit, 2, "d")))
    assert told(host) == [(1, "a", False), (1, "b", False), (1, "c", False), (1, "c", True), (2, "d", False)]
    assert not host.out.events.gaps


@pytest.mark.parametrize("closed", [False, True])
def test_a_half_open_source_that_is_replaced_costs_nothing_where_the_other_one_was_there(
    kit: Any, closed: bool
) -> None:
    host, (a, b) = begin(kit, 2)
    host.feed(a.frames(1, bar(kit, 1, "a", closed=closed)), b.frames(1, *(bar(kit, n, "b") for n in (1, 2, 3))))
    host.commit()
    host.restart()
    host.feed(a.close(2, "silent"), b.frames(3, bar(kit, 4, "c")))
    first = [] if closed else [(1, "b", False), (1, "b", True)]
    assert told(host)[1:] == [*first, (2, "b", False), (2, "b", True), (3, "b", False), (3, "b", True), (4, "c", False)]
    assert not host.out.events.gaps


@pytest.mark.parametrize("closed", [False, True])
def test_a_half_open_source_that_was_replaced_too_late_leaves_a_gap(kit: Any, closed: bool) -> None:
    host, (a, b) = begin(kit, 2)
    host.feed(a.frames(1, bar(kit, 1, "a", closed=closed)), b.frames(1, *(bar(kit, n, "b") for n in range(1, 8))))
    host.feed(a.close(2, "silent"), b.frames(3, bar(kit, 8, "c")))
    found = told(host)
    assert found[:2] == [(1, "a", closed), (4, "b", False)]
    assert found[-2:] == [(7, "b", True), (8, "c", False)]
    (gap,) = host.out.events.gaps
    assert [m for m in range(9) if gap.from_seq < m * MINUTE // MS < gap.to_seq] == ([2, 3] if closed else [1, 2, 3])


def test_a_planned_renewal_at_the_end_of_a_minute_costs_nothing(kit: Any) -> None:
    """The next connection brings the old minute, the old one ends, and then comes the new minute."""
    host, (a,) = begin(kit)
    host.feed(a.frames(1, bar(kit, 1, "a")), a.open(2, kit.topic("Candles"), conn=2, first=False))
    host.feed(a.frames(3, bar(kit, 1, "b"), conn=2), a.frames(3, bar(kit, 1, "b")), a.close(4, "lifetime"))
    host.commit()
    host.restart()
    host.feed(a.frames(5, bar(kit, 2, "c"), conn=2))
    assert told(host) == [(1, "a", False), (1, "b", False), (1, "b", True), (2, "c", False)]
    assert not host.out.events.gaps


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
def test_who_was_there_before_the_other_one_ended_has_missed_no_candle(kit: Any, closed: bool, ahead: bool) -> None:
    """Nothing was traded while both were there, and a minute ends; or the new one tells of the new minute first."""
    host, (a,) = begin(kit)
    b = kit.Feeder("r1-000000000002aaaaaa")
    host.feed(a.frames(kit.T0 + 1, bar(kit, 1, "a", closed=closed)), b.open(kit.T0 + 2, MINUTES))
    host.commit()
    host.restart()
    end = a.control(kit.T0 + 3, control.SessionEnd("shutdown"), conn=0)
    news = b.frames(kit.T0 + 4, bar(kit, 5, "b"))
    host.feed(*((news, end) if ahead else (end, news)))
    host.commit()
    host.restart()
    host.feed(b.frames(kit.T0 + 5, bar(kit, 6, "c")))
    between = [] if closed else [(1, "a", True)]
    assert told(host) == [(1, "a", closed), *between, (5, "b", False), (5, "b", True), (6, "c", False)]
    assert not host.out.events.gaps


@pytest.mark.parametrize(("cause", "later_ns"), [("shutdown", -1), ("silent", 1), ("silent", 89 * 10**9)])
def test_who_came_too_late_may_have_missed_one(kit: Any, cause: str, later_ns: int) -> None:
    """After the other one ended, though its end is read later; or while nobody knows whether that one still lived."""
    host, (a,) = begin(kit)
    b = kit.Feeder("r1-000000000002aaaaaa")
    host.feed(a.frames(kit.T0 + 1, bar(kit, 1, "a")), b.open(kit.T0 + 2, MINUTES))
    host.feed(a.close(kit.T0 + 2 + later_ns, cause), b.frames(kit.T0 + 10**11, bar(kit, 5, "b")))
    assert told(host) == [(1, "a", False), (5, "b", False)]
    (gap,) = host.out.events.gaps
    assert [m for m in range(9) if gap.from_seq < m * MINUTE // MS < gap.to_seq] == [1, 2, 3, 4]


def test_what_the_next_connection_brought_first_is_not_lost_with_the_old_one(kit: Any) -> None:
    host, (a, b) = begin(kit, 2)
    host.feed(a.frames(1, bar(kit, 1, "a")), b.frames(1, bar(kit, 1, "b"), bar(kit, 2, "c"), bar(kit, 2, "d")))
    assert told(host) == [(1, "a", False)]
    host.feed(a.close(2))
    assert told(host)[1:] == [(1, "b", False), (1, "b", True), (2, "d", False)]
    assert not host.out.events.gaps


def test_a_connection_that_ended_before_brings_nothing_later(kit: Any) -> None:
    host, (a, b) = begin(kit, 2)
    host.feed(a.frames(1, bar(kit, 1, "a")), b.frames(1, bar(kit, 1, "b"), bar(kit, 2, "c")), b.close(2), a.close(3))
    host.feed(a.open(3, kit.topic("Candles"), conn=2, first=False), a.frames(4, bar(kit, 3, "d"), conn=2))
    assert told(host) == [(1, "a", False), (3, "d", False)]
    (gap,) = host.out.events.gaps
    assert [m for m in range(9) if gap.from_seq < m * MINUTE // MS < gap.to_seq] == [1, 2]


def test_intervals_are_apart(kit: Any) -> None:
    host, (a,) = begin(kit)
    host.feed(
        a.frames(
            1, bar(kit, 1, "a"), bar(kit, 0, "x", interval="5m"), bar(kit, 2, "b"), bar(kit, 0, "y", interval="5m")
        )
    )
    found = [(c.interval, c.open_ns // MINUTE, c.close, c.closed) for c in host.commit().events.candles]
    assert found == [
        ("1m", 1, "a", False),
        ("5m", 0, "x", False),
        ("1m", 1, "a", True),
        ("1m", 2, "b", False),
        ("5m", 0, "y", False),
    ]
