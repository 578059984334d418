"""Segments: whatever is cut off or overwritten, what is whole is found, and nothing else."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.receiver.backlog import Kept
from feedmill.receiver.spill import files
from feedmill.receiver.spill.files import SegmentWriter, scan_file
from feedmill.receiver.spill.format import (
    RECORD_HEAD,
    VERSION,
    Scanned,
    SegmentHead,
    decode_record,
    encode_head,
    encode_record,
    intact,
    scan,
)
from feedmill.receiver.view import LiveView
from feedmill.shared import control, frames

SESSION = "r0-0123456789abcdef01"
payloads = st.lists(st.binary(max_size=60), min_size=1, max_size=12)


def batch(n: int, data: bytes) -> bytes:
    return frames.encode_batch(frames.RawBatch(frames.VERSION, SESSION, n, [frames.Run(0, 1, [n], [data])]))


def segment(data: list[bytes], first: int = 1) -> tuple[bytes, list[bytes], list[int]]:
    """(bytes, payloads, where each record ends)."""
    made = encode_head(SegmentHead(VERSION, "n.f.0", SESSION, "r0", 0x0123456789AB * 1_000_000, first, 5))
    kept, ends = [], []
    for n, each in enumerate(data, first):
        kept.append(batch(n, each))
        made += encode_record(n, kept[-1], 1, 100 + n) + kept[-1]
        ends.append(len(made))
    return made, kept, ends


def read(data: bytes) -> Scanned:
    return scan(lambda offset, length: data[offset : offset + length], len(data))


def whole(data: bytes) -> dict[int, bytes]:
    """Number -> payload of the records that are intact, as a reader takes them."""
    found: dict[int, bytes] = {}
    for piece in read(data).pieces:
        for n in range(piece.first, piece.last + 1):
            head = decode_record(data, piece.start(n))
            payload = data[piece.start(n) + RECORD_HEAD : piece.stop(n)]
            if head is not None and intact(head, payload):
                assert head.n == n
                found[n] = payload
    return found


@given(payloads, st.integers(1, 10**9))
def test_what_was_written_is_read(data: list[bytes], first: int) -> None:
    made, kept, ends = segment(data, first)
    found = read(made)
    assert found.head is not None
    assert (found.head.session, found.head.first) == (SESSION, first)
    (piece,) = found.pieces
    assert (piece.first, piece.last, piece.end) == (first, first + len(data) - 1, ends[-1])
    assert (piece.from_ns, piece.at_ns) == (100 + first, 100 + piece.last)
    assert found.damaged == found.torn == 0
    assert list(whole(made).values()) == kept


@given(payloads, st.data())
def test_any_truncation_leaves_a_prefix(data: list[bytes], draw: st.DataObject) -> None:
    made, kept, ends = segment(data)
    cut = draw.draw(st.integers(0, len(made)))
    complete = sum(end <= cut for end in ends)
    assert list(whole(made[:cut]).items()) == list(enumerate(kept[:complete], 1))
    found = read(made[:cut])
    assert (found.head is None) == (cut < ends[0] - len(kept[0]) - RECORD_HEAD)
    if found.head is not None:
        start = ends[complete - 1] if complete else ends[0] - len(kept[0]) - RECORD_HEAD
        assert found.torn == cut - start


@given(payloads, st.data())
def test_overwritten_bytes_cost_the_records_they_touch(data: list[bytes], draw: st.DataObject) -> None:
    made, kept, ends = segment(data)
    start = draw.draw(st.integers(0, len(made) - 1))
    junk = draw.draw(st.binary(min_size=1, max_size=80))
    stop = min(len(made), start + len(junk))
    spoiled = made[:start] + junk[: stop - start] + made[stop:]
    found = whole(spoiled)
    begins = [ends[0] - len(kept[0]) - RECORD_HEAD, *ends]
    untouched = {n for n in range(1, len(kept) + 1) if stop <= begins[n - 1] or start >= begins[n]}
    assert untouched <= set(found)
    assert all(payload == kept[n - 1] for n, payload in found.items())
    assert list(found) == sorted(found)
    head = read(spoiled).head
    assert head is not None or not found
    if head is not None:
        assert (head.session, head.replica, head.started_ns) == (SESSION, "r0", 0x0123456789AB * 1_000_000)


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_no_segment(data: bytes) -> None:
    found = read(data)
    assert found.head is None
    assert not found.pieces
    assert found.torn == len(data)


def kept(n: int, size: int = 100, controls: list[control.Control] | None = None) -> Kept:
    return Kept(n, batch(n, bytes(size)), 1, controls or [], n)


def stored(folder: Path) -> list[int]:
    found: list[int] = []
    for path in sorted(folder.glob("*.spill")):
        for piece in scan_file(path)[0].pieces:
            found += [n for n in range(piece.first, piece.last + 1) if not found or n > found[-1]]
    return found


SAID = control.Session(SESSION, "r0", "1", 7)


def test_segments_end_at_their_size_and_tell_what_is_live(tmp_path: Path) -> None:
    topic = control.TopicRef("A", "A", "Trades", "a")
    live = LiveView.of([(1, control.Connected(1, "stream", [topic]))])
    writer = SegmentWriter(tmp_path, "n.f.0", 2000)
    batches = [kept(n, 500) for n in range(1, 10)]
    batches[4].controls.append(control.Subscribed(1, [topic]))
    done = writer.write(SAID, live, batches, 1 << 20)
    assert (done.last, done.full, done.error) == (9, False, None)
    assert len(done.pieces) == 3
    assert done.sizes == {path: path.stat().st_size for path in tmp_path.glob("*.spill")}
    assert stored(tmp_path) == list(range(1, 10))
    views = [[control.decode_control(data) for _, data in head.view] for _, _, head in done.pieces]
    said = control.Connected(1, "stream", [topic])
    assert views == [[said], [said], [said, control.Subscribed(1, [topic])]]
    writer.close()


def test_no_more_than_the_room_is_taken(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "n.f.0", 1 << 20)
    done = writer.write(SAID, LiveView(), [kept(n) for n in range(1, 100)], 1000)
    assert done.full
    assert 0 < done.last < 99
    assert sum(done.sizes.values()) <= 1000
    assert stored(tmp_path) == list(range(1, done.last + 1))
    writer.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ok", "nothing", "part", "stuck"]), max_size=25))
def test_a_disk_that_refuses_leaves_whole_records(plan: list[str]) -> None:
    """Writes fail, wholly or in part, and cutting off the part may fail too; what is told as written is there."""
    real_writev, real_truncate = os.writev, os.ftruncate
    now = ""

    def writev(fd: int, parts: Any) -> int:
        nonlocal now
        now = plan.pop() if plan else "ok"
        if now == "ok":
            return real_writev(fd, parts)
        if now in ("part", "stuck"):
            real_writev(fd, [b"".join(parts)[:70]])
        raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(fd: int, size: int) -> None:
        if now == "stuck":
            raise OSError(errno.EIO, "Input/output error")
        real_truncate(fd, size)

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(files.os, "writev", writev)
        monkeypatch.setattr(files.os, "ftruncate", truncate)
        folder = Path(name)
        writer = SegmentWriter(folder, "n.f.0", 1500)
        view: LiveView | None = LiveView()
        last = 0
        while last < 20:
            done = writer.write(SAID, view, [kept(n) for n in range(last + 1, min(last + 5, 21))], 1 << 20)
            assert (done.error is None) == (done.last == min(last + 4, 20))
            view = None
            last = done.last or last
            assert stored(folder) == list(range(1, last + 1))
        writer.close()
