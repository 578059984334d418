"""An account's distributor: any order of events, losses, answers, commits and restarts ends with the venue's truth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.distributor.accounts import state
from feedmill.distributor.accounts.engine import UNREADABLE_REST, Engine, Unlisted
from feedmill.distributor.checkpoint import BadCheckpoint
from feedmill.exchanges.account_base import AccountEvent, AccountMapper, AccountRequest
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.base import MapError
from feedmill.shared import control
from feedmill.shared.account_events import AccountBlock, Balance, BalanceChange, Position, decode_account
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, encode_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "exchanges"))
from test_reconcile import CASES, SPOT, Store, Venue, actions

NAME = "default/main"
SECOND = 1_000_000_000


class Mapper(AccountMapper):
    """A payload is the number of what it says."""

    said: list[list[AccountEvent]]

    def map(self, payload: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        if payload.startswith(b"of:"):
            native = payload[3:].decode()
            if native not in self.symbols:
                raise MapError("unknown_symbol", native)
            return ()
        if not payload.isdigit():
            raise MapError("unreadable", "no number")
        return [msgspec.structs.replace(event, receive_ns=receive_ns) for event in self.said[int(payload)]]

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        return self.map(body, receive_ns)


class Adapter:
    """What the engine uses of a venue's private half."""

    def __init__(self, case: str) -> None:
        self.rest = CASES[case][1]
        self.said: list[list[AccountEvent]] = []

    def mapper(self, symbols: Any) -> Mapper:
        made = Mapper(symbols)
        made.said = self.said
        return made

    def reconcile(self, instruments: Any, known: Any, now_ms: int) -> Any:
        return self.rest(instruments, known, now_ms)


class World:
    def __init__(self, case: str, lag: int = 0) -> None:
        self.instruments, _, timed = CASES[case]
        self.venue = Venue(self.instruments, timed, lag)
        self.adapter = Adapter(case)
        self.raw: list[tuple[str, bytes]] = []
        self.at_ns, self.seconds = 1_700_000_000 * SECOND, 1000.0
        self.sessions = self.n = self.conn = 0
        self.listening = False
        self.flying: list[tuple[str, AccountRequest, bytes | None]] = []
        self.hash: dict[bytes, bytes] = {}
        self.blocks: list[AccountBlock] = []
        self.store = Store()
        self.lives = 0
        self.load()
        self.session()

    # -- the receiver

    def append(self, kind: RunKind, payload: bytes) -> None:
        self.at_ns += 1_000_000
        self.n += 1
        run = Run(kind, self.conn, [self.at_ns], [payload])
        batch = RawBatch(VERSION, f"r-{self.sessions}", self.n, [run])
        self.raw.append((f"{len(self.raw) + 1}-0", encode_batch(batch)))

    def record(self, record: control.Control) -> None:
        self.append(RunKind.CONTROL, control.encode(record))

    def session(self) -> None:
        """A process begins; the one before, if any, was killed."""
        self.sessions += 1
        self.n, self.listening = 0, False
        self.record(control.Session(f"r-{self.sessions}", "r", "1", self.at_ns))

    def connect(self) -> None:
        if not self.listening:
            self.listening = True
            self.conn += 1
            self.record(control.Connected(self.conn, "private"))

    def cut(self, action: Any) -> None:
        if self.listening:
            self.listening = False
            self.act(action)  # It is noticed after something was missed.
            self.record(control.Disconnected(self.conn, "closed"))

    def say(self, events: list[AccountEvent]) -> bytes:
        self.adapter.said.append(events)
        return b"%d" % (len(self.adapter.said) - 1)

    def act(self, action: tuple[int, int, int, bool], *, shed: bool = False) -> None:
        what, which, size, step = action
        symbols = list(self.instruments)
        events = self.venue.act(what, symbols[which % len(symbols)], size, step=step)
        if self.listening and shed:
            self.record(control.Shed(self.conn, 1, 1, self.at_ns, self.at_ns))
        elif self.listening:
            self.append(RunKind.FRAMES, self.say(events))

    def rest(self) -> None:
        """Nothing happens for a while."""
        self.at_ns += 20 * SECOND
        self.venue.ms += 20_000
        self.record(control.Alive())

    # -- the desk

    def serve(self, which: int) -> None:
        if self.flying:
            at = which % len(self.flying)
            command, request, body = self.flying[at]
            if body is None:
                self.flying[at] = command, request, self.say(self.venue.serve(request))

    def answer(self, which: int) -> None:
        if self.flying:
            self.serve(which)
            command, request, body = self.flying.pop(which % len(self.flying))
            assert body is not None
            answer = control.RestAnswer(command, request.kind, request.symbol, "", 200, self.at_ns, body)
            self.append(RunKind.REST, control.encode(answer))
            self.engine.handed(command, self.seconds)

    def fail(self, which: int) -> None:
        if self.flying:
            command, request, _ = self.flying.pop(which % len(self.flying))
            self.record(control.RestFailed(command, request.symbol, "the venue cannot be reached"))

    # -- the distributor

    def load(self) -> None:
        self.lives += 1
        self.engine = Engine(
            NAME, self.adapter, self.instruments, state.load(self.hash), str(self.lives), look_every=1e9,
        )  # type: ignore[arg-type]  # fmt: skip

    def read(self, count: int) -> None:
        for _ in range(count):
            at = int(self.engine.pos.split("-")[0])
            if at == len(self.raw):
                return
            stream_id, payload = self.raw[at]
            self.engine.entry(stream_id, payload, self.at_ns, self.seconds)

    def ask(self) -> None:
        self.at_ns += 1
        self.engine.tick(self.at_ns, self.seconds, idle=False)
        self.flying += [(command, request, None) for command, request in self.engine.asks()]

    def commit(self, *, crash: bool = False) -> None:
        if not self.engine.moved:
            return
        taken = self.engine.take()
        if crash:
            self.load()
            return
        self.hash |= {name.encode(): value for name, value in taken.fields.items()}
        for name in taken.deleted:
            self.hash.pop(name.encode(), None)
        self.hash |= {b"pos": taken.pos.encode(), b"id": b"x"}
        if taken.en:
            self.hash |= {b"en": b"%d" % taken.en, b"eid": b"x"}
            block = decode_account(taken.events)
            self.blocks.append(block)
            assert (taken.en, block.account) == (len(self.blocks), NAME)
            for events in (block.orders, block.fills, block.balances, block.positions):
                self.store.take(events)

    def finish(self) -> None:
        self.connect()
        for _ in range(3000):
            self.read(10_000)
            self.seconds += 4.0
            self.ask()
            while self.flying:
                self.answer(0)
            self.commit()
            if int(self.engine.pos.split("-")[0]) == len(self.raw) and not self.engine.line.owed:
                assert not self.engine.moved
                return
            self.venue.lag = max(0, self.venue.lag - 1)
        raise AssertionError("it does not come to an end")

    def check(self) -> None:
        plain = {"flags": 0, "receive_ns": 0}
        replace = msgspec.structs.replace
        happened = {(f.symbol, f.trade_id, f.order_id): f for _, f in self.venue.fills}
        assert {key: replace(fill, **plain) for key, fill in self.store.fills.items()} == happened
        assert {key: replace(order, **plain) for key, order in self.store.orders.items()} == self.venue.orders
        held = {asset: int(each.total) for asset, each in self.store.balances.items()}
        assert held == {**dict.fromkeys(held, 1000), **self.venue.balances}
        sizes = {key[0]: int(each.size) for key, each in self.store.positions.items()}
        assert {s: size for s, size in sizes.items() if size} == {s: n for s, n in self.venue.positions.items() if n}
        gaps = {gap.id: gap for block in self.blocks for gap in block.gaps}
        assert all(gap.state == "closed" for gap in gaps.values())
        told = {each.gap_id for block in self.blocks for each in block.reconciled if not each.refused}
        assert gaps.keys() <= told
        again = state.load(self.hash)
        assert again.base is None
        assert again.live.known(again.line) == self.engine.live.known(self.engine.line)


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


def started(case: str = "usdm") -> World:
    world = World(case)
    for at in range(8):
        world.act((at % 4, at, 2, True))
    world.finish()
    world.check()
    return world


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


def test_of_two_equal_deposits_in_a_millisecond_the_second_is_kept_as_a_dead_letter() -> None:
    world = started()
    deposit = BalanceChange("USDT", "5", "unknown:balanceUpdate", "", 7_000_000, 0)
    later = msgspec.structs.replace(deposit, venue_ns=8_000_000)
    named = [msgspec.structs.replace(deposit, venue_id=name) for name in ("1", "2", "2")]
    other = msgspec.structs.replace(deposit, change="5.5")
    said = [world.say([event]) for event in (deposit, other, deposit, later)]
    for payload in (said[0], said[0], *said[1:]):  # The first one comes twice in a row.
        world.append(RunKind.FRAMES, payload)
    world.append(RunKind.FRAMES, world.say(list(named)))
    world.read(100)
    world.commit()
    block = world.blocks[-1]
    found = [(each.change, each.venue_ns, each.venue_id) for each in block.changes][1:]
    at = deposit.venue_ns
    assert found == [
        ("5", at, ""),
        ("5.5", at, ""),
        ("5", later.venue_ns, ""),
        *[("5", at, i) for i in ("1", "2", "2")],
    ]
    assert [(each.reason, each.payload) for each in block.dead_letters] == [("equal_change", said[2])]
    assert not block.gaps


def test_what_two_connections_tell_alike_is_no_dead_letter() -> None:
    world = started()
    said = world.say([BalanceChange("USDT", "5", "unknown:balanceUpdate", "", 7_000_000, 0)])
    world.append(RunKind.FRAMES, said)
    world.conn += 1
    world.append(RunKind.FRAMES, said)
    world.read(100)
    world.commit()
    assert len(world.blocks[-1].changes) == 2, "PostgreSQL makes one of them"
    assert not world.blocks[-1].dead_letters


def taken_over() -> tuple[World, Callable[[int, bytes], None]]:
    """Another session counts now; and what lets the one before bring a frame, received at a time (ns)."""
    world = started()
    session, number = f"r-{world.sessions}", world.n + 1
    world.session()
    world.connect()
    world.read(100)
    world.commit()

    def late(at_ns: int, payload: bytes) -> None:
        batch = RawBatch(VERSION, session, number, [Run(RunKind.FRAMES, 1, [at_ns], [payload])])
        world.raw.append((f"{len(world.raw) + 1}-0", encode_batch(batch)))

    return world, late


def test_what_a_receiver_that_stood_still_reads_late_is_no_news_where_nothing_says_when_it_was() -> None:
    world, late = taken_over()
    untimed = [Balance("BTC", "1", "", "", "", 0, 0), Position("BTC-PERP", "", "1", "", "", "", "", 0, 0)]
    timed = Balance("ETH", "1", "", "", "", 7_000_000, 0)
    late(world.at_ns + 1, world.say([*untimed, timed]))
    world.append(RunKind.FRAMES, world.say([Balance("BTC", "2", "", "", "", 0, 0)]))
    world.read(100)
    world.commit()
    block = world.blocks[-1]
    assert [(each.asset, each.total) for each in block.balances] == [("ETH", "1"), ("BTC", "2")]
    assert not block.positions


def test_what_comes_late_and_cannot_be_read_does_not_end_a_gap_earlier() -> None:
    world, late = taken_over()
    (gap,) = (each for each in [world.engine.line.gap] if each is not None)
    assert gap.to_ns > 1
    late(1, b"strange")
    world.read(100)
    assert world.engine.line.gap == gap


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
