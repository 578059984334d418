"""What cannot be read is one dead letter each, and everything around it is untouched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from feedmill import __version__
from feedmill.shared import control
from feedmill.shared.frames import RawBatch, Run, RunKind, encode_batch


def begin(kit: Any) -> tuple[Any, Any]:
    host, feeder = kit.Host(), kit.Feeder()
    host.feed(feeder.open(kit.T0, kit.topic("Trades"), kit.topic("Ticker")))
    host.feed(feeder.frames(kit.T0, kit.trade(1)))
    return host, feeder


def letters(host: Any) -> list[tuple[Any, ...]]:
    found = host.commit().events.dead_letters
    return [(letter.session, letter.batch, letter.index, letter.conn, letter.reason) for letter in found]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("map", "bad_field"), ("value", "bad_value"), ("type", "internal_error"), ("zero", "internal_error"),
     ("unknown", "internal_error")],
)  # fmt: skip
def test_a_mapper_that_raises_costs_its_frame_only(kit: Any, bad: str, reason: str) -> None:
    host, feeder = begin(kit)
    poison = kit.frame([bad])
    host.feed(feeder.frames(kit.T0 + 5, kit.trade(2), poison, kit.trade(3), kit.ticker(7)))
    assert letters(host) == [(feeder.session, 3, 1, 1, reason)]
    (letter,) = host.out.events.dead_letters
    assert (letter.payload, letter.receive_ns, letter.code_version) == (poison, kit.T0 + 5, __version__)
    assert host.out.trades == [1, 2, 3]
    assert host.out.tickers == [7]
    assert not host.tick(9.0).commit().events.gaps


def test_an_event_of_no_known_kind_is_a_dead_letter(kit: Any) -> None:
    class Odd(kit.ToyMapper):  # type: ignore[name-defined]
        def map(self, payload: bytes, receive_ns: int) -> Any:
            return [object()] if payload == b"odd" else super().map(payload, receive_ns)

    host, feeder = kit.Host(mapper=lambda: Odd({})), kit.Feeder()
    host.feed(feeder.frames(kit.T0, kit.trade(1), b"odd", kit.trade(2)))
    assert letters(host) == [(feeder.session, 1, 1, 1, "internal_error")]
    assert host.out.trades == [1, 2]


@pytest.mark.parametrize("payload", [None, b"", b"\xc1", b"\x90", encode_batch(RawBatch(99, "s", 1, []))])
def test_an_undecodable_batch_is_named_by_its_entry(kit: Any, payload: bytes | None) -> None:
    host, feeder = begin(kit)
    host.feed(payload, feeder.frames(kit.T0, kit.trade(2)))
    assert letters(host) == [("raw", 3, 0, 0, "undecodable_batch")]
    assert host.out.trades == [1, 2]
    assert host.engine.pos == "4-0"


def test_an_undecodable_control_record(kit: Any) -> None:
    host, feeder = begin(kit)
    alive = control.encode(control.Alive())
    host.feed(feeder.batch(feeder.run(kit.T0, alive, b"\xc1", alive, conn=1, kind=RunKind.CONTROL)))
    assert letters(host) == [(feeder.session, 3, 1, 1, "undecodable_control")]


def test_a_control_record_that_this_code_fails_at(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host, feeder = begin(kit)
    monkeypatch.setattr(host.engine.sources, "_disconnected", None)
    host.feed(feeder.close(kit.T0), feeder.frames(kit.T0, kit.trade(2)))
    assert letters(host) == [(feeder.session, 3, 0, 1, "internal_error")]
    assert host.out.trades == [1, 2]


@pytest.mark.parametrize(
    ("kind", "status", "body", "reason"),
    [("book_snapshot", 500, b"[]", "rest_status"), ("book_snapshot", 200, b"{", "bad_value"),
     ("trades", 200, b'[["zero"]]', "internal_error"), ("trades", 200, b'[["type"]]', "internal_error")],
)  # fmt: skip
def test_an_answer_that_cannot_be_mapped(kit: Any, kind: str, status: int, body: bytes, reason: str) -> None:
    host, feeder = begin(kit)
    host.feed(feeder.answer(kit.T0, body, kind=kind, status=status), feeder.frames(kit.T0, kit.trade(2)))
    assert letters(host) == [(feeder.session, 3, 0, 0, reason)]
    assert host.out.trades == [1, 2]


def test_an_undecodable_answer_and_a_run_of_no_known_kind(kit: Any) -> None:
    host, feeder = begin(kit)
    host.feed(feeder.batch(feeder.run(kit.T0, b"\xc1", conn=0, kind=RunKind.REST), feeder.run(kit.T0, b"x", kind=9)))
    assert letters(host) == [
        (feeder.session, 3, 0, 0, "undecodable_answer"), (feeder.session, 3, 1, 1, "undecodable_answer"),
    ]  # fmt: skip


def test_a_repair_that_failed_leaves_no_trace_on_the_next(kit: Any) -> None:
    host, feeder = begin(kit)
    host.feed(feeder.frames(kit.T0, kit.trade(3)))
    host.tick(5.0)
    host.feed(feeder.answer(kit.T0, b'[["zero"]]', kind="trades", command="c1"), feeder.frames(kit.T0, kit.trade(2)))
    host.commit()
    assert [gap.repaired_by for gap in host.out.events.gaps] == ["", "late"]


@pytest.mark.parametrize("kind", [RunKind.FRAMES, RunKind.CONTROL, RunKind.REST])
def test_a_run_of_unequal_length(kit: Any, kind: RunKind) -> None:
    host, feeder = begin(kit)
    good, later = feeder.run(kit.T0, kit.trade(2)), feeder.run(kit.T0, kit.trade(3), b"[")
    bad = Run(int(kind), 1, [kit.T0], [b"a", b"b"])
    host.feed(feeder.batch(good, bad, later))
    assert letters(host) == [(feeder.session, 3, 1, 1, "undecodable_run"), (feeder.session, 3, 4, 1, "bad_value")]
    assert msgspec.msgpack.decode(host.out.events.dead_letters[0].payload, type=Run) == bad
    assert host.out.trades == [1, 2, 3]
    host.restart()
    assert not host.commit().events.gaps


def test_the_replay_of_a_restart_passes_over_poison(kit: Any) -> None:
    host, feeder = kit.Host(kit.settings_of(image_interval=1e6)), kit.Feeder()
    host.feed(feeder.open(kit.T0, kit.topic("Book")))
    change = ["b", kit.SYMBOL, False, 6, 6, 5, 1, [("1", "1")], []]
    host.feed(feeder.answer(kit.T0, kit.frame(["b", kit.SYMBOL, True, 5, 5, -1, 0, [], []])))
    host.commit()
    host.feed(feeder.frames(kit.T0, kit.frame(["zero"]), kit.frame(["type"]), b"\xff", kit.frame(change)))
    host.feed(b"\xc1", feeder.batch(Run(0, 1, [kit.T0], [b"a", b"b"])))
    host.commit()
    assert len(host.out.events.dead_letters) == 5
    host.restart()
    assert host.engine.books[kit.SYMBOL].book.seq == 6
    assert len(host.commit().events.dead_letters) == 5


def test_a_batch_handled_before_brings_nothing_again(kit: Any) -> None:
    host, feeder = begin(kit)
    again = feeder.frames(kit.T0, kit.trade(2), kit.frame(["zero"]))
    host.feed(again, again)
    assert len(letters(host)) == 1
    assert host.out.trades == [1, 2]
    assert host.takes[-1].duplicates == 2
