"""The folder in which the log waits: what pg_receivewal finds there, and what is uploaded of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feedmill.general.backup.spool import Spool
from feedmill.general.backup.wal_plan import SEGMENT_BYTES, Segment

SYSTEM = "7301234567890123456"


def file(number: int, timeline: int = 1) -> str:
    return Segment(number, timeline).name()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def put(spool: Spool, *names: str, system: str = SYSTEM) -> None:
    for name in names:
        path = spool.folder(system) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)


def names(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.folder(SYSTEM).iterdir())


def prepared(spool: Spool, number: int) -> list[str]:
    spool.prepare(SYSTEM, Segment(number, 1), SEGMENT_BYTES)
    return names(spool)


def test_an_empty_one_says_where_to_begin(spool: Spool) -> None:
    assert spool.waiting() == []
    assert prepared(spool, 7) == [file(7) + ".partial"]
    assert (spool.folder(SYSTEM) / (file(7) + ".partial")).stat().st_size == 0
    assert prepared(spool, 7) == [file(7) + ".partial"]


def test_what_goes_on_without_a_gap_stays(spool: Spool) -> None:
    put(spool, file(7), file(8), file(9) + ".partial")
    os.truncate(unfinished := spool.folder(SYSTEM) / (file(9) + ".partial"), SEGMENT_BYTES)
    assert prepared(spool, 7) == [file(7), file(8), file(9) + ".partial"]
    assert unfinished.stat().st_size == SEGMENT_BYTES


def test_a_file_that_was_cut_off_while_it_was_made_is_made_anew(spool: Spool) -> None:
    """pg_receivewal fills it up with zeros first, and takes none that has not all of them."""
    put(spool, file(7), file(8) + ".partial")
    assert prepared(spool, 7) == [file(7), file(8) + ".partial"]
    assert (spool.folder(SYSTEM) / (file(8) + ".partial")).stat().st_size == 0


def test_what_is_stored_already_goes(spool: Spool) -> None:
    put(spool, file(5), file(6), file(7), file(8) + ".partial", "00000002.history")
    assert prepared(spool, 7) == [file(7), file(8) + ".partial", "00000002.history"]


def test_what_begins_after_a_gap_goes(spool: Spool) -> None:
    put(spool, file(7), file(9), file(10) + ".partial")
    assert prepared(spool, 7) == [file(7), file(8) + ".partial"]
    put(spool, file(20))
    assert prepared(spool, 9) == [file(9) + ".partial"]


def test_of_two_timelines_the_newer_goes_on(spool: Spool) -> None:
    put(spool, file(7), file(8) + ".partial", file(8, 2) + ".partial")
    assert prepared(spool, 7) == [file(7), file(8, 2) + ".partial"]


def test_a_folder_that_is_let_go_while_it_is_looked_at_holds_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, file(7), file(8) + ".partial")
    systems = spool.systems()
    spool.forget(SYSTEM)
    monkeypatch.setattr(spool, "systems", lambda: systems)
    assert (spool.waiting(), spool.partial(SYSTEM), spool.size_bytes()) == ([], None, 0)


def test_the_order_of_the_log(spool: Spool) -> None:
    put(spool, file(300), file(9), file(8, 2), "00000002.history", file(10) + ".partial", "something else")
    put(spool, file(1), system="1")
    assert [(item.system, item.file) for item in spool.waiting()] == [
        ("1", file(1)),
        (SYSTEM, "00000002.history"),
        (SYSTEM, file(8, 2)),
        (SYSTEM, file(9)),
        (SYSTEM, file(300)),
    ]
    partial = spool.partial(SYSTEM)
    assert partial is not None
    assert partial.name == file(10) + ".partial"
    assert spool.size_bytes() == 70
    for item in spool.waiting():
        spool.remove(item)
        spool.remove(item)
    assert names(spool) == [file(10) + ".partial", "something else"]
