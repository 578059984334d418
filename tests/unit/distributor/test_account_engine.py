"""An account's distributor: any order of events, losses, answers, commits and restarts ends with the venue's truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.distributor.accounts import state
from feedmill.distributor.accounts.engine import UNREADABLE_REST, Unlisted
from feedmill.distributor.checkpoint import BadCheckpoint
from feedmill.exchanges.account_base import AccountRequest
from feedmill.exchanges.account_rest import Traded
from feedmill.shared import control
from feedmill.shared.account_events import Position
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, encode_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "exchanges"))
from test_reconcile import CASES, SPOT, actions

from .account_world import SECOND, World, started

moves = st.lists(
    st.tuples(
        st.sampled_from(
            ["act", "act", "act", "cut", "connect", "connect", "kill", "shed", "rest", "rest", "read", "read", "ask",
             "ask", "serve", "answer", "answer", "fail", "commit", "commit", "restart", "crash"]
        ),
        actions,
    ),
    max_size=80,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_fill_once_whatever_happens(case: str, data: st.DataObject) -> None:
    world = World(case, data.draw(st.integers(0, 2)))
    for action in data.draw(st.lists(actions, max_size=8)):
        world.act(action)
    if data.draw(st.integers(0, 3)):
        world.finish()
        for action in data.draw(st.lists(actions, max_size=8)):
            world.act(action)
        if data.draw(st.booleans()):
            world.rest()
        if data.draw(st.booleans()):
            world.cut((0, 0, 1, True))
        else:
            world.session()
        for action in data.draw(st.lists(actions, max_size=20)):
            world.act(action)
        world.connect()
    for what, action in data.draw(moves):
        if what == "act":
            world.act(action)
        elif what == "shed":
            world.act(action, shed=True)
        elif what == "cut":
            world.cut(action)
        elif what == "connect":
            world.connect()
        elif what == "rest":
            world.rest()
        elif what == "kill":
            world.session()
        elif what == "read":
            world.read(1 + action[2])
        elif what == "ask":
            world.seconds += action[2]
            world.ask()
        elif what == "serve":
            world.serve(action[1])
        elif what == "answer":
            world.answer(action[1])
        elif what == "fail":
            world.fail(action[1])
        elif what == "restart":
            world.load()
        else:
            world.commit(crash=what == "crash")
    world.finish()
    world.check()


quiet_ones = st.lists(
    st.tuples(
        st.lists(actions, max_size=1),  # Heard.
        st.booleans(),  # Then nothing for a while.
        st.booleans(),  # Killed, or cut.
        st.lists(st.tuples(st.sampled_from([0, 1, 1]), st.integers(0, 1), st.just(1), st.booleans()), max_size=3),
        st.sampled_from(["whole", "closed", "begun"]),
    ),
    max_size=6,
)


@pytest.mark.parametrize("case", ["spot", "usdm"])
@settings(max_examples=200, deadline=None)
@given(rounds=quiet_ones)
def test_every_order_also_through_gaps_of_accounts_that_do_little(case: str, rounds: Any) -> None:
    """What is told of an untouched account must be true; orders made and cancelled leave no trace in balances."""
    world = World(case)
    world.act((0, 0, 3, True))
    world.finish()
    for heard, still, killed, missed, how_far in rounds:
        for action in heard:
            world.act(action)
        if still:
            world.rest()
        if killed:
            world.session()
        elif world.listening:
            world.listening = False
            world.record(control.Disconnected(world.conn, "closed"))
        for action in missed:
            world.act(action)
        world.connect()
        if how_far == "whole":
            world.finish()
        for _ in range(8 if how_far == "closed" else 1):
            world.read(100)
            world.seconds += 4.0
            world.engine.tick(world.at_ns, world.seconds, idle=False)
            asked = world.engine.asks(sweep=False)
            world.flying += [(command, request, None) for command, request in asked]
            while world.flying:
                world.answer(0)
        world.commit()
    world.finish()
    world.check()


def test_a_gap_is_told_when_it_opens_and_when_it_is_closed() -> None:
    world = started()
    world.cut((0, 0, 1, True))
    world.read(100)
    world.commit()
    (gap,) = world.blocks[-1].gaps
    assert (gap.cause, gap.state, gap.to_ns, gap.revision) == ("disconnected", "open", 0, 1)
    world.finish()
    world.check()
    rows = [each for block in world.blocks for each in block.gaps if each.id == gap.id]
    assert [(each.state, each.revision) for each in rows] == [("open", 1), ("open", 2), ("closed", 3)]
    assert rows[1].to_ns == rows[2].to_ns > rows[0].from_ns
    first = world.blocks[0].gaps[0]
    assert (first.cause, first.from_ns, first.id != gap.id) == ("first", 0, True)


@pytest.mark.parametrize(("quiet", "seconds"), [(2, 40), (60, 240)])
def test_a_gap_begins_with_the_last_sure_sign(quiet: int, seconds: int) -> None:
    """The connection may have been dead since the newest event, if not for longer than silence can go unnoticed."""
    world = started()
    world.act((0, 0, 1, True))
    for _ in range(quiet):
        world.rest()
    world.cut((0, 0, 1, True))
    world.read(200)
    world.commit()
    gap = world.blocks[-1].gaps[-1]
    assert gap.state == "open"
    assert seconds - 1 <= (gap.detected_ns - gap.from_ns) / SECOND <= seconds + 1


def test_a_position_that_came_and_went_within_two_gaps_is_told_as_gone() -> None:
    """What the base does not know, the events since do."""
    world = World("usdm")
    world.finish()
    world.cut((1, 0, 1, True))
    world.read(100)
    world.commit()
    world.venue.act(0, "BTC-USDT", 3, step=True)
    order = next(iter(world.venue.orders.values()))
    world.connect()
    world.act((2, 0, 3, True))
    world.read(100)
    world.commit()
    assert world.store.positions["BTC-USDT", ""].size != "0"
    world.cut((0, 1, 1, True))
    world.venue.positions["BTC-USDT"] = 0
    world.venue.ms += 1
    world.finish()
    assert order.symbol == "BTC-USDT"
    assert world.store.positions["BTC-USDT", ""].size == "0"


@pytest.mark.parametrize("case", ["spot", "usdm"])
def test_what_came_after_a_gap_does_not_hide_what_is_in_it_also_after_a_restart(case: str) -> None:
    world = started(case)
    world.cut((0, 0, 3, True))
    order = next(reversed(world.venue.orders.values()))
    world.venue._fill(order, 3, world.venue._id())
    world.connect()
    for _ in range(2):
        world.act((3, 0, 2, True))
    world.read(100)
    world.commit()
    world.load()
    world.finish()
    world.check()


def test_an_answer_does_not_replace_what_the_stream_told_since_it_was_asked_for() -> None:
    """Where the venue gives no times (Deribit)."""
    world = started("deribit")
    world.cut((0, 0, 1, True))
    world.act((0, 0, 2, True))
    world.connect()
    world.read(100)
    world.ask()
    for at in range(len(world.flying)):
        world.serve(at)
    world.act((3, 0, 2, True))
    world.finish()
    world.check()


def test_a_frame_that_cannot_be_read_is_kept_and_asked_for_once_in_a_while() -> None:
    world = started()
    for _ in range(3):
        world.append(RunKind.FRAMES, b"strange")
    world.read(100)
    world.ask()
    assert world.flying == [], "not at every one"
    world.commit()
    letters = world.blocks[-1].dead_letters
    assert [(each.reason, each.payload) for each in letters] == [("unreadable", b"strange")] * 3
    assert {gap.cause for gap in world.blocks[-1].gaps} == {"unreadable"}
    world.seconds += UNREADABLE_REST
    world.ask()
    assert world.flying != []
    world.finish()
    world.check()


def test_an_instrument_that_is_new_is_learnt_before_the_entry_counts() -> None:
    world = started()
    world.append(RunKind.FRAMES, b"of:NEWUSDT")
    before = world.engine.pos
    with pytest.raises(Unlisted, match="NEWUSDT"):
        world.read(1)
    assert world.engine.pos == before
    assert not world.engine.moved
    world.engine.learn({**world.instruments, "NEW-USDT": Traded("NEWUSDT", ("USDT",))})
    world.read(1)
    world.commit()
    assert world.engine.pos != before
    assert not world.engine.line.owed


def test_a_session_that_falls_silent_opens_a_gap_and_closes_it_when_it_speaks() -> None:
    world = started()
    world.engine.tick(world.at_ns, world.seconds, idle=True)
    for _ in range(8):
        world.seconds += 4.5
        world.engine.tick(world.at_ns, world.seconds, idle=True)
    world.commit()
    assert [(gap.cause, gap.to_ns) for gap in world.blocks[-1].gaps] == [("session_lost", 0)]
    world.ask()
    assert world.flying == [], "nobody listens"
    world.record(control.Alive())
    world.finish()
    world.check()


def test_an_answer_that_was_lost_is_asked_for_again() -> None:
    world = started()
    world.cut((0, 0, 1, True))
    world.connect()
    world.read(100)
    world.ask()
    for command, _, _ in world.flying:
        world.engine.handed(command, world.seconds)
    lost, world.flying = world.flying, []
    assert lost
    for _ in range(10):
        world.seconds += 4.0
        world.record(control.Alive())
        world.read(1)
        world.engine.tick(world.at_ns, world.seconds, idle=True)
    world.finish()
    world.check()


def test_a_sweep_waits_until_it_may_but_the_gap_is_closed() -> None:
    world = started("spot")
    world.cut((0, 0, 1, True))
    world.connect()
    for _ in range(20):
        world.read(100)
        world.seconds += 4.0
        world.engine.tick(world.at_ns, world.seconds, idle=False)
        world.flying += [(command, request, None) for command, request in world.engine.asks(sweep=False)]
        while world.flying:
            world.answer(0)
    world.commit()
    assert world.engine.sweeping
    assert world.engine.line.gap is None
    assert world.engine.line.owed
    world.finish()
    world.check()


def quiet(world: World) -> int:
    """Requests of a gap in which nothing happens, until it is closed and swept."""
    world.rest()
    world.session()
    world.connect()
    asked = 0
    for _ in range(50):
        world.read(100)
        world.seconds += 4.0
        world.ask()
        asked += len(world.flying)
        while world.flying:
            world.answer(0)
    world.commit()
    world.check()
    return asked


def test_a_gap_in_which_nothing_happened_costs_one_request() -> None:
    world = started("spot")
    assert any(not order.terminal for order in world.venue.orders.values())
    assert quiet(world) == 1
    world.rest()
    world.session()
    order = world.venue._place("ETH-BTC", 3)
    world.venue.updated_ms = world.venue.ms
    world.venue._change(order, status="cancelled", terminal=True)
    assert quiet(world) > len(SPOT), "an order made and cancelled leaves no trace in balances"
    assert quiet(world) == 1


def test_a_gap_right_after_an_update_is_looked_into_since_another_may_have_had_its_time() -> None:
    world = started("spot")
    world.rest()
    world.act((0, 1, 2, True))
    world.session()
    order = world.venue._place("ETH-BTC", 3)
    world.venue._change(order, status="cancelled", terminal=True)
    world.finish()
    world.check()


def test_a_later_gap_needs_no_look_for_what_an_earlier_one_left_to_the_sweep() -> None:
    world = started("spot")
    world.cut((2, 0, 1, True))
    world.connect()

    def without_sweep() -> list[AccountRequest]:
        asked = []
        for _ in range(20):
            world.read(100)
            world.seconds += 4.0
            world.engine.tick(world.at_ns, world.seconds, idle=False)
            world.flying += [(command, request, None) for command, request in world.engine.asks(sweep=False)]
            asked += [request for _, request, _ in world.flying]
            while world.flying:
                world.answer(0)
        world.commit()
        assert world.engine.sweeping
        return asked

    assert len(without_sweep()) > 1
    world.rest()
    world.session()
    world.connect()
    assert [request.kind for request in without_sweep()] == ["balances"]
    world.load()
    world.finish()
    assert world.engine.base is None
    world.check()


def test_a_look_by_the_timer_finds_what_no_gap_told_of() -> None:
    world = started()
    world.venue.act(0, "BTC-USDT", 3, step=True)
    world.finish()
    assert world.store.orders != world.venue.orders
    count = len(world.blocks)
    world.engine._look_every = 3600.0
    world.at_ns += 3601 * SECOND
    world.ask()
    assert world.flying
    while world.flying:
        while world.flying:
            world.answer(0)
        world.read(100)
        world.ask()
    world.commit()
    assert [len(block.reconciled) for block in world.blocks[count:]] == [1]
    assert world.blocks[-1].reconciled[0].gap_id == ""
    world.check()


def test_batches_that_come_twice_count_once() -> None:
    world = started()
    size = len(world.blocks)
    for _, payload in list(world.raw):
        world.raw.append((f"{len(world.raw) + 1}-0", payload))
    world.read(1000)
    assert world.engine.duplicates == len(world.raw) // 2
    world.commit()
    assert len(world.blocks) == size


def test_a_session_whose_first_batch_comes_after_the_next_one_began_does_not_count() -> None:
    """It could append nothing while Redis was away; what it heard is data, and the next one is followed on."""
    world = started()
    known = [gap for block in world.blocks for gap in block.gaps]
    current = world.sessions
    events = world.venue.act(0, next(iter(world.instruments)), 1, step=False)
    for n, payload in enumerate((world.say(events), world.say([])), 1):
        run = Run(RunKind.FRAMES, 1, [world.at_ns], [payload])
        world.raw.append((f"{len(world.raw) + 1}-0", encode_batch(RawBatch(VERSION, "r-0", n, [run]))))
    end = control.encode(control.SessionEnd("shutdown"))
    batch = RawBatch(VERSION, "r-0", 3, [Run(RunKind.CONTROL, 1, [world.at_ns], [end])])
    world.raw.append((f"{len(world.raw) + 1}-0", encode_batch(batch)))
    world.read(100)
    world.commit()
    assert [gap for block in world.blocks for gap in block.gaps] == known, "it ends nothing"
    assert world.sessions == current
    assert len(world.blocks[-1].orders) == len(events), "what it heard is told"
    world.record(control.Disconnected(world.conn, "closed"))
    world.read(100)
    world.commit()
    (gap,) = world.blocks[-1].gaps
    assert (gap.cause, gap.to_ns) == ("disconnected", 0)


def test_a_checkpoint_of_another_version_is_named() -> None:
    with pytest.raises(BadCheckpoint, match=r"'o:BTC-USDT/1' cannot be read .*run the version that wrote it"):
        state.load({b"o:BTC-USDT/1": b"\x01"})
    with pytest.raises(BadCheckpoint, match="no such field"):
        state.load({b"x:1": b""})


def test_an_older_position_does_not_bring_one_back() -> None:
    live = state.Live()
    live.take(Position("BTC-USDT", "", "0", "", "", "", "", 9, 9))
    live.take(Position("BTC-USDT", "", "5", "", "", "", "", 8, 10))
    assert live.known(state.Line()).positions == {}
