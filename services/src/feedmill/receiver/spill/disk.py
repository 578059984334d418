"""Batches of one session that are on disk: where they stand, and a short window of those to be sent next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from feedmill.receiver import metrics
from feedmill.receiver.backlog import Kept
from feedmill.receiver.spill import files
from feedmill.receiver.spill.folder import Folder
from feedmill.receiver.spill.format import RECORD_HEAD, Piece, SegmentHead, decode_record, intact
from feedmill.shared import control
from feedmill.shared.budget import ByteBudget
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, decode_batch, encode_batch

READ_SHARE = 64
"""Of the memory budget one read takes the 64th part (1 MiB of 64); two of them are held at most."""
READ_BATCHES = 512
RETRY = 0.5
RETRIES = 10
"""Attempts to read before what does not come counts as damaged."""


@dataclass(slots=True)
class Extent:
    """Records of one segment whose numbers follow each other."""

    path: Path
    piece: Piece
    head: SegmentHead


@dataclass(frozen=True, slots=True)
class _Span:
    """What is read at once: ``edges`` are offsets of records, and the end."""

    path: Path | None
    """None: these batches are gone (a hole between extents)."""
    edges: tuple[int, ...]
    n: int
    """Of the first, as it is sent."""
    count: int
    from_ns: int
    to_ns: int
    renamed: bool = False
    """They stand there under another session or number."""


class Disk:
    """``session``: whose batches these are for Redis. ``shift``: their number on disk less their number there."""

    def __init__(
        self, folder: Folder, budget: ByteBudget, session: str, ready: Callable[[], None], log: Any, shift: int = 0
    ) -> None:
        self.folder = folder
        self.session = session
        self.shift = shift
        self.extents: deque[Extent] = deque()
        self.prefix: Kept | None = None
        """What goes before all others, where they go as a session that begins with them."""
        self.epoch = 0
        """Moves when everything is given up: what is being written then does not count."""
        self._budget = budget
        self._ready = ready
        self._log = log
        self._window: deque[Kept] = deque()
        self._window_bytes = 0
        self._read_bytes = budget.limit // READ_SHARE
        self._read_next = 0
        self._reading: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self.extents)

    @property
    def first(self) -> int:
        if self.prefix is not None:
            return self.prefix.n
        return self.extents[0].piece.first - self.shift

    @property
    def last(self) -> int:
        return self.extents[-1].piece.last - self.shift

    @property
    def view(self) -> list[tuple[int, control.Control]]:
        """What was live before the first batch."""
        return [(conn, control.decode_control(data)) for conn, data in self.extents[0].head.view]

    def bytes_from(self, n: int) -> int:
        """Bytes of the batches from ``n`` on."""
        size = 0
        for extent in reversed(self.extents):
            piece = extent.piece
            if piece.last - self.shift < n:
                break
            size += piece.end - piece.start(max(piece.first, n + self.shift))
        return size

    # growing and shrinking
    def append(self, path: Path, piece: Piece, head: SegmentHead) -> None:
        """These were written."""
        if self.extents and self.extents[-1].path == path and self.extents[-1].piece.last + 1 == piece.first:
            grown = self.extents[-1].piece
            if grown.end == piece.starts[0]:
                grown.starts.extend(piece.starts)
                grown.end, grown.at_ns = piece.end, piece.at_ns
                return
        self.extents.append(Extent(path, piece, head))

    def release(self, n: int) -> None:
        """Batches up to ``n`` are safe elsewhere: delete the segments that hold no others."""
        if not self.extents:
            return
        if n >= self.last:
            self.clear()
            return
        gone: list[Path] = []
        while self.extents[0].piece.last - self.shift <= n:
            path = self.extents.popleft().path
            self.prefix = None
            if self.extents[0].path != path:
                gone.append(path)
        self.folder.delete(gone)

    def clear(self) -> None:
        """All are safe elsewhere."""
        gone = dict.fromkeys(extent.path for extent in self.extents)
        self.extents.clear()
        self.prefix = None
        self.epoch += 1
        self.forget_window()
        self.folder.delete(gone)

    def renumber(self, session: str, shift: int, prefix: Kept) -> None:
        """They go to Redis under another session and number from now on, after ``prefix``."""
        self.session, self.shift, self.prefix = session, shift, prefix
        self.forget_window()

    # reading
    def take(self, n: int) -> Kept | None:
        """Batch ``n``, or None while it is being read: ``ready`` is called then."""
        if self.prefix is not None and self.prefix.n == n:
            return self.prefix
        window = self._window
        if window and window[0].n == n:
            kept = window.popleft()
            self._shrink(len(kept.payload))
            if self._window_bytes < self._read_bytes // 2:
                self._read_on()
            return kept
        if self._read_next != n or window:
            self.forget_window()
            self._read_next = n
        self._read_on()
        return None

    def forget_window(self) -> None:
        """Read again what is asked for next."""
        self._window.clear()
        self._shrink(self._window_bytes)
        self._read_next = 0
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _shrink(self, size: int) -> None:
        self._window_bytes -= size
        self._budget.release(size)

    def _read_on(self) -> None:
        if self._reading is None and self._read_next and self.extents and self._read_next <= self.last:
            span = self._span(self._read_next)
            self._reading = asyncio.get_running_loop().create_task(self._read(span), name="spill-read")

    def _span(self, n: int) -> _Span:
        number = n + self.shift
        before: Piece | None = None
        for extent in self.extents:
            piece = extent.piece
            if number < piece.first:
                from_ns = before.at_ns if before is not None else piece.from_ns
                return _Span(None, (), n, min(piece.first - number, READ_BATCHES), from_ns, piece.from_ns)
            if number <= piece.last:
                edges = [piece.start(number)]
                while number <= piece.last and len(edges) <= READ_BATCHES:
                    if len(edges) > 1 and piece.stop(number) - edges[0] > self._read_bytes:
                        break
                    edges.append(piece.stop(number))
                    number += 1
                renamed = self.shift != 0 or extent.head.session != self.session
                return _Span(extent.path, tuple(edges), n, len(edges) - 1, piece.from_ns, piece.at_ns, renamed)
            before = piece
        raise ValueError(f"batch {n} is not on disk (only {self.first}..{self.last})")

    async def _read(self, span: _Span) -> None:
        batches, damaged = await self._loaded(span)
        if damaged:
            metrics.spill_damaged.inc(damaged)
            self._log.error("spill.damaged", session=self.session, batches=damaged, effect="gap rows with cause shed")
        self._reading = None
        self._read_next = span.n + span.count
        size = sum(len(kept.payload) for kept in batches)
        was_empty = not self._window
        self._window.extend(batches)
        self._window_bytes += size
        self._budget.add(size)
        if was_empty:
            self._ready()

    async def _loaded(self, span: _Span) -> tuple[list[Kept], int]:
        """What :func:`_load` gives; what cannot be read for long counts as damaged."""
        for _ in range(RETRIES):
            try:
                return await self.folder.reading(partial(_load, span, self.session))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                self._log.error("spill.unreadable", segment=span.path and span.path.name, reason=reason)
                await asyncio.sleep(RETRY)
        return _load(replace(span, path=None), self.session)


def _load(span: _Span, session: str) -> tuple[list[Kept], int]:
    """(batches, how many of them stand for damaged ones). Runs in a thread."""
    if span.path is None:
        first = _substitute(session, span.n, 0, 0, span.from_ns, span.to_ns)
        rest = [_empty(session, n, span.to_ns) for n in range(span.n + 1, span.n + span.count)]
        return [first, *rest], span.count
    base = span.edges[0]
    data = files.read_span(span.path, base, span.edges[-1])
    batches: list[Kept] = []
    damaged = 0
    before_ns = span.from_ns
    for n, start, stop in zip(range(span.n, span.n + span.count), span.edges, span.edges[1:], strict=False):
        head = decode_record(data, start - base)
        payload = data[start - base + RECORD_HEAD : stop - base]
        kept = None
        if head is not None and intact(head, payload):
            kept = _batch(session, n, payload, head.frames, head.at_ns, span.renamed)
        if kept is None:
            damaged += 1
            frames, at_ns = (0, before_ns) if head is None else (head.frames, head.at_ns)
            kept = _substitute(session, n, frames, len(payload), min(before_ns, at_ns), at_ns)
        before_ns = kept.at_ns
        batches.append(kept)
    return batches, damaged


def _batch(session: str, n: int, payload: bytes, frames: int, at_ns: int, renamed: bool) -> Kept | None:
    if renamed:
        try:
            batch = decode_batch(payload)
        except (msgspec.DecodeError, ValueError):
            return None
        batch.session, batch.n = session, n
        payload = encode_batch(batch)
    return Kept(n, payload, frames, [], at_ns)


def _substitute(session: str, n: int, frames: int, size: int, from_ns: int, to_ns: int) -> Kept:
    """Stands in the place of what cannot be read: numbers stay dense, and the loss is told (``conn`` 0 = all)."""
    record = control.encode(control.Shed(0, frames, size, from_ns, to_ns))
    return packed(session, n, [Run(int(RunKind.CONTROL), 0, [to_ns], [record])], to_ns)


def _empty(session: str, n: int, at_ns: int) -> Kept:
    return packed(session, n, [], at_ns)


def packed(session: str, n: int, runs: Sequence[Run], at_ns: int) -> Kept:
    """A batch that was never captured."""
    return Kept(n, encode_batch(RawBatch(VERSION, session, n, list(runs))), 0, [], at_ns)
