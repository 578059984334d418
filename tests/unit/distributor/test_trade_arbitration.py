"""Trades: in whatever order sessions bring them, each id is emitted once and nothing is missing in silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from feedmill.distributor import trades as trades_module
from feedmill.distributor.trades import TradeTrack
from feedmill.shared.events import Flag, Trade

SESSION = st.fixed_dictionaries(
    {
        "drop": st.sets(st.integers(1, 30), max_size=8),
        "double": st.sets(st.integers(1, 30), max_size=4),
        "swap": st.sets(st.integers(1, 29), max_size=4),
    }
)


def stream(faults: dict[str, Any], last: int) -> list[int]:
    """1..last as one faulty session brings it."""
    numbers = [n for n in range(1, last + 1) if n not in faults["drop"]]
    for place in sorted(faults["swap"]):
        if place < len(numbers):
            numbers[place - 1 : place + 1] = reversed(numbers[place - 1 : place + 1])
    return [n for number in numbers for n in [number] * (1 + (number in faults["double"]))]


@examples(max_examples=300)
@given(
    st.lists(SESSION, min_size=1, max_size=3),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_each_id_once_and_every_hole_in_a_row(
    kit: Any, faults: list[dict[str, Any]], random: Any, every: int, pace: float
) -> None:
    host = kit.Host(kit.settings_of(grace_ns=kit.SECOND // 10))
    feeders = [kit.Feeder(f"r{n}-00000000000{n}aaaaaa") for n in range(len(faults))]
    streams = [stream(each, 30) for each in faults]
    host.feed(*(feeder.open(kit.T0, kit.topic("Trades")) for feeder in feeders))
    seen: list[int] = []
    step = 0
    while any(streams):
        who = random.choice([n for n, left in enumerate(streams) if left])
        size = random.randint(1, 5)
        part, streams[who] = streams[who][:size], streams[who][size:]
        seen += part
        host.now += int(pace * kit.SECOND)
        host.feed(feeders[who].frames(host.now, *map(kit.trade, part)))
        step += 1
        if step % every == 0:
            host.commit()
    host.tick(10.0)
    out = host.commit()
    assert len(out.trades) == len(set(out.trades))
    assert set(out.trades) <= set(seen)
    rows = out.rows().values()
    missing = kit.missing_of(rows)
    assert not missing & set(out.trades)
    assert set(out.trades) == set(seen)
    # The first ever opens no gap; what another session brings from before it makes the beginning earlier.
    assert missing | set(out.trades) == set(range(min(seen), max(seen) + 1))
    check_revisions(out.events.gaps)
    top = 0
    for event in out.events.trades:
        assert bool(event.flags & Flag.LATE) == (event.id < top)
        top = max(top, event.id)


def check_revisions(gaps: list[Any]) -> None:
    """Revisions rise by one, what is missing only shrinks, closed means that nothing is."""
    last: dict[str, Any] = {}
    for gap in gaps:
        before = last.get(gap.id)
        numbers = {n for low, high in gap.missing for n in range(low, high + 1)}
        assert gap.state == ("open" if numbers else "closed")
        assert (gap.repaired_by == "late") == (not numbers)
        assert gap.from_seq <= gap.to_seq
        assert gap.id == f"test.toy.0/BTC-USDT/Trades/{gap.from_seq}"
        if before is None:
            assert gap.revision == 1
        else:
            known, revision = before
            assert gap.revision == revision + 1
            assert numbers < known
        last[gap.id] = (numbers, gap.revision)


def open_one(kit: Any, **more: Any) -> tuple[Any, Any]:
    host, feeder = kit.Host(kit.settings_of(**more)), kit.Feeder()
    host.feed(feeder.open(kit.T0, kit.topic("Trades")))
    return host, feeder


def test_a_hole_filled_within_the_grace_time_is_no_gap(kit: Any) -> None:
    host, feeder = open_one(kit)
    host.feed(feeder.frames(kit.T0, *map(kit.trade, (1, 4))))
    host.feed(feeder.frames(kit.T0 + 2 * kit.SECOND - 1, *map(kit.trade, (3, 2))))
    host.feed(feeder.frames(kit.T0 + 9 * kit.SECOND, kit.trade(5)))
    out = host.tick(9.0).commit()
    assert out.trades == [1, 4, 3, 2, 5]
    assert [bool(event.flags & Flag.LATE) for event in out.events.trades] == [False, False, True, True, False]
    assert not out.events.gaps


@pytest.mark.parametrize("by", ["records", "wall clock"])
def test_grace_ends_by_later_records_or_by_the_clock_when_idle(kit: Any, by: str) -> None:
    host, feeder = open_one(kit)
    host.feed(feeder.frames(kit.T0, *map(kit.trade, (1, 4))))
    host.tick(1.9)
    assert not host.commit().events.gaps
    if by == "records":
        host.feed(feeder.frames(kit.T0 + 2 * kit.SECOND, kit.trade(5)))
    else:
        host.tick(0.2, idle=False)
        assert not host.commit().events.gaps  # Not everything was read: what fills it may be there already.
        host.tick(0.0)
    (gap,) = host.commit().events.gaps
    assert (gap.state, gap.missing, gap.cause, gap.revision) == ("open", [(2, 3)], "sequence", 1)
    assert (gap.from_ns, gap.to_ns) == (kit.T0, kit.T0)


@pytest.mark.parametrize(
    ("records", "cause"),
    [
        ("closed", "disconnected"),
        ("shed", "shed"),
        ("session", "session_lost"),
        ("jump", "redis_lost"),
        ("", "sequence"),
    ],
)
def test_the_cause_of_a_hole(kit: Any, records: str, cause: str) -> None:
    host, feeder = open_one(kit)
    host.feed(feeder.frames(kit.T0, kit.trade(1)))
    topic = kit.topic("Trades")
    skip = 0
    if records == "closed":
        host.feed(feeder.close(kit.T0), feeder.open(kit.T0, topic, conn=2, first=False))
    elif records == "session":
        feeder = kit.Feeder("r0-000000000002bbbbbb", started_ns=2)
        host.feed(feeder.open(kit.T0, topic))
    elif records == "shed":
        from feedmill.shared.control import Shed

        host.feed(feeder.control(kit.T0, Shed(1, 3, 10, kit.T0, kit.T0)))
    elif records == "jump":
        skip = 2
    host.feed(feeder.batch(feeder.run(kit.T0, kit.trade(4)), skip=skip))
    (gap,) = host.tick(5.0).commit().events.gaps
    assert (gap.cause, gap.missing) == (cause, [(2, 3)])


def test_a_backfill_closes_the_gap_under_its_name(kit: Any) -> None:
    host, feeder = open_one(kit)
    host.feed(feeder.frames(kit.T0, *map(kit.trade, (1, 4)))).tick(5.0)
    body = kit.frame(*(["t", kit.SYMBOL, n, kit.T0] for n in (1, 2, 3)))
    host.feed(feeder.answer(kit.T0, body, command="c7", kind="trades"))
    out = host.commit()
    assert out.trades == [1, 4, 2, 3]
    (row,) = out.rows().values()
    assert (row.state, row.missing, row.repaired_by, row.revision) == ("closed", [], "backfill:c7", 2)


def test_numbers_that_begin_anew_go_on_and_their_holes_stay_told(kit: Any) -> None:
    host, feeder = open_one(kit)
    host.feed(feeder.frames(kit.T0, kit.trade(100), kit.trade(105)))  # A hole that is not a gap yet.
    later = kit.T0 + 301 * kit.SECOND
    host.feed(feeder.frames(kit.T0 + 1, kit.trade(1, later), kit.trade(2, later), kit.trade(4, later)))
    out = host.tick(5.0).commit()
    assert out.trades == [100, 105, 1, 2, 4]
    assert {gap.id.rpartition("/")[2]: gap.missing for gap in out.events.gaps} == {"101": [(101, 104)], "3": [(3, 3)]}


def test_a_lower_number_without_much_later_time_is_a_repeat(kit: Any) -> None:
    host, feeder = open_one(kit)
    host.feed(feeder.frames(kit.T0, *map(kit.trade, (7, 8, 9)), kit.trade(7, kit.T0 + 299 * kit.SECOND)))
    assert host.commit().trades == [7, 8, 9]


def test_what_another_receiver_saw_before_the_first_ever_is_kept(kit: Any) -> None:
    """Two receivers begin while Redis is away, and the one that began later reaches it first."""
    host = kit.Host(kit.settings_of())
    a, b = kit.Feeder("r0-000000000001aaaaaa"), kit.Feeder("r1-000000000002bbbbbb")
    host.feed(b.open(kit.T0, kit.topic("Trades")), b.frames(kit.T0 + 5, *map(kit.trade, (10, 11))))
    host.commit()
    host.restart()
    host.feed(a.open(kit.T0, kit.topic("Trades")), a.frames(kit.T0 + 1, *map(kit.trade, (5, 6, 8, 9, 10, 11, 12))))
    out = host.tick(5.0).commit()
    assert out.trades == [10, 11, 5, 6, 8, 9, 12]
    assert [bool(event.flags & Flag.LATE) for event in out.events.trades] == [
        False,
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    (gap,) = out.rows().values()
    assert (gap.missing, gap.cause, gap.state) == ([(7, 7)], "sequence", "open")
    assert (gap.from_ns, gap.to_ns) == (kit.T0 + 1, kit.T0 + 5)


@pytest.mark.parametrize("expired", [0, 2, 5])
def test_too_many_holes_are_never_silent(kit: Any, monkeypatch: pytest.MonkeyPatch, expired: int) -> None:
    monkeypatch.setattr(trades_module, "MAX_HOLES", 3)
    host, feeder = open_one(kit)
    numbers = range(1, 20, 2)
    for count, number in enumerate(numbers):
        host.feed(feeder.frames(kit.T0, kit.trade(number)))
        if count == expired:
            host.tick(5.0)
    host.feed(feeder.frames(kit.T0, *map(kit.trade, (2, 18))))  # The first hole is forgotten, the last one is not.
    out = host.tick(5.0).commit()
    emitted, missing = set(out.trades), kit.missing_of(out.rows().values())
    assert len(out.trades) == len(emitted)
    assert 18 in emitted
    assert not emitted & missing
    assert emitted | missing == set(range(1, 20))
    check_revisions(out.events.gaps)


@examples(max_examples=200)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.data())
@example([5, 1, 9, 7, 6, 8], None)
def test_the_track_alone_accepts_each_number_once(numbers: list[int], data: Any) -> None:
    track, gaps, emitted = TradeTrack.begin(Trade("S", numbers[0], "1", "1", 1, 0, 0)), [], [numbers[0]]
    for at, number in enumerate(numbers[1:], 1):
        if track.accept(Trade("S", number, "1", "1", 1, 0, at), "x", gaps):
            emitted.append(number)
        track.expire(at - (3 if data is None else data.draw(st.integers(0, 6))), "x", gaps)
    track.expire(10**6, "x", gaps)
    assert len(emitted) == len(set(emitted))
    rows = {gap.id: gap for gap in gaps}
    missing = {n for gap in rows.values() for low, high in gap.missing for n in range(low, high + 1)}
    assert missing | set(emitted) == set(range(min(numbers), max(numbers) + 1))
    assert not track.waiting
