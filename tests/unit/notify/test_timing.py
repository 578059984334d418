"""When something is told: states over looks, quiet hours, the chat's limit."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from feedmill.general.notify.limit import MINUTE, SPACE, Window
from feedmill.general.notify.notices import Finding, Look, Notice
from feedmill.general.notify.quiet import QuietTimes, not_before
from feedmill.general.notify.states import AGAIN, CLEAR, LONGEST_CLEAR, MEMORY, MOST, States, step
from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND

NOW = 1_790_000_000 * SECOND
BERLIN = ZoneInfo("Europe/Berlin")


def stale(key: str = "FeedStale/default/spot/0", **more: int) -> Finding:
    return Finding("FeedStale", "default/spot", key, {"shard": 0}, **more)


def looks(times: list[tuple[int, Look]], states: States | None = None) -> tuple[States, list[Notice]]:
    told: list[Notice] = []
    now_states: States = states or {}
    for seconds, look in times:
        now_states, notices = step(now_states, look, NOW + seconds * SECOND)
        told += notices
    return now_states, told


def test_a_state_is_told_once_it_has_lasted_and_once_it_is_over() -> None:
    there, gone = Look((stale(),)), Look()
    states, told = looks([(0, there), (30, there), (60, there), (90, there), (100, gone), (119, gone), (120, gone)])
    assert [("over" in notice.body, notice.at_ns - NOW) for notice in told] == [
        (False, 60 * SECOND), (True, 120 * SECOND)
    ]  # fmt: skip
    assert told[0].body["since_ns"] == NOW
    assert told[1].body["lasted_ns"] == 90 * SECOND
    assert states["FeedStale/default/spot/0"].over


def test_what_is_over_before_it_lasted_is_never_told() -> None:
    there, gone = Look((stale(),)), Look()
    states, told = looks([(0, there), (30, there), (31, gone), (32, there), (90, there)])
    assert told == []
    assert set(states) == {"FeedStale/default/spot/0"}


def test_a_look_that_is_blind_changes_nothing() -> None:
    there, blind = Look((stale(),)), Look(blind=("FeedStale/",))
    states, told = looks([(0, there), (60, there), (100, blind), (5000, blind), (5005, there)])
    assert len(told) == 1
    assert not states["FeedStale/default/spot/0"].over


def test_a_beginning_that_is_known_counts() -> None:
    _, told = looks([(0, Look((Finding("GapOpen", "f", "GapOpen/f", {}, NOW - 121 * SECOND),)))])
    assert len(told) == 1
    _, told = looks([(0, Look((Finding("GapOpen", "f", "GapOpen/f", {}, NOW - 119 * SECOND),)))])
    assert told == []
    # Each gap is repaired within the time: there is always one, and none of them lasts.
    _, told = looks(
        [(n * 60, Look((Finding("GapOpen", "f", "GapOpen/f", {}, NOW + n * 60 * SECOND),))) for n in range(9)]
    )
    assert told == []


def test_what_goes_on_is_told_again_each_day() -> None:
    there = Look((stale(),))
    day = AGAIN // SECOND
    _, told = looks([(0, there), (60, there), (day, there), (60 + day, there), (60 + 2 * day, there)])
    assert ["again" in notice.body for notice in told] == [False, True, True]


def test_what_comes_and_goes_is_told_ever_more_seldom() -> None:
    times: list[tuple[int, Look]] = []
    at = 0
    while at < 3600:
        # A minute there and a half away, for an hour.
        times += [(at + s, Look((stale(),))) for s in range(0, 65, 5)]
        times += [(at + s, Look()) for s in range(65, 100, 5)]
        at += 100
    _, told = looks(times)
    assert 2 <= len(told) <= 8
    without_memory = 2 * 36
    assert len(told) < without_memory // 4


def test_what_is_over_is_forgotten_after_a_while() -> None:
    there, gone = Look((stale(),)), Look()
    after = 95 + CLEAR // SECOND + MEMORY // SECOND
    states, _ = looks([(0, there), (60, there), (95, gone), (after, gone)])
    assert states == {}


def test_there_is_a_bound_of_states() -> None:
    many = Look(tuple(stale(f"FeedStale/{n}") for n in range(2 * MOST + 50)))
    states, _ = looks([(0, many)])
    assert len(states) == 2 * MOST
    states, _ = looks([(0, Look(spilling()))])
    assert len(states) == MOST


def spilling() -> tuple[Finding, ...]:
    return tuple(Finding("Spilling", f"default/f{n}", f"Spilling/default/f{n}/0") for n in range(MOST + 50))


def test_a_server_that_is_away_is_told_though_a_thousand_shards_tell_of_it_first() -> None:
    away = Finding("ServerAway", "Redis of default/main", "ServerAway/redis")
    _, told = looks([(0, Look((*spilling(), away))), (15, Look((*spilling(), away)))])
    assert [notice.key for notice in told] == ["ServerAway/redis"]


def test_what_is_over_gives_way_to_what_is_new() -> None:
    spills, lags = Look(spilling()), Look(tuple(Finding("Lagging", "p", f"Lagging/{n}") for n in range(10)))
    states, told = looks([(0, spills), (60, spills), (100, Look()), (110, lags), (170, lags)])
    assert [notice.key for notice in told[-10:]] == [f"Lagging/{n}" for n in range(10)]
    assert len(states) == MOST


def test_the_wait_until_something_is_over_has_a_bound() -> None:
    states, _ = looks([(0, Look((stale(),))), (60, Look((stale(),)))])
    states["FeedStale/default/spot/0"].times = 500
    _, told = looks([(60 + LONGEST_CLEAR // SECOND, Look())], states)
    assert len(told) == 1


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-26T21:59", None),
        ("2026-11-26T22:00", "2026-11-27T07:00"),
        ("2026-11-27T00:00", "2026-11-27T07:00"),
        ("2026-11-27T06:59", "2026-11-27T07:00"),
        ("2026-11-27T07:00", None),
        # The night in which the clocks go forward, and back.
        ("2026-03-28T23:00", "2026-03-29T07:00"),
        ("2026-10-24T23:00", "2026-10-25T07:00"),
    ],
)
def test_quiet_hours_over_midnight(now: str, until: str | None) -> None:
    quiet = QuietTimes(22 * 60, 7 * 60, BERLIN)
    assert quiet.until(at(now)) == (None if until is None else at(until))


@pytest.mark.parametrize(
    ("now", "until"),
    [
        # 02:00 becomes 03:00: half past two never comes, and hours to it end at three.
        ("2026-03-28T22:30:00+00:00", "2026-03-29T01:00:00+00:00"),
        ("2026-03-29T00:59:59+00:00", "2026-03-29T01:00:00+00:00"),
        ("2026-03-29T01:00:00+00:00", None),
        # 03:00 becomes 02:00: half past two comes twice.
        ("2026-10-24T22:30:00+00:00", "2026-10-25T00:30:00+00:00"),
        ("2026-10-25T00:30:00+00:00", None),
        ("2026-10-25T01:10:00+00:00", "2026-10-25T01:30:00+00:00"),
        ("2026-10-25T01:30:00+00:00", None),
    ],
)
def test_quiet_hours_that_end_where_the_clock_is_set(now: str, until: str | None) -> None:
    quiet = QuietTimes(22 * 60, 2 * 60 + 30, BERLIN)
    moment = round(datetime.fromisoformat(now).timestamp()) * SECOND
    expected = None if until is None else round(datetime.fromisoformat(until).timestamp()) * SECOND
    assert quiet.until(moment) == expected


@given(
    st.integers(min_value=0, max_value=366 * 24 * 60),
    st.integers(min_value=0, max_value=1439),
    st.integers(min_value=0, max_value=1439),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
)
def test_the_end_of_quiet_hours_is_to_come_and_is_their_end(minutes: int, begin: int, end: int, zone: str) -> None:
    assume(begin != end)
    quiet = QuietTimes(begin, end, ZoneInfo(zone))
    until = quiet.until(now := NOW + minutes * 60 * SECOND)
    if until is not None:
        assert now < until <= now + 25 * 3600 * SECOND
        # Nothing that is put off waits longer than what comes then.
        assert quiet.until(until) is None
        assert quiet.until(until - SECOND) == until


def test_quiet_hours_within_a_day_and_what_is_critical() -> None:
    quiet = QuietTimes(9 * 60, 12 * 60 + 30, BERLIN)
    assert quiet.until(at("2026-11-26T12:29")) == at("2026-11-26T12:30")
    assert quiet.until(at("2026-11-26T12:30")) is None
    assert quiet.until(at("2026-11-26T08:59")) is None
    assert not_before(Severity.WARNING, at("2026-11-26T10:00"), quiet) == at("2026-11-26T12:30")
    assert not_before(Severity.CRITICAL, at("2026-11-26T10:00"), quiet) == 0
    assert not_before(Severity.INFO, at("2026-11-26T10:00"), None) == 0


@given(
    st.integers(min_value=1, max_value=60),
    st.lists(st.floats(min_value=0, max_value=90), min_size=1, max_size=100),
    st.lists(st.floats(min_value=-60, max_value=0), max_size=30),
)
def test_no_minute_has_more_than_the_limit(per_minute: int, pauses: list[float], before: list[float]) -> None:
    """However long is paused between, and whatever was sent by the process before."""
    window = Window(per_minute, before[:per_minute])
    now, sent = 0.0, sorted(before[:per_minute])
    for pause in pauses:
        now += pause + window.wait(now + pause)
        assert window.wait(now) <= 1e-6
        window.count(now)
        sent.append(now)
        in_the_minute = [each for each in sent if each > now - MINUTE + 1e-6]
        assert len(in_the_minute) <= per_minute
    own = sent[len(before[:per_minute]) :]
    assert all(later - earlier >= SPACE - 1e-6 for earlier, later in pairwise(own))
