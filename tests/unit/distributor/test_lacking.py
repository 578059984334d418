"""Trades that a database restored from a backup lacks: the distributor has emitted them, and is told to fetch them."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from feedmill.distributor.gaps import joined, within
from feedmill.distributor.trades import Hole, TradeTrack
from feedmill.shared import control
from feedmill.shared.events import Side, Trade

PAGE = 10


def told(kit: Any, host: Any, *ranges: tuple[int, int]) -> None:
    """What a processor appends."""
    teller = kit.Feeder("restore-0198c2b50000aaaaaa")
    records = [control.Missing(kit.SYMBOL, list(ranges), kit.T0, kit.T0), control.SessionEnd()]
    host.feed(teller.control(host.now, *records, conn=0))


def begun(kit: Any, *numbers: int) -> tuple[Any, Any]:
    host = kit.Host(kit.settings_of(trades_page=PAGE))
    feeder = kit.Feeder()
    host.feed(feeder.open(kit.T0, kit.topic("Trades")))
    host.feed(feeder.frames(host.now, *(kit.trade(n) for n in numbers)))
    return host, feeder


def answer(kit: Any, host: Any, feeder: Any, command: control.Command) -> None:
    numbers = range(command.from_id, command.to_id + 1)
    body = kit.frame(*(["t", command.symbol, n, kit.T0] for n in numbers))
    host.feed(feeder.answer(host.now, body, command=command.id, kind="trades", symbol=command.symbol))


def test_what_was_emitted_is_fetched_and_emitted_again_without_a_row_of_its_own(kit: Any) -> None:
    host, feeder = begun(kit, *range(1, 31))
    host.tick(0.0)
    host.commit()
    told(kit, host, (5, 24))
    host.tick(1.0)
    commands = host.commit().commands
    assert [(each.from_id, each.to_id) for each in commands] == [(5, 14), (15, 24)]
    for command in commands:
        answer(kit, host, feeder, command)
    host.tick(1.0)
    host.commit()
    assert host.out.trades == [*range(1, 31), *range(5, 25)]
    assert host.out.rows() == {}, "the row is the processor's"
    assert host.engine.backfill.idle


def test_what_lies_before_the_first_trade_ever_seen_is_fetched_too(kit: Any) -> None:
    host, feeder = begun(kit, 50, 51)
    told(kit, host, (45, 49))
    host.tick(1.0)
    (command,) = host.commit().commands
    answer(kit, host, feeder, command)
    host.tick(1.0)
    host.commit()
    assert host.out.trades == [50, 51, 45, 46, 47, 48, 49]
    assert host.engine.backfill.idle


def test_told_again_and_over_a_restart_nothing_is_asked_for_twice(kit: Any) -> None:
    host, feeder = begun(kit, *range(1, 11))
    told(kit, host, (3, 4))
    host.tick(1.0)
    (command,) = host.commit().commands
    host.restart()
    told(kit, host, (3, 4))
    host.tick(1.0)
    assert host.commit().commands == [command]
    answer(kit, host, feeder, command)
    host.tick(1.0)
    host.commit()
    assert host.out.trades[-2:] == [3, 4]


def test_an_instrument_that_nobody_has_seen_yet_changes_nothing(kit: Any) -> None:
    host, _ = begun(kit)
    told(kit, host, (3, 4))
    host.tick(1.0)
    assert host.commit().commands == []


ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda each: (each[0], each[0] + each[1])), max_size=5
)


def numbers(parts: list[tuple[int, int]]) -> set[int]:
    return {number for low, high in parts for number in range(low, high + 1)}


@given(first=st.integers(0, 20), holes=ranges, lacking=st.lists(ranges, max_size=3))
def test_holes_stay_apart_and_name_exactly_what_is_lacking(
    first: int, holes: list[tuple[int, int]], lacking: list[list[tuple[int, int]]]
) -> None:
    last = Trade("BTC-USDT", 50, "1", "1", Side.BUY, 0, 0)
    before = [
        Hole(low, high, [(low, high)], 0, 0, "sequence", revision=1) for low, high in within(joined(holes), first, 49)
    ]
    track = TradeTrack("BTC-USDT", last, holes=before, first=first)
    wanted = {number for hole in before for number in range(hole.from_seq, hole.to_seq + 1)}
    for each in lacking:
        track.lack(each, 0, 0)
        wanted |= {number for number in numbers(each) if number <= 50}
        found = [number for hole in track.holes for number in sorted(numbers(hole.missing))]
        assert sorted(found) == sorted(wanted)
        assert len(found) == len(set(found))
        spans = [(hole.from_seq, hole.to_seq) for hole in track.holes]
        assert spans == sorted(spans)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
        assert track.lack(each, 0, 0) is False
