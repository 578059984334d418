"""A session: one producer's dense sequence of batches, its control records and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feedmill import __version__
from feedmill.receiver import metrics, traces
from feedmill.receiver.backlog import Backlog, Kept
from feedmill.receiver.names import new_session_id
from feedmill.receiver.packer import Packer
from feedmill.receiver.spill.disk import Disk
from feedmill.receiver.spill.past import Past
from feedmill.receiver.spill.shed import Shedder
from feedmill.receiver.view import LiveView
from feedmill.shared import control
from feedmill.shared.budget import ByteBudget
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.frames import VERSION, RawBatch, decode_batch, encode_batch
from feedmill.shared.tracing import TRACES

STEP = 1024
"""Frames added to the open batch before its bounds are looked at."""
SHED_FROM, SHED_UNTIL = 0.75, 0.5
"""Shares of the memory budget: what is left is for control records, which are never shed."""
CRAMPED_SHARE = 8
"""Of the spill: with less room than the 8th part confirmations of replicas are not waited for."""
_COUNTERS = (metrics.frames, metrics.batches, metrics.bytes_packed, metrics.shed_frames, metrics.shed_bytes)


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
        shard: str = "",
        log: Any = None,
        wall: Callable[[], int] = now_ns,
    ) -> None:
        """``shard``: what traces call it."""
        self.replica = replica
        self.shard = shard
        self.budget = budget
        self.packer = Packer()
        self.backlog = Backlog()
        self.past: list[Past] = []
        """Sessions that are over and go to Redis before this one, oldest first."""
        self.stuck = False
        """The spill takes nothing more: what exceeds memory is shed."""
        self.unreplicated = False
        """Replicas that must have the batches do not: they pile up although Redis takes them."""
        self.shed = Shedder()
        self._may_shed = False
        self._shedding = False
        self.pump: Callable[[], None] = lambda: None
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._log = log
        self._wall = wall
        self.view = LiveView()
        """What is live before the oldest batch in memory."""
        self.disk: Disk | None = None
        self._make_disk: Callable[[str], Disk] | None = None
        self.ended = False
        self.packed_frames = self.packed_batches = self.packed_bytes = 0
        self._reported = (0, 0, 0, 0, 0)
        self.last_sealed = monotonic()
        self.started_ns = wall()
        self.id = ""
        self._begin(None)

    # records, in order
    def add_frames(self, conn: int, times: list[int], frames: list[bytes]) -> None:
        """Queue frames without sending (see :meth:`frames`); the lists belong to the packer afterwards."""
        if self._may_shed and self._refuses(conn, times, frames):
            return
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
        if self.shed:
            self._tell_shed(conn)
        self.budget.add(self.packer.add_control(conn, self._wall(), record))
        self.pump()

    def answer(self, answer: control.RestAnswer, at: int) -> None:
        if self._may_shed and self._is_shedding():
            self.record(control.RestFailed(answer.command, answer.symbol, "the receiver's memory and spill are full"))
            return
        self.budget.add(self.packer.add_rest(at, answer))
        self.pump()

    def alive(self, idle_for: float) -> None:
        """Write Alive when nothing was sealed for that long and nothing waits (then silence means nothing)."""
        if self.shed and not self._is_shedding():
            self._tell_shed(None)
            self.pump()
        if not self.ended and self.idle and monotonic() - self.last_sealed >= idle_for:
            self.record(control.Alive())

    def end(self) -> None:
        """Orderly stop: SessionEnd is the last record."""
        if not self.ended:
            self._tell_shed(None)
            self.record(control.SessionEnd())
            self.ended = True
            self.backlog.hurry.set()

    @property
    def idle(self) -> bool:
        """Nothing is packed or waits for its acknowledgement."""
        return self.packer.empty and self.backlog.settled

    # giving up
    def set_stuck(self, stuck: bool) -> None:
        """Whether the spill takes nothing more. Then what exceeds memory is shed."""
        self.stuck = stuck
        self._may_shed = self._may_shed or stuck

    @property
    def cramped(self) -> bool:
        """Little more can be held: the spill is nearly full, or there is none and half of the memory is used."""
        if self.disk is None:
            return self.budget.used >= SHED_UNTIL * self.budget.limit
        return self.stuck or self.disk.folder.room < self.disk.folder.limit // CRAMPED_SHARE

    @property
    def shedding(self) -> bool:
        return self._shedding

    def _is_shedding(self) -> bool:
        used, limit = self.budget.used, self.budget.limit
        if not self.stuck or used < SHED_UNTIL * limit:
            self._shedding = False
        elif used >= SHED_FROM * limit:
            self._shedding = True
        return self._shedding

    def _refuses(self, conn: int, times: list[int], frames: list[bytes]) -> bool:
        if self._is_shedding():
            self.shed.add(conn, times, frames)
            return True
        self._tell_shed(conn)
        self._may_shed = self.stuck or bool(self.shed)
        return False

    def _tell_shed(self, conn: int | None) -> None:
        for record in self.shed.take(conn):
            self.budget.add(self.packer.add_control(record.conn, record.from_ns, record))

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
        trace = traces.begin(self.shard, self.id, n, contents) if TRACES.on else None
        payload = encode_batch(RawBatch(VERSION, self.id, n, contents.runs, trace.parent if trace is not None else ""))
        self.backlog.add(Kept(n, payload, contents.frames, contents.controls, contents.runs[-1].times[-1], trace))
        self.budget.add(len(payload))
        self.budget.release(contents.size)
        self.last_sealed = monotonic()
        self.packed_frames += contents.frames
        self.packed_batches += 1
        self.packed_bytes += len(payload)
        return True

    def report(self) -> None:
        """Bring the counters up to date (they are not touched once a batch)."""
        now = (self.packed_frames, self.packed_batches, self.packed_bytes, self.shed.frames, self.shed.bytes)
        for counter, value, before in zip(_COUNTERS, now, self._reported, strict=True):
            counter.inc(value - before)
        self._reported = now

    # sessions
    @property
    def lane(self) -> Producer | Past:
        """Whose batches are to be sent next."""
        return next((past for past in self.past if not past.backlog.settled), self)

    def to_confirm(self) -> tuple[str, int] | None:
        """(session, batch) that the server said it has and may not have on disk; the oldest session first."""
        lanes: list[Producer | Past] = [*self.past, self]
        for each in lanes:
            if each.backlog.acked > each.backlog.confirmed:
                return each.id, each.backlog.acked
        return None

    def confirm(self, session: str, n: int) -> None:
        """Batches up to ``n`` of ``session`` are safe: let them go."""
        if session != self.id:
            for past in self.past:
                if past.id == session and past.confirm(n):
                    self.past.remove(past)
                    return
            return
        size = 0
        for kept in self.backlog.confirm(n):
            size += len(kept.payload)
            for record in kept.controls:
                self.view.apply(record)
        if size:
            self.budget.release(size)

    def spilled(self, n: int) -> None:
        """Batches up to ``n`` are on disk."""
        for kept in self.backlog.spilled(n):
            self.budget.release(len(kept.payload))
            for record in kept.controls:
                self.view.apply(record)
            if kept.trace is not None:
                kept.trace.spilled()
                kept.trace = None

    def spill_to(self, make_disk: Callable[[str], Disk]) -> None:
        """From now on batches may leave memory for a disk. ``make_disk``: the one of a session."""
        self._make_disk = make_disk
        self.backlog.disk = self.disk = make_disk(self.id)

    def replace(self) -> None:
        """Begin a new session: the server forgot batches that are no longer held here.

        The new session says which one it replaces and tells what was live where the held batches begin; then the held
        batches follow, renumbered, so that nothing that is still held is lost. What is on disk goes before it, as a
        session that is over.
        """
        self.seal()
        old = self.id
        if self.disk:
            past = Past(self.disk, self.replica, self.session.started_ns, self.backlog, self._log, "redis_lost")
            past.forgotten()
            self.past.append(past)
        held = self.backlog.take_all()
        self._begin(old)
        if self._make_disk is not None:
            self.spill_to(self._make_disk)
        for conn, record in self.view.records():
            self.budget.add(self.packer.add_control(conn, self._wall(), record))
        self.seal()
        for kept in held:
            batch = decode_batch(kept.payload)
            batch.session, batch.n = self.id, self.backlog.last + 1
            payload = encode_batch(batch)
            self.budget.add(len(payload))
            self.budget.release(len(kept.payload))
            self.backlog.add(Kept(batch.n, payload, kept.frames, kept.controls, kept.at_ns, kept.trace))
        metrics.sessions_lost.inc()
        if self._log is not None:
            self._log.error(
                "session.lost", lost=old, session=self.id, resent_batches=len(held),
                effect="Redis forgot what it had confirmed: gap rows tell what is missing",
            )  # fmt: skip

    def _begin(self, lost: str | None) -> None:
        # One that has ended must not count again: another may have begun since.
        started = self.session.started_ns if lost and self.ended else self._wall()
        self.id = new_session_id(self.replica, started)
        self.session: control.Session = control.Session(self.id, self.replica, __version__, started, lost)
        self.budget.add(self.packer.add_control(0, started, self.session))
