"""Packer and backlog: whatever is put in comes out once and in order; bounds and numbers hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feedmill.receiver.backlog import Backlog, Kept
from feedmill.receiver.names import new_session_id
from feedmill.receiver.packer import FRAME_OVERHEAD, Packer
from feedmill.receiver.session import Producer
from feedmill.receiver.view import LiveView
from feedmill.shared import control
from feedmill.shared.budget import ByteBudget
from feedmill.shared.frames import RunKind, decode_batch

frames_of = st.lists(st.binary(max_size=40), min_size=1, max_size=30)
record = st.one_of(
    st.tuples(st.just("frames"), st.integers(1, 3), frames_of),
    st.tuples(st.just("control"), st.integers(0, 3), st.just([])),
    st.tuples(st.just("rest"), st.just(0), st.just([])),
    st.tuples(st.just("seal"), st.just(0), st.just([])),
)


@given(st.lists(record, max_size=40))
def test_everything_comes_out_once_and_in_order(steps: list[tuple[str, int, list[bytes]]]) -> None:
    budget = ByteBudget(10**9)
    producer = Producer("r", budget, max_frames=50, max_bytes=2000)
    expected: list[tuple[int, int, bytes]] = []
    for index, (kind, conn, frames) in enumerate(steps):
        if kind == "frames":
            producer.frames(conn, [index] * len(frames), list(frames))
            expected += [(RunKind.FRAMES, conn, frame) for frame in frames]
        elif kind == "control":
            said = control.Disconnected(conn, "closed")
            producer.record(said, conn)
            expected.append((RunKind.CONTROL, conn, control.encode(said)))
        elif kind == "rest":
            answer = control.RestAnswer("c", "k", "s", "n", 200, index, b"body")
            producer.answer(answer, index)
            expected.append((RunKind.REST, 0, control.encode(answer)))
        else:
            producer.seal()
    producer.seal()
    got: list[tuple[int, int, bytes]] = []
    numbers: list[int] = []
    total = 0
    while (kept := producer.backlog.take_next()) is not None:
        batch = decode_batch(kept.payload)
        assert batch.session == producer.id
        numbers.append(batch.n)
        total += len(kept.payload)
        for before, run in zip([None, *batch.runs], batch.runs, strict=False):
            assert len(run.times) == len(run.frames) > 0
            assert before is None or (before.kind, before.conn) != (run.kind, run.conn)
            got += [(RunKind(run.kind), run.conn, frame) for frame in run.frames]
    assert numbers == list(range(1, len(numbers) + 1))
    assert isinstance(control.decode_control(got[0][2]), control.Session)
    assert got[1:] == expected
    assert budget.used == total == producer.backlog.bytes


def test_open_batch_is_charged_and_big_reads_are_cut() -> None:
    budget = ByteBudget(10**9)
    producer = Producer("r", budget, max_frames=100, max_bytes=10**6)
    producer.seal()
    before = budget.used
    producer.frames(1, [1, 2], [b"x" * 100, b"y" * 50])
    assert budget.used - before == 150 + 2 * FRAME_OVERHEAD
    producer.frames(1, [3] * 5000, [b"z" * 10] * 5000)
    assert producer.backlog.last > 4
    while (kept := producer.backlog.take_next()) is not None:
        assert kept.frames <= 100 + 1024


def test_empty_packer_gives_nothing() -> None:
    packer = Packer()
    assert packer.empty
    assert packer.take() is None


class Model:
    """What a backlog should hold, in the simplest terms."""

    def __init__(self) -> None:
        self.last = self.acked = self.confirmed = 0
        self.next = 1


steps = st.lists(
    st.tuples(st.sampled_from(["add", "send", "ack", "rewind", "confirm"]), st.integers(0, 12)), max_size=80
)


@given(steps)
def test_backlog_against_a_model(actions: list[tuple[str, int]]) -> None:
    backlog, model = Backlog(), Model()
    for action, number in actions:
        if action == "add":
            model.last += 1
            backlog.add(Kept(model.last, bytes(model.last), 1, []))
        elif action == "send":
            kept = backlog.take_next()
            assert (kept.n if kept else None) == (model.next if model.next <= model.last else None)
            model.next = min(model.next + 1, model.last + 1)
        elif action == "ack":
            n = min(number, model.last)
            backlog.acknowledge(number)
            model.acked = max(model.acked, n)
            model.next = max(model.next, n + 1)
        elif action == "rewind":
            assert backlog.can_rewind(number) == (model.confirmed < number <= model.last + 1)
            if backlog.can_rewind(number):
                backlog.rewind(number)
                model.acked = min(model.acked, number - 1)
                model.next = number
        else:
            gone = backlog.confirm(number)
            n = max(model.confirmed, min(number, model.acked))
            assert [kept.n for kept in gone] == list(range(model.confirmed + 1, n + 1))
            model.confirmed = n
        held = range(model.confirmed + 1, model.last + 1)
        assert (backlog.first, backlog.last, backlog.acked, backlog.next) == (
            model.confirmed + 1, model.last, model.acked, model.next,
        )  # fmt: skip
        assert backlog.bytes == sum(held)
        assert backlog.unsent_bytes == sum(range(model.next, model.last + 1))
        assert backlog.settled == (model.acked == model.last)


def test_session_ids_sort_by_start() -> None:
    early, late = new_session_id("r", 1_000_000_000), new_session_id("r", 1_764_000_000_000_000_000)
    assert early < late
    assert len(late) == len("r-") + 18


def test_live_view_tells_what_is_live() -> None:
    topics = [control.TopicRef(s, s, "Trades", s.lower()) for s in ("A", "B", "C")]
    view = LiveView()
    for said in (
        control.Connected(1, "stream"),
        control.Subscribed(1, topics),
        control.Connected(2, "other"),
        control.Unsubscribed(1, topics[:1]),
        control.Rejected(1, topics[1:2], "no"),
        control.Subscribed(9, topics),
        control.Connected(3, "gone"),
        control.Disconnected(3, "closed"),
    ):
        view.apply(said)
    assert view.records() == [
        (1, control.Connected(1, "stream")),
        (1, control.Subscribed(1, topics[2:])),
        (2, control.Connected(2, "other")),
    ]


def test_replaced_session_tells_the_state_where_the_held_batches_begin() -> None:
    producer = Producer("r", ByteBudget(10**9))
    topics = [control.TopicRef("A", "A", "Trades", "a")]
    producer.record(control.Connected(1, "stream"), 1)
    producer.record(control.Subscribed(1, topics), 1)
    producer.seal()
    producer.frames(1, [1], [b"confirmed"])
    producer.seal()
    producer.backlog.acknowledge(2)
    producer.confirm(producer.id, 2)
    producer.confirm("another session", 3)
    old = producer.id
    producer.frames(1, [2], [b"held"])
    producer.record(control.Disconnected(1, "closed"), 1)
    producer.replace()
    said = []
    while (kept := producer.backlog.take_next()) is not None:
        batch = decode_batch(kept.payload)
        assert (batch.session, batch.n) == (producer.id, kept.n)
        for run in batch.runs:
            for payload in run.frames:
                said.append(control.decode_control(payload) if run.kind == RunKind.CONTROL else payload)
    assert isinstance(said[0], control.Session)
    assert said[0].lost_session == old != producer.id
    assert said[1:] == [
        control.Connected(1, "stream"), control.Subscribed(1, topics), b"held", control.Disconnected(1, "closed"),
    ]  # fmt: skip
    assert producer.budget.used == producer.backlog.bytes


def test_an_ended_session_that_is_replaced_is_no_newer_than_the_one_that_followed_it() -> None:
    times = iter(range(1_000_000_000, 10**12, 1_000_000_000))
    producer = Producer("r", ByteBudget(10**9), wall=lambda: next(times))
    began, first = producer.session.started_ns, producer.id
    producer.replace()
    assert producer.session.started_ns > began, "it goes on"
    second, began = producer.id, producer.session.started_ns
    assert first < second
    producer.end()
    producer.replace()
    assert producer.session.started_ns == began
    assert producer.id[:-6] == second[:-6]
    assert producer.id != second
