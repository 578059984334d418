"""When a schedule is due: fields, days of month or week, months without such a day, summer time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.resources.cron import parse_cron, zone_of
from feedmill.resources.types import Schedule

NS = 1_000_000_000


def ns(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * NS


def shown(at_ns: int | None, zone: str = "UTC") -> str:
    assert at_ns is not None
    return datetime.fromtimestamp(at_ns // NS, ZoneInfo(zone)).isoformat(timespec="minutes")[:16]


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("0 3 * * *", "2026-11-26T02:59", "2026-11-26T03:00"),
        ("0 3 * * *", "2026-11-26T03:00", "2026-11-27T03:00"),
        ("*/20 * * * *", "2026-11-26T03:41", "2026-11-26T04:00"),
        ("5/20 9-17/4 * * *", "2026-11-26T09:46", "2026-11-26T13:05"),
        ("0 0 31 * *", "2026-01-31T00:00", "2026-03-31T00:00"),
        ("0 0 29 FEB *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 12 * * MON-FRI", "2026-11-27T12:00", "2026-11-30T12:00"),
        ("0 12 * jan,dec Sun", "2026-11-27T12:00", "2026-12-06T12:00"),
        # Both days named: either will do. One of them a star: the other decides.
        ("0 0 13 * 5", "2026-11-13T00:00", "2026-11-20T00:00"),
        ("0 0 */1 * 5", "2026-11-13T00:00", "2026-11-20T00:00"),
        ("0 0 13 * *", "2026-11-13T00:00", "2026-12-13T00:00"),
        ("@weekly", "2026-11-26T00:00", "2026-11-29T00:00"),
        ("@yearly", "2026-11-26T00:00", "2027-01-01T00:00"),
    ],
)
def test_next(schedule: str, after: str, expected: str) -> None:
    assert shown(Schedule(schedule).next_after(ns(after), "UTC")) == expected


def test_a_zone_of_its_own() -> None:
    berlin = "Europe/Berlin"
    daily = Schedule("30 2 * * *")
    # Night of 29 March 2026: 02:30 does not exist. Night of 25 October: it comes twice.
    assert shown(daily.next_after(ns("2026-03-28T12:00"), berlin), berlin) == "2026-03-30T02:30"
    first = daily.next_after(ns("2026-10-24T12:00"), berlin)
    assert first == ns("2026-10-25T00:30")
    assert daily.next_after(first, berlin) == ns("2026-10-25T01:30")
    # On the other side of the date line the day begins before it does in UTC.
    assert daily.next_after(ns("2026-11-25T12:30"), "Pacific/Kiritimati") == ns("2026-11-26T12:30")
    assert daily.next_after(ns("2026-11-25T13:29"), "Pacific/Pago_Pago") == ns("2026-11-25T13:30")


def test_a_day_that_never_comes() -> None:
    never = Schedule("0 0 30 2 *")
    assert never.next_after(ns("2026-01-01T00:00"), "UTC") is None
    assert never.last_before(ns("2026-01-01T00:00"), "UTC") is None


@given(
    minute=st.sampled_from(["*", "7", "*/13", "0,30"]),
    hour=st.sampled_from(["*", "3", "0-6/2", "23"]),
    day=st.sampled_from(["*", "1", "31", "*/5"]),
    weekday=st.sampled_from(["*", "0", "MON,FRI"]),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_next_and_last_meet(minute: str, hour: str, day: str, weekday: str, at: datetime, zone: str) -> None:
    cron, where = parse_cron(f"{minute} {hour} {day} * {weekday}"), zone_of(zone)
    at_ns = int(at.timestamp()) * NS
    following = cron.next_after(at_ns, where)
    assert following is not None
    assert following > at_ns
    # Nothing lies between: what came last before it is not later than where the search began.
    last = cron.last_before(following - 1, where)
    assert last is not None
    assert last <= at_ns
    assert cron.last_before(following, where) == following
    told = datetime.fromtimestamp(following // NS, where)
    assert told.minute in cron.minutes
    assert told.hour in cron.hours
    assert told.second == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 3 * *", "4 fields instead of five"),
        ("60 3 * * *", "minute '60' is not one of 0 to 59"),
        ("0 24 * * *", "hour '24'"),
        ("0 3 0 * *", "day '0'"),
        ("0 3 * 13 *", "month '13'"),
        ("0 3 * * 7", "weekday '7' is not one of 0 to 6"),
        ("0 3 * * MAR", "weekday 'MAR'"),
        ("0 5-3 * * *", "hour '5-3' ends before it begins"),
        ("*/0 3 * * *", "minute '0'"),
        ("0 3 , * *", "day ''"),
    ],
)
def test_what_is_not_a_schedule(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_cron(text)


def test_a_zone_that_is_not_known() -> None:
    for name in ("Europe/Berlim", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="not a known time zone"):
            zone_of(name)
