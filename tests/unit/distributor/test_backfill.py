"""Gaps of trades that are asked for by REST: pages, answers, failures, restarts, and what a venue no longer offers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.distributor.backfill import ABSENT, ABSENT_AMONG, IN_ALL, OVERDUE_NS, PER_INSTRUMENT, UNDER_WAY
from feedmill.distributor.gaps import joined, within, without
from feedmill.shared import control

PAGE = 10


class Shard:
    """A distributor with a page of 10, one receiver session, and what the receivers were asked and did not answer."""

    def __init__(self, kit: Any, **more: Any) -> None:
        self.kit = kit
        self.host = kit.Host(kit.settings_of(trades_page=PAGE, **more))
        self.feeder = kit.Feeder()
        self.host.feed(self.feeder.open(kit.T0, kit.topic("Trades")))
        self.seen = 0

    def trades(self, *numbers: int, symbol: str = "") -> Shard:
        symbol = symbol or self.kit.SYMBOL
        self.host.feed(self.feeder.frames(self.host.now, *(self.kit.trade(n, symbol=symbol) for n in numbers)))
        return self

    def asked(self, seconds: float = 0.0) -> list[control.Command]:
        """Time passes, a commit is made; what was asked for since."""
        self.host.tick(seconds)
        commands = self.host.commit().commands
        new, self.seen = commands[self.seen :], len(commands)
        return new

    def answer(self, command: control.Command, *numbers: int) -> Shard:
        body = self.kit.frame(*(["t", command.symbol, n, self.kit.T0] for n in numbers))
        record = self.feeder.answer(self.host.now, body, command=command.id, kind="trades", symbol=command.symbol)
        self.host.feed(record)
        return self

    def fail(self, command: control.Command, status: int = 0) -> Shard:
        self.host.feed(
            self.feeder.control(
                self.host.now, control.RestFailed(command.id, command.symbol, "it failed", status), conn=0
            )
        )
        return self

    @property
    def row(self) -> Any:
        (row,) = self.host.out.rows().values()
        return row


def test_a_gap_is_asked_for_once_it_is_told_and_closed_by_the_answer(kit: Any) -> None:
    shard = Shard(kit).trades(1, 2, 6)
    assert shard.asked() == []
    (command,) = shard.asked(3.0)
    assert (command.kind, command.symbol, command.channel) == ("trades", kit.SYMBOL, "Trades")
    assert (command.from_id, command.to_id, command.from_ns, command.to_ns) == (3, 5, kit.T0, kit.T0)
    assert shard.row.state == "open"
    shard.answer(command, 3, 4, 5)
    assert shard.asked(1.0) == []
    assert shard.host.out.trades == [1, 2, 6, 3, 4, 5]
    assert (shard.row.state, shard.row.repaired_by, shard.row.revision) == ("closed", f"backfill:{command.id}", 2)
    assert not any(name.startswith(b"f:") for name in shard.host.fields)
    assert shard.host.engine.backfill.idle


def test_what_a_replica_fills_in_time_is_not_asked_for(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3).trades(2)
    assert shard.asked(5.0) == []


def test_a_large_gap_goes_page_by_page_oldest_first(kit: Any) -> None:
    shard = Shard(kit).trades(1, 100)
    pages = shard.asked(3.0)
    assert [(page.from_id, page.to_id) for page in pages] == [(n, n + PAGE - 1) for n in range(2, 2 + 8 * PAGE, PAGE)]
    shard.answer(pages[1], *range(12, 22))
    assert [(page.from_id, page.to_id) for page in shard.asked(0.2)] == [(82, 91)]
    assert shard.row.missing == [(2, 11), (22, 99)]


def test_many_small_holes_share_a_page(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3, 5, 7, 20, 22)
    pages = shard.asked(3.0)
    assert [(page.from_id, page.to_id) for page in pages] == [(2, 11), (12, 21)]
    shard.answer(pages[0], *range(2, 12))
    shard.answer(pages[1], *range(12, 22))
    assert shard.asked(0.2) == []
    assert sorted(shard.host.out.trades) == list(range(1, 23))
    assert {row.state for row in shard.host.out.rows().values()} == {"closed"}


def test_a_venue_that_gives_fewer_at_a_time_is_asked_for_the_rest_at_once(kit: Any) -> None:
    shard = Shard(kit).trades(1, 10)
    (command,) = shard.asked(3.0)
    shard.answer(command, 2, 3, 4)
    (command,) = shard.asked(0.2)
    assert (command.from_id, command.to_id) == (5, 9)


def test_trades_beyond_the_stream_and_known_ones_are_not_emitted(kit: Any) -> None:
    shard = Shard(kit).trades(1, 4)
    (command,) = shard.asked(3.0)
    shard.answer(command, 1, 2, 3, 4, 5, 6).trades(5)
    shard.asked()
    assert shard.host.out.trades == [1, 4, 2, 3, 5]


def test_one_page_at_most_under_way_for_each_of_many_instruments(kit: Any) -> None:
    shard = Shard(kit)
    symbols = [f"S{n}-USDT" for n in range(100)]
    for symbol in symbols:
        shard.trades(1, 5, symbol=symbol)
    done: set[str] = set()
    for _ in range(100):
        commands = shard.asked(3.0 if not done else 0.2)
        assert len(commands) <= UNDER_WAY
        for command in commands:
            shard.answer(command, 2, 3, 4)
            done.add(command.symbol)
    assert done == set(symbols)
    assert {row.state for row in shard.host.out.rows().values()} == {"closed"}


def test_a_failed_request_is_made_again_ever_more_seldom_and_for_ever(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3)
    (command,) = shard.asked(3.0)
    waits = []
    for _ in range(12):
        shard.fail(command)
        waited = 0
        while not (found := shard.asked(1.0)):
            waited += 1
        (command,) = found
        waits.append(waited + 1)
    assert waits == [2, 4, 8, 16, 32, 64, *[120] * 6]
    shard.answer(command, 2)
    shard.asked(1.0)
    assert shard.row.state == "closed"


def test_without_an_answer_it_is_asked_again(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3)
    (command,) = shard.asked(3.0)
    assert shard.asked(OVERDUE_NS / 1e9 - 1) == []
    (again,) = shard.asked(1.0) or shard.asked(2.0)
    assert (again.from_id, again.to_id) == (2, 2)
    assert again.id != command.id
    shard.answer(command, 2)  # The first one was only late.
    assert shard.asked(1.0) == []
    assert shard.row.repaired_by == f"backfill:{command.id}"
    shard.answer(again, 2)
    shard.asked(1.0)
    assert shard.host.out.trades == [1, 3, 2]


def test_a_hole_that_nobody_else_can_fill_is_a_gap_and_asked_for_at_once(kit: Any) -> None:
    shard = Shard(kit).trades(1, 2)
    shard.host.feed(shard.feeder.close(shard.host.now))
    shard.host.feed(shard.feeder.open(shard.host.now, kit.topic("Trades"), conn=2, first=False))
    shard.host.feed(shard.feeder.frames(shard.host.now, kit.trade(6), conn=2))
    (command,) = shard.asked(0.2)
    assert (command.from_id, command.to_id) == (3, 5)
    assert (shard.row.state, shard.row.cause, shard.row.missing) == ("open", "disconnected", [(3, 5)])


def test_what_a_session_had_claimed_is_issued_once_more_when_it_ends(kit: Any) -> None:
    """The same command, with the sessions that live: one of them that works on it goes on."""
    shard = Shard(kit).trades(1, 30)
    pages = shard.asked(3.0)
    assert [page.living for page in pages] == [None] * 3
    other = kit.Feeder("r1-000000000002bbbbbb", started_ns=5)
    shard.host.feed(other.open(shard.host.now, kit.topic("Trades")))
    again = shard.asked()
    assert [page.id for page in again] == [page.id for page in pages]
    assert {tuple(page.living) for page in again} == {(shard.feeder.session, other.session)}
    shard.answer(pages[0], *range(2, 12))
    shard.host.feed(shard.feeder.control(shard.host.now, control.SessionEnd("killed")))
    shard.feeder = other
    again = shard.asked()
    assert [(page.id, page.from_id, page.to_id, page.living) for page in again] == [
        (page.id, page.from_id, page.to_id, [other.session]) for page in pages[1:]
    ]
    assert all(page.issued_ns >= pages[0].issued_ns for page in again)
    for page in again:
        shard.answer(page, *range(page.from_id, page.to_id + 1))
    assert shard.asked(1.0) == []
    assert shard.row.state == "closed"


def test_a_session_that_fell_silent_is_as_one_that_ended(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3)
    (command,) = shard.asked(3.0)
    shard.asked(1.0)
    found = [page for _ in range(20) for page in shard.asked(4.0)]
    assert [(page.id, page.living) for page in found] == [(command.id, [])]


def test_while_there_is_much_to_read_nothing_is_overdue(kit: Any) -> None:
    """The answer may stand in what was not read yet."""
    shard = Shard(kit).trades(1, 3)
    assert len(shard.asked(3.0)) == 1
    shard.host.tick(OVERDUE_NS / 1e9 + 70, idle=False)
    commands = shard.host.commit().commands
    assert len(commands) == 1
    assert len(shard.asked(0.2)) == 0  # It failed now that all was read, and waits for its turn.
    assert len(shard.asked(3.0)) == 1


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_knows_what_is_asked(kit: Any, crash: bool) -> None:
    shard = Shard(kit).trades(1, 30)
    pages = shard.asked(3.0)
    shard.answer(pages[0], *range(2, 12))
    if not crash:
        shard.asked(0.2)
    shard.host.restart()
    for page in pages[1:]:
        shard.answer(page, *range(page.from_id, page.to_id + 1))
    assert shard.asked(1.0) == []
    assert sorted(shard.host.out.trades) == list(range(1, 31))
    assert len(shard.host.out.trades) == 30
    assert shard.row.state == "closed"


def test_a_gap_told_before_a_restart_is_asked_for_after_it(kit: Any) -> None:
    """Told at an orderly end, or by a version that did not ask."""
    shard = Shard(kit).trades(1, 3)
    shard.host.engine.close_holes()
    shard.host.commit()
    shard.host.restart()
    (command,) = shard.asked(0.2)
    assert (command.from_id, command.to_id) == (2, 2)


def _given_up(shard: Shard) -> list[Any]:
    return [each for taken in shard.host.takes for each in taken.given_up]


def test_what_the_history_no_longer_has_stays_an_open_gap_and_is_told_once(kit: Any) -> None:
    """The venue answers with the first it has, far behind what was asked for."""
    shard = Shard(kit).trades(1, 100)
    for _ in range(20):
        for command in shard.asked(3.0):
            shard.answer(command, *range(max(command.from_id, 71), max(command.from_id, 71) + 10))
    assert sorted(shard.host.out.trades) == [1, *range(71, 101)]
    assert (shard.row.state, shard.row.missing, shard.row.repaired_by) == ("open", [(2, 70)], "")
    assert [(each.gap, each.trades) for each in _given_up(shard)] == [(shard.row.id, 69)]
    asked = [c for c in shard.host.out.commands if c.from_id == 2]
    assert len(asked) == 1 + ABSENT_AMONG  # The first answer filled the end of the gap.
    assert shard.host.engine.backfill.idle
    shard.host.restart()
    assert shard.asked(300.0) == []
    assert len(_given_up(shard)) == 1


@pytest.mark.parametrize("status", [0, 400])
def test_empty_answers_and_refusals_are_tried_for_a_while_only(kit: Any, status: int) -> None:
    shard = Shard(kit).trades(1, 3)
    count = 0
    for _ in range(400):
        for command in shard.asked(1.0):
            count += 1
            if status:
                shard.fail(command, status)
            else:
                shard.answer(command)
    assert count == ABSENT
    assert (shard.row.state, shard.row.missing) == ("open", [(2, 2)])
    assert len(_given_up(shard)) == 1
    shard.trades(2)  # It may come by a replica all the same.
    shard.asked()
    assert (shard.row.state, shard.row.repaired_by) == ("closed", "late")


def test_an_answer_that_cannot_be_read_is_a_dead_letter_and_a_refusal(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3)
    count = 0
    for _ in range(400):
        for command in shard.asked(1.0):
            count += 1
            shard.host.feed(shard.feeder.answer(shard.host.now, kit.frame(["map"]), command=command.id, kind="trades"))
    assert count == ABSENT == len(shard.host.out.events.dead_letters)
    assert shard.row.state == "open"


def test_a_venue_without_history_is_not_asked(kit: Any) -> None:
    host = kit.Host()
    feeder = kit.Feeder()
    host.feed(feeder.frames(kit.T0, kit.trade(1), kit.trade(3)))
    host.tick(3.0)
    assert host.commit().commands == []
    assert [row.state for row in host.out.rows().values()] == ["open"]


def test_an_instrument_given_up_is_not_asked_for(kit: Any) -> None:
    shard = Shard(kit).trades(1, 3)
    (command,) = shard.asked(3.0)
    gone = control.Unsubscribed(1, [kit.topic("Trades")], final=True)
    shard.host.feed(shard.feeder.control(shard.host.now, gone))
    shard.asked(1.0)
    shard.answer(command, 2)
    assert shard.asked(100.0) == []
    assert shard.host.out.trades == [1, 3]
    assert not any(name.startswith(b"f:") for name in shard.host.fields)


ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), max_size=8).map(
    lambda parts: joined([(low, low + size) for low, size in parts])
)


def _numbers(parts: list[tuple[int, int]]) -> set[int]:
    return {number for low, high in parts for number in range(low, high + 1)}


@given(ranges, ranges, st.integers(0, 70), st.integers(0, 70))
def test_sets_of_numbers(some: list[tuple[int, int]], others: list[tuple[int, int]], low: int, high: int) -> None:
    assert _numbers(without(some, others)) == _numbers(some) - _numbers(others)
    assert without(some, others) == joined(without(some, others))
    assert _numbers(within(some, low, high)) == {n for n in _numbers(some) if low <= n <= high}
    assert _numbers(joined(some + others)) == _numbers(some) | _numbers(others)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("trades"), st.integers(1, 6), st.integers(0, 25)),
        st.tuples(st.just("time"), st.sampled_from([0.2, 1.0, 3.0, 31.0]), st.just(0)),
        st.tuples(
            st.sampled_from(["answer", "part", "fail", "refuse", "lose", "twice"]), st.integers(0, 7), st.just(0)
        ),
        st.tuples(st.sampled_from(["crash", "commit"]), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(steps=steps, floor=st.integers(0, 80))
def test_whatever_happens_all_the_venue_offers_comes_once(kit: Any, steps: list[Any], floor: int) -> None:
    """Any order of drops, answers, partial and lost and doubled ones, failures and crashes: in the end nothing that
    the venue has is missing, nothing is emitted twice, and what it does not have is an open gap."""
    shard = Shard(kit)
    shard.trades(1)
    last = 1
    open_commands: list[control.Command] = []

    def answer(command: control.Command, most: int = PAGE) -> None:
        first = max(command.from_id, floor)
        shard.answer(command, *range(first, min(first + most, last + 1)))

    def look(seconds: float) -> None:
        open_commands.extend(shard.asked(seconds))
        backfill = shard.host.engine.backfill
        assert backfill.under_way <= UNDER_WAY
        assert backfill.waiting <= min(IN_ALL, PER_INSTRUMENT)

    for kind, value, skip in steps:
        if kind == "trades":
            shard.trades(*range(last + skip + 1, last + skip + value + 1))
            last += skip + value
        elif kind == "time":
            look(value)
        elif kind == "commit":
            look(0.0)
        elif kind == "crash":
            shard.host.restart()
        elif open_commands:
            command = open_commands.pop(value % len(open_commands))
            if kind in ("answer", "twice"):
                answer(command)
            if kind == "twice":
                answer(command)
            if kind == "part":
                answer(command, 3)
            if kind in ("fail", "refuse"):
                shard.fail(command, 400 if kind == "refuse" else 0)
    for _ in range(100):
        for command in open_commands:
            answer(command)
        open_commands.clear()
        look(5.0)
    refused = {n for gap in _given_up(shard) for n in _numbers(shard.host.out.rows()[gap.gap].missing)}
    emitted = shard.host.out.trades
    assert len(emitted) == len(set(emitted))
    missing = kit.missing_of(shard.host.out.rows().values())
    assert set(range(1, last + 1)) == set(emitted) | missing
    assert not set(emitted) & missing
    assert missing <= refused
    if all(kind != "refuse" for kind, _, _ in steps):
        assert all(number < floor for number in missing)
    assert shard.host.engine.backfill.idle
