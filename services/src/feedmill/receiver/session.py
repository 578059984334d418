"""A session: one producer's dense sequence of batches, its control records and what is kept of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from feedmill import __version__
from feedmill.receiver import metrics
from feedmill.receiver.backlog import Backlog, Kept
from feedmill.receiver.packer import Packer
from feedmill.shared import control
from feedmill.shared.budget import ByteBudget
from feedmill.shared.clock import MS, monotonic, now_ns
from feedmill.shared.frames import VERSION, RawBatch, decode_batch, encode_batch

STEP = 1024
"""Frames added to the open batch before its bounds are looked at."""
_COUNTERS = (metrics.frames, metrics.batches, metrics.bytes_packed)


def new_session_id(replica: str, started_ns: int) -> str:
    """``<replica>-<started ms, 12 hex digits><6 random hex>``: sorts by start within a replica."""
    return f"{replica}-{started_ns // MS:012x}{secrets.token_hex(3)}"


@dataclass(slots=True)
class _Live:
    name: str
    asked: dict[str, control.TopicRef]
    """Subscribed or going to be, those that ended since included."""
    topics: dict[str, control.TopicRef] = field(default_factory=dict)


class LiveView:
    """Which connections and topics are live after a prefix of the records; told again when a session is replaced."""

    def __init__(self) -> None:
        self._conns: dict[int, _Live] = {}

    def apply(self, record: control.Control) -> None:
        if isinstance(record, control.Connected):
            self._conns[record.conn] = _Live(record.name, {topic.topic: topic for topic in record.topics})
        elif isinstance(record, control.Disconnected):
            self._conns.pop(record.conn, None)
        elif isinstance(record, control.Subscribing):
            if (live := self._conns.get(record.conn)) is not None:
                live.asked.update((topic.topic, topic) for topic in record.topics)
        elif isinstance(record, control.Subscribed | control.Unsubscribed | control.Rejected):
            live = self._conns.get(record.conn)
            if live is None:
                return
            for topic in record.topics:
                if isinstance(record, control.Subscribed):
                    live.topics[topic.topic] = topic
                else:
                    live.topics.pop(topic.topic, None)

    def records(self) -> list[tuple[int, control.Control]]:
        """(conn, record) to bring a reader from nothing to this state."""
        told: list[tuple[int, control.Control]] = []
        for conn, live in self._conns.items():
            told.append((conn, control.Connected(conn, live.name, list(live.asked.values()))))
            if live.topics:
                told.append((conn, control.Subscribed(conn, list(live.topics.values()))))
        return told


class Producer:
    """Everything the process writes goes through here, in order: frames, control records, REST answers.

    ``pump`` is called whenever there may be something to send (the appender's).
    """

    def __init__(
        self,
        replica: str,
        budget: ByteBudget,
        *,
        max_frames: int = 4096,
        max_bytes: int = 256 * 1024,
        log: Any = None,
        wall: Callable[[], int] = now_ns,
    ) -> None:
        self.replica = replica
        self.budget = budget
        self.packer = Packer()
        self.backlog = Backlog()
        self.pump: Callable[[], None] = lambda: None
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._log = log
        self._wall = wall
        self._confirmed_view = LiveView()
        self.ended = False
        self.packed_frames = self.packed_batches = self.packed_bytes = 0
        self._reported = (0, 0, 0)
        self.last_sealed = monotonic()
        self.started_ns = wall()
        self.id = ""
        self._begin(None)

    # records, in order
    def add_frames(self, conn: int, times: list[int], frames: list[bytes]) -> None:
        """Queue frames without sending (see :meth:`frames`); the lists belong to the packer afterwards."""
        if len(frames) <= STEP:
            self.budget.add(self.packer.add_frames(conn, times, frames))
            return
        # A read of a fast plain socket can bring megabytes: batches stay within their bounds all the same.
        for start in range(0, len(frames), STEP):
            part = slice(start, start + STEP)
            self.budget.add(self.packer.add_frames(conn, times[part], frames[part]))
            if self.overfull:
                self.seal()

    def frames(self, conn: int, times: list[int], frames: list[bytes]) -> None:
        self.add_frames(conn, times, frames)
        self.pump()

    def record(self, record: control.Control, conn: int = 0) -> None:
        self.budget.add(self.packer.add_control(conn, self._wall(), record))
        self.pump()

    def answer(self, answer: control.RestAnswer, at: int) -> None:
        self.budget.add(self.packer.add_rest(at, answer))
        self.pump()

    def alive(self, idle_for: float) -> None:
        """Write Alive when nothing was sealed for that long and nothing waits (then silence means nothing)."""
        if not self.ended and self.idle and monotonic() - self.last_sealed >= idle_for:
            self.record(control.Alive())

    def end(self) -> None:
        """Orderly stop: SessionEnd is the last record."""
        if not self.ended:
            self.record(control.SessionEnd())
            self.ended = True
            self.backlog.hurry.set()

    @property
    def idle(self) -> bool:
        """Nothing is packed or waits for its acknowledgement."""
        return self.packer.empty and self.backlog.settled

    # batches
    @property
    def overfull(self) -> bool:
        return self.packer.size >= self._max_bytes or self.packer.frames >= self._max_frames

    def seal(self) -> bool:
        """Close the open batch and number it; False when it is empty."""
        contents = self.packer.take()
        if contents is None:
            return False
        n = self.backlog.last + 1
        payload = encode_batch(RawBatch(VERSION, self.id, n, contents.runs))
        self.backlog.add(Kept(n, payload, contents.frames, contents.controls))
        self.budget.add(len(payload))
        self.budget.release(contents.size)
        self.last_sealed = monotonic()
        self.packed_frames += contents.frames
        self.packed_batches += 1
        self.packed_bytes += len(payload)
        return True

    def report(self) -> None:
        """Bring the counters up to date (they are not touched once a batch)."""
        now = (self.packed_frames, self.packed_batches, self.packed_bytes)
        for counter, value, before in zip(_COUNTERS, now, self._reported, strict=True):
            counter.inc(value - before)
        self._reported = now

    def confirm(self, session: str, n: int) -> None:
        """Batches up to ``n`` of ``session`` are safe: let them go."""
        if session != self.id:
            return
        size = 0
        for kept in self.backlog.confirm(n):
            size += len(kept.payload)
            for record in kept.controls:
                self._confirmed_view.apply(record)
        if size:
            self.budget.release(size)

    def replace(self) -> None:
        """Begin a new session: the server forgot batches that are no longer held here.

        The new session says which one it replaces and tells what was live where the held batches begin; then the held
        batches follow, renumbered, so that nothing that is still held is lost.
        """
        self.seal()
        old = self.id
        held = self.backlog.take_all()
        self._begin(old)
        for conn, record in self._confirmed_view.records():
            self.budget.add(self.packer.add_control(conn, self._wall(), record))
        self.seal()
        for kept in held:
            batch = decode_batch(kept.payload)
            batch.session, batch.n = self.id, self.backlog.last + 1
            payload = encode_batch(batch)
            self.budget.add(len(payload))
            self.budget.release(len(kept.payload))
            self.backlog.add(Kept(batch.n, payload, kept.frames, kept.controls))
        metrics.sessions_lost.inc()
        if self._log is not None:
            self._log.error("session.lost", lost=old, session=self.id, resent_batches=len(held))

    def _begin(self, lost: str | None) -> None:
        started = self._wall()
        self.id = new_session_id(self.replica, started)
        record = control.Session(self.id, self.replica, __version__, started, lost)
        self.budget.add(self.packer.add_control(0, started, record))
