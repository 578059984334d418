"""Books, moment by moment: which connection leads, when a gap is told, when a snapshot is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.distributor.books import OTHERS
from feedmill.shared import control

LEVELS = ([("10", "1")], [("11", "1")])


class Desk:
    """Two sessions' book topics on one host."""

    def __init__(self, kit: Any, rules: str, conns: int = 1, **more: Any) -> None:
        self.kit, self.rules = kit, rules
        self.host = kit.Host(kit.settings_of(rules, **more))
        self.topic = kit.topic("Book")
        self.feeders = [kit.Feeder(f"r{n}-00000000000{n}aaaaaa") for n in range(conns)]
        for feeder in self.feeders:
            self.host.feed(feeder.open(self.host.now, self.topic))

    def change(self, seq: int, *, prev: int | None = None, at: int = 1, bids: Any = (), asks: Any = ()) -> bytes:
        before = seq - 1 if prev is None else prev
        return self.kit.frame(["b", self.kit.SYMBOL, False, before + 1, seq, before, at, bids, asks])

    def snapshot(self, seq: int, at: int = 1) -> bytes:
        return self.kit.frame(["b", self.kit.SYMBOL, True, seq, seq, -1, at, *LEVELS])

    def send(self, who: int, *frames: bytes, conn: int = 1) -> Desk:
        self.host.feed(self.feeders[who].frames(self.host.now, *frames, conn=conn))
        return self

    def answer(self, seq: int, at: int = 0) -> Desk:
        self.host.feed(self.feeders[0].answer(self.host.now, self.snapshot(seq, at)))
        return self

    def close(self, who: int, conn: int = 1) -> Desk:
        self.host.feed(self.feeders[who].close(self.host.now, conn=conn))
        return self

    def reopen(self, who: int, conn: int) -> Desk:
        self.host.feed(self.feeders[who].open(self.host.now, self.topic, conn=conn, first=False))
        return self

    def out(self, seconds: float = 0.0) -> Any:
        self.host.tick(seconds)
        return self.host.commit()

    @property
    def track(self) -> Any:
        return self.host.engine.books[self.kit.SYMBOL]

    @property
    def seq(self) -> int | None:
        return self.track.book.seq if self.track.valid else None


def gaps(out: Any) -> list[tuple[Any, ...]]:
    return [(gap.state, gap.cause, gap.from_seq, gap.to_seq) for gap in out.events.gaps]


def test_bootstrap_asks_once_buffers_and_becomes_valid_without_a_gap(kit: Any) -> None:
    desk = Desk(kit, "dense")
    out = desk.out(1.0)
    assert [(c.kind, c.symbol, c.native) for c in out.commands] == [("book_snapshot", "BTC-USDT", "BTCUSDT")]
    desk.send(0, desk.change(5), desk.change(6)).out(9.0)
    assert len(out.commands) == 1
    desk.answer(5)
    desk.out()
    assert desk.seq == 6
    assert not out.events.gaps
    assert [(delta.image, delta.seq) for delta in out.deltas.deltas] == [(True, 6)]


def test_a_snapshot_is_asked_for_with_the_first_change(kit: Any) -> None:
    desk = Desk(kit, "dense")
    assert desk.out(0.5).commands == []
    assert len(desk.send(0, desk.change(5)).out().commands) == 1
    assert len(desk.send(0, desk.change(6)).out().commands) == 1
    desk.answer(5)
    assert desk.seq == 6


def test_connections_that_end_as_soon_as_they_are_subscribed_cost_no_snapshots(kit: Any) -> None:
    desk = Desk(kit, "dense")
    for conn in range(2, 12):
        desk.close(0, conn - 1).reopen(0, conn)
        assert desk.out(0.3).commands == []
    assert len(desk.out(0.7).commands) == 1  # Nothing changes, but there is a book.


def test_a_command_without_an_answer_is_issued_anew_under_a_new_name(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.out(1.0)
    out = desk.out(10.1)
    assert len({c.id for c in out.commands}) == 2


def test_a_failed_command_is_tried_again_later_and_later(kit: Any) -> None:
    desk = Desk(kit, "dense")
    out = desk.out(1.0)
    waits = []
    for _ in range(4):
        known = len(out.commands)
        failed = control.RestFailed(out.commands[-1].id, kit.SYMBOL, "429")
        desk.host.feed(desk.feeders[0].control(desk.host.now, failed, conn=0))
        begun = desk.host.now
        while len(out.commands) == known:
            desk.out(0.1)
        waits.append((desk.host.now - begun) / kit.SECOND)
    assert waits == sorted(waits)
    assert waits[0] < 1 < waits[-1] <= 10
    desk.host.feed(desk.feeders[0].control(desk.host.now, control.RestFailed("other", kit.SYMBOL, "x"), conn=0))
    assert len(desk.out(0.5).commands) == 5  # Another's failure changes nothing.


def test_an_answer_that_is_too_old_is_asked_again(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.send(0, desk.change(9), desk.change(10)).answer(5)
    assert desk.seq is None
    assert len(desk.out(1.0).commands) == 1
    desk.answer(8)
    assert desk.seq == 10


def test_an_answer_older_than_the_book_was_is_not_taken(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.answer(20).send(0, desk.change(21)).close(0).reopen(0, 2)
    out = desk.out(1.0)
    desk.answer(15)
    assert desk.seq is None
    assert len(desk.out(1.0).commands) == 2
    desk.answer(21).out()
    assert desk.seq == 21
    assert gaps(out) == [("open", "disconnected", 22, -1), ("closed", "disconnected", 22, 21)]


def test_a_hole_in_the_buffer_leaves_what_follows_it(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.send(0, desk.change(5), desk.change(6), desk.change(9), desk.change(10)).answer(5)
    assert desk.seq is None
    desk.answer(8)
    assert desk.seq == 10


def test_a_break_is_one_gap_and_one_command_and_only_its_own_instrument(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.answer(5).send(0, desk.change(6), desk.change(9), desk.change(12))
    out = desk.out()
    assert gaps(out) == [("open", "sequence", 7, -1)]
    assert out.events.gaps[0].detected_ns == desk.host.now
    assert len(out.commands) == 1
    desk.answer(11).out()
    assert gaps(out)[1:] == [("closed", "sequence", 7, 11)]
    assert out.events.gaps[-1].repaired_by == "snapshot:11"
    assert desk.seq == 12


def test_slots_are_told_once_also_when_the_venues_time_falls_back(kit: Any) -> None:
    """Snapshots: of slots that ended, of the state before, once, and none across a break."""
    second = kit.SECOND
    desk = Desk(kit, "dense")
    desk.answer(5)
    times = [(6, 0.5), (7, 0.9), (8, 1.1), (9, 2.9), (10, 1.9), (11, 2.0), (12, 2.8), (13, 4.0)]
    desk.send(0, *(desk.change(seq, at=int(at * second)) for seq, at in times))
    desk.send(0, desk.change(20, at=9 * second))  # A break: what ended before it is not known.
    desk.answer(20).send(0, desk.change(21, at=10 * second), desk.change(22, at=11 * second))
    found = [(s.slot_ns / second, s.seq) for s in desk.out().events.books]
    assert found == [(1, 7), (2, 8), (3, 12), (11, 21)]


@pytest.mark.parametrize("rules", ["dense", "pu", "inband"])
def test_the_other_connection_goes_on_without_a_gap_where_it_chains(kit: Any, rules: str) -> None:
    desk = Desk(kit, rules, 2)
    if rules == "inband":
        desk.send(0, desk.snapshot(5)).send(1, desk.snapshot(5))
    else:
        desk.answer(5)
    desk.send(0, desk.change(6)).send(1, desk.change(6), desk.change(7), desk.change(8)).close(0)
    assert desk.seq == 8
    desk.send(1, desk.change(9))
    out = desk.out()
    assert desk.seq == 9
    assert not out.events.gaps
    assert [delta.seq for delta in out.deltas.deltas if not delta.image] == [6, 7, 8, 9]


@pytest.mark.parametrize("rules", ["dense", "inband"])
def test_the_other_connection_that_lags_behind_goes_on_too(kit: Any, rules: str) -> None:
    desk = Desk(kit, rules, 2)
    if rules == "inband":
        desk.send(0, desk.snapshot(5)).send(1, desk.snapshot(4), desk.change(5))
    else:
        desk.answer(5)
    desk.send(0, desk.change(6), desk.change(7)).close(0)
    desk.send(1, desk.change(6), desk.change(7), desk.change(8))
    out = desk.out()
    assert desk.seq == 8
    assert not out.events.gaps
    assert [delta.seq for delta in out.deltas.deltas if not delta.image] == [6, 7, 8]


def test_what_neither_connection_brought_is_a_gap(kit: Any) -> None:
    desk = Desk(kit, "dense", 2)
    desk.answer(5).send(0, desk.change(6)).send(1, desk.change(9)).close(0)
    assert gaps(desk.out()) == [("open", "disconnected", 7, -1)]


def test_a_restart_after_a_switch_goes_on_without_a_gap(kit: Any) -> None:
    """The second connection is younger than the last image."""
    desk = Desk(kit, "dense", image_interval=1e6)
    desk.answer(5).send(0, desk.change(6))
    desk.out()
    desk.send(0, desk.change(7))
    desk.feeders.append(kit.Feeder("r1-000000000001aaaaaa"))
    desk.host.feed(desk.feeders[1].open(desk.host.now, desk.topic))
    desk.send(0, desk.change(8)).send(1, desk.change(9)).close(0)
    desk.out()
    desk.host.restart()
    desk.send(1, desk.change(10))
    assert not desk.out().events.gaps
    assert desk.seq == 10


def test_a_snapshot_in_the_stream_that_skips_something_is_a_gap(kit: Any) -> None:
    desk = Desk(kit, "inband")
    desk.send(0, desk.snapshot(5), desk.change(6), desk.snapshot(9), desk.change(10))
    out = desk.out()
    assert gaps(out) == [("open", "sequence", 7, -1), ("closed", "sequence", 7, 9)]
    desk.send(0, desk.snapshot(10))
    assert gaps(desk.out()) == gaps(out)
    assert desk.seq == 10


def test_in_band_a_break_asks_to_subscribe_again(kit: Any) -> None:
    desk = Desk(kit, "inband")
    assert not desk.out(1.0).commands  # The first snapshot comes by itself.
    desk.send(0, desk.snapshot(5), desk.change(7, prev=6))
    out = desk.out()
    assert [(c.kind, c.channel) for c in out.commands] == [("resubscribe", "Book")]
    refs = [desk.topic]
    desk.host.feed(desk.feeders[0].control(desk.host.now, control.Unsubscribed(1, refs), control.Subscribed(1, refs)))
    desk.send(0, desk.snapshot(8))
    assert gaps(desk.out(5.0)) == [("open", "sequence", 6, -1), ("closed", "sequence", 6, 8)]
    assert len(out.commands) == 1


def test_in_band_two_replicas_that_subscribe_again_one_after_the_other_are_enough(kit: Any) -> None:
    desk = Desk(kit, "inband", 2)
    desk.send(0, desk.snapshot(5), desk.change(9, prev=8)).send(1, desk.snapshot(2))
    out = desk.out()
    for who, feeder in enumerate(desk.feeders):
        refs = [desk.topic]
        desk.host.feed(feeder.control(desk.host.now, control.Unsubscribed(1, refs)))
        desk.out()
        desk.host.feed(feeder.control(desk.host.now, control.Subscribed(1, refs)))
        desk.send(who, desk.snapshot(10)).out()
        assert desk.seq == 10
    assert len(desk.out(5.0).commands) == 1
    assert gaps(out) == [("open", "sequence", 6, -1), ("closed", "sequence", 6, 10)]


def test_in_band_a_replica_alone_can_bring_the_snapshot(kit: Any) -> None:
    """The primary's receiver does not answer the command."""
    desk = Desk(kit, "inband", 2)
    desk.send(0, desk.snapshot(5), desk.change(9, prev=8)).out()
    refs = [desk.topic]
    desk.host.feed(desk.feeders[1].control(desk.host.now, control.Unsubscribed(1, refs), control.Subscribed(1, refs)))
    desk.send(1, desk.snapshot(10), desk.change(11))
    assert desk.seq == 11


@pytest.mark.parametrize("cause", ["shed", "redis_lost"])
def test_in_band_a_connection_that_goes_on_after_a_loss_is_asked_at_once(kit: Any, cause: str) -> None:
    desk = Desk(kit, "inband")
    desk.send(0, desk.snapshot(5))
    if cause == "shed":
        desk.host.feed(desk.feeders[0].control(desk.host.now, control.Shed(1, 1, 1, 0, 0)))
    else:
        desk.host.feed(desk.feeders[0].batch(skip=1))
    out = desk.out()
    assert [c.kind for c in out.commands] == ["resubscribe"]
    assert gaps(out) == [("open", cause, 6, -1)]


@pytest.mark.parametrize("proof", ["subscribed", "data"])
def test_a_dead_sessions_late_frames_do_not_hold_the_book(kit: Any, proof: str) -> None:
    """What was spilled by a killed receiver comes after its successor began."""
    desk = Desk(kit, "dense")
    old, new = desk.feeders[0], kit.Feeder("r0-000000000009bbbbbb", started_ns=9)
    desk.answer(5).send(0, desk.change(6))
    desk.host.feed(new.control(desk.host.now, new.begin()))
    desk.host.feed(old.frames(desk.host.now, desk.change(7)))  # Nobody else covers it: this proves a subscription.
    records = [control.Connected(1, "stream"), control.Subscribed(1, [desk.topic])]
    desk.host.feed(new.control(desk.host.now, *records[: 2 if proof == "subscribed" else 1]))
    desk.host.feed(new.frames(desk.host.now, desk.change(8)))
    desk.host.feed(old.frames(desk.host.now, desk.change(8)))
    desk.host.feed(new.answer(desk.host.now, desk.snapshot(8, 0)), new.frames(desk.host.now, desk.change(9)))
    assert desk.seq == 9
    assert [row.state for row in desk.out().rows().values()] == ["closed"]


def test_numbers_that_begin_anew_are_a_break_not_silence(kit: Any) -> None:
    desk = Desk(kit, "dense")
    later = 61 * kit.SECOND
    desk.answer(1000).send(0, desk.change(1001, at=5), desk.change(7, at=6))
    assert desk.seq == 1001
    desk.send(0, desk.change(8, at=5 + later))
    assert desk.seq is None
    desk.send(0, desk.change(9, at=6 + later)).answer(8)
    assert desk.seq == 9
    assert [row.state for row in desk.out().rows().values()] == ["closed"]


def test_an_image_that_is_gone_is_a_gap_from_where_it_stood(kit: Any) -> None:
    desk = Desk(kit, "dense", image_interval=0.0)
    desk.answer(5).send(0, desk.change(6), desk.change(7)).out()
    desk.host.images.clear()
    desk.host.restart()
    out = desk.out()
    assert gaps(out) == [("open", "redis_lost", 8, -1)]
    assert out.events.gaps[0].detected_ns >= kit.T0
    assert [c.kind for c in out.commands] == ["book_snapshot"]


def test_a_restart_with_images_asks_nothing_and_applies_what_followed_them(kit: Any) -> None:
    desk = Desk(kit, "dense", image_interval=1e6)
    desk.answer(5).out()
    for seq in range(6, 12):
        desk.send(0, desk.change(seq, bids=[(f"{seq}", "1")])).out()
    before = desk.track.book.image()
    desk.host.trim()
    desk.host.restart()
    assert desk.track.book.image() == before
    assert not desk.out(5.0).commands


def test_a_poisoned_change_is_one_dead_letter_and_one_gap(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.answer(5).send(0, desk.change(6, bids=[("nan", "1")]), desk.change(7, bids=[("8", "1"), ("?", "1")]))
    out = desk.out()
    assert [letter.reason for letter in out.events.dead_letters] == ["bad_value", "bad_value"]
    assert gaps(out) == [("open", "book", 6, -1)]
    desk.answer(7).send(0, desk.change(8))
    assert desk.seq == 8


def test_a_poisoned_snapshot_is_one_dead_letter_and_asked_again(kit: Any) -> None:
    desk = Desk(kit, "dense")
    desk.out(1.0)
    bad = kit.frame(["b", kit.SYMBOL, True, 5, 5, -1, 0, [("1e999999", "1")], []])
    desk.host.feed(desk.feeders[0].answer(desk.host.now, bad))
    out = desk.out(1.0)
    assert len(out.events.dead_letters) == 1
    assert len(out.commands) == 2
    desk.answer(5)
    assert desk.seq == 5


def test_a_poisoned_change_kept_of_another_connection_breaks_the_book_only(kit: Any) -> None:
    desk = Desk(kit, "dense", 2)
    desk.answer(5).send(1, desk.change(6), desk.change(7, bids=[("?", "1")]), desk.change(8)).close(0)
    out = desk.out()
    assert gaps(out) == [("open", "book", 7, -1)]
    assert desk.track.meta.source == f"{desk.feeders[1].session}/1"


@pytest.mark.parametrize("rules", ["dense", "pu", "inband"])
def test_a_connection_far_ahead_counts_before_what_is_kept_of_it_is_dropped(kit: Any, rules: str) -> None:
    """The one that counted lags: its end, while it does, costs nothing."""
    desk = Desk(kit, rules, 2)
    if rules == "inband":
        desk.send(0, desk.snapshot(5)).send(1, desk.snapshot(5))
    else:
        desk.answer(5)
    last = 5 + 3 * OTHERS
    desk.send(0, desk.change(6)).send(1, *(desk.change(seq) for seq in range(6, last + 1)))
    assert desk.seq == last
    desk.send(0, desk.change(7), desk.change(8)).close(0).send(1, desk.change(last + 1))
    out = desk.out()
    assert desk.seq == last + 1
    assert not out.events.gaps
    assert [delta.seq for delta in out.deltas.deltas if not delta.image] == list(range(6, last + 2))
