"""Raw batches of one account in, its events and REST requests out. Pure: no I/O, no clock of its own.

The state is what the checkpoint holds. A reconciliation is not in it: after a restart it begins anew, with what was
known when the gap began, until its end is committed. REST answers come by the raw stream, behind what was received
before them, so an answer never replaces newer news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from feedmill import __version__
from feedmill.distributor.accounts import repeats, state
from feedmill.distributor.accounts.listening import Listening
from feedmill.distributor.accounts.state import Checkpoint
from feedmill.distributor.accounts.traced import AccountMark, of_account
from feedmill.distributor.traced import Origin, Traced
from feedmill.exchanges.account_base import AccountEvent, AccountRequest, AccountVenue, Mend, Rejection
from feedmill.exchanges.account_rest import Known, Traded
from feedmill.exchanges.base import MapError
from feedmill.exchanges.reconcile import Asked, Reconciliation, Stage
from feedmill.shared import control
from feedmill.shared.account_events import (
    AccountBlock,
    AccountFlag,
    AccountGap,
    Balance,
    BalanceChange,
    Fill,
    OrderUpdate,
    Position,
    encode_account,
)
from feedmill.shared.clock import MS
from feedmill.shared.control import RestAnswer, decode_answer, decode_control
from feedmill.shared.events import DeadLetter
from feedmill.shared.frames import RawBatch, Run, RunKind, decode_batch
from feedmill.shared.traceparent import MOST, TraceRef

BUDGET = 10_000
"""Weight of the largest request: who carries them out waits for the venue's budget."""
ANSWER = 30.0
"""Seconds after an answer was handed to the raw stream until it is asked for again."""
UNREADABLE_REST = 10.0
"""Seconds before the next reconciliation because of a frame that cannot be read."""
FIRST_REST, MAX_REST = 1.0, 120.0
ASLEEP = 5.0
"""Seconds between two ticks after which this process was silent, not the receiver."""
UNSEEN_NS = 240_000_000_000
"""For how long a connection may be dead before it is noticed, at the venue that pings least."""
_DETAIL = 300


class Unlisted(Exception):
    """The native symbol is in no list of instruments that is known here: get the newest, then the entry again."""


@dataclass(frozen=True, slots=True)
class Letter:
    reason: str
    detail: str


Mapped = Sequence[AccountEvent] | Letter


@dataclass(slots=True)
class Taken:
    """One commit, encoded."""

    pos: str
    en: int
    """Number of the events entry; 0 = there is none."""
    eid_before: str
    events: bytes
    fields: dict[str, bytes]
    deleted: list[str]
    block: AccountBlock


class Engine:
    """One life of a distributor over one account. ``life`` makes its requests its own."""

    def __init__(
        self,
        account: str,
        venue: AccountVenue,
        instruments: Mapping[str, Traded],
        found: Checkpoint,
        life: str,
        *,
        silence: float = 30.0,
        look_every: float = 3600.0,
    ) -> None:
        self.account = account
        self.pos, self.en, self.eid = found.pos, found.en, found.eid
        self.line, self.base, self.live = found.line, found.base, found.live
        self.duplicates = 0
        self.traces: list[Traced] = []
        """Of the batches that are traced, since the last commit."""
        self._venue = venue
        self._instruments = instruments
        self._mapper = venue.mapper({traded.native: symbol for symbol, traded in instruments.items()})
        self._life = life
        self._silence, self._look_every = silence, look_every
        self._listening = Listening(self.line, self)
        self._repeats = repeats.Repeats()
        self._out = AccountBlock(account=account)
        self._committed = found.pos
        self._changed = False
        """The line, apart from what a new position brings."""
        self._base_touched = False
        self._run: Reconciliation | None = None
        self._told = False
        """Whether the end of the gap was emitted."""
        self._runs = 0
        self._flying: dict[str, Asked] = {}
        self._handed: dict[str, float] = {}
        self._not_before = 0.0
        self._rest = FIRST_REST
        self._now_ns, self._monotonic = 0, 0.0
        self._heard: float | None = None
        self._at = ""
        """The place in the raw stream, for names of gaps."""

    def learn(self, instruments: Mapping[str, Traded]) -> None:
        """A newer list of instruments; the next reconciliation goes by it."""
        self._instruments = instruments
        for symbol, traded in instruments.items():
            self._mapper.learn(traded.native, symbol)

    # -- input

    def entry(
        self, stream_id: str, payload: bytes | None, now_ns: int, monotonic: float, *, final: bool = False
    ) -> None:
        """Handle one entry of the raw stream. Raises Unlisted, with nothing done, unless it is ``final``."""
        self._now_ns, self._monotonic = now_ns, monotonic
        self._at = stream_id
        try:
            batch = decode_batch(payload or b"")
        except (msgspec.DecodeError, ValueError) as error:
            self.pos = stream_id
            ms, number = (int(part) for part in stream_id.split("-"))
            letter = Letter("undecodable_batch", str(error))
            self._letter("raw", ms, number, 0, now_ns, letter, payload or b"")
            return
        if self._listening.knows(batch):
            self.pos = stream_id
            self.duplicates += 1
            return
        mapped = [self._mapped(run, final=final) for run in batch.runs]
        self.pos = stream_id
        at_ns = next((run.times[0] for run in batch.runs if run.times), now_ns)
        self._listening.batch(batch, at_ns)
        self._heard = monotonic
        before = AccountMark.of(self._out)
        index = 0
        for run, results in zip(batch.runs, mapped, strict=True):
            self._take(batch, run, results, index)
            index += len(run.frames)
        if batch.trace:
            self._traced(batch.trace, batch, "", before)

    def _traced(self, parent: str, batch: RawBatch, command: str, before: AccountMark) -> None:
        if len(self.traces) < MOST:
            origin = Origin(parent, self.pos, batch.session, batch.n, self._now_ns, command)
            self.traces.append(of_account(origin, self._out, before))

    def carry(self, traces: list[TraceRef]) -> None:
        """The next block goes on with these."""
        self._out.traces = traces

    def _mapped(self, run: Run, *, final: bool) -> list[Mapped]:
        """What the frames or answers of a run say; records say nothing of the account."""
        found: list[Mapped] = []
        for receive_ns, payload in zip(run.times, run.frames, strict=False):
            try:
                if run.kind == RunKind.FRAMES:
                    payload.decode()  # Decoders do not look into fields that nobody reads.
                    found.append(self._mapper.map(payload, receive_ns))
                elif run.kind == RunKind.REST:
                    found.append(self._map_answer(decode_answer(payload), receive_ns))
                else:
                    found.append(())
            except MapError as error:
                if error.reason == "unknown_symbol" and not final:
                    raise Unlisted(error.detail) from error
                found.append(Letter(error.reason, error.detail))
            except (msgspec.DecodeError, ValueError) as error:
                found.append(Letter("bad_value", str(error)))
            except Exception as error:
                # A fault of this code must not hold up the account: it is kept to be driven again after the fix.
                found.append(Letter("internal_error", f"{type(error).__name__}: {error}"))
        return found

    def _map_answer(self, answer: RestAnswer, receive_ns: int) -> Sequence[AccountEvent]:
        if answer.command not in self._flying:
            return ()
        return self._mapper.map_rest(answer.kind, answer.symbol, answer.status, answer.body, receive_ns)

    def _take(self, batch: RawBatch, run: Run, results: list[Mapped], base: int) -> None:
        if len(run.times) != len(run.frames):
            letter = Letter("undecodable_run", f"{len(run.times)} times for {len(run.frames)} records")
            self._letter(batch.session, batch.n, base, run.conn, self._now_ns, letter, msgspec.msgpack.encode(run))
            self._unread(self._now_ns)
            return
        current = self._listening.is_current(batch.session)
        for index, (at_ns, payload, found) in enumerate(zip(run.times, run.frames, results, strict=True), base):
            if current and run.kind == RunKind.FRAMES:
                self._listening.frames_of(run.conn, at_ns)
            if isinstance(found, Letter):
                self._letter(batch.session, batch.n, index, run.conn, at_ns, found, payload)
                if run.kind == RunKind.FRAMES:
                    self._unread(at_ns)
                else:
                    self._refuse(payload, found)
            elif run.kind == RunKind.FRAMES:
                self._repeats.frame(batch.session, run.conn, payload)
                for event in found:
                    if isinstance(event, BalanceChange) and self._repeats.again(event):
                        letter = Letter(repeats.REASON, repeats.DETAIL)
                        self._letter(batch.session, batch.n, index, run.conn, at_ns, letter, payload)
                    else:
                        self._stream(event, current=current)
            elif run.kind == RunKind.REST:
                answer = decode_answer(payload)
                before = AccountMark.of(self._out)
                self._answered(answer, found)
                if answer.trace:
                    self._traced(answer.trace, batch, answer.command, before)
            else:
                self._control(batch, run, index, at_ns, payload, current=current)

    def _control(self, batch: RawBatch, run: Run, index: int, at_ns: int, payload: bytes, *, current: bool) -> None:
        try:
            record = decode_control(payload)
        except (msgspec.DecodeError, ValueError) as error:
            letter = Letter("undecodable_control", str(error))
            self._letter(batch.session, batch.n, index, run.conn, at_ns, letter, payload)
            return
        if isinstance(record, control.RestFailed):
            asked = self._landed(record.command)
            if asked is not None:
                mend = Mend.REFUSED if record.status else Mend.RETRY
                self._rejected(asked, Rejection(mend, record.status, record.reason))
        elif current:
            self._listening.record(record, at_ns)

    def _stream(self, event: AccountEvent, *, current: bool) -> None:
        if not current and (isinstance(event, Position) or (isinstance(event, Balance) and not event.venue_ns)):
            # The session that counts now has asked, or will, as it began with a gap. This may be older than the answer:
            # its only time is that of being read, by a receiver that may have stood still (Deribit), or the answer has
            # none, as of a position that is gone (Binance).
            return
        # What a session that counts no more brings may be older than an answer under way.
        if self._run is not None and (current or isinstance(event, OrderUpdate | Fill)):
            self._run.heard(event)
        self._emit(event)

    def _letter(
        self, session: str, n: int, index: int, conn: int, receive_ns: int, letter: Letter, payload: bytes
    ) -> None:
        self._out.dead_letters.append(
            DeadLetter(
                session, n, index, conn, receive_ns, letter.reason, letter.detail[:_DETAIL], __version__, payload
            )
        )

    def _unread(self, at_ns: int) -> None:
        """What it said is asked for, but not again and again where every frame is such."""
        self.lost("unreadable", at_ns, at_ns, at_ns)
        self._not_before = max(self._not_before, self._monotonic + UNREADABLE_REST)

    # -- events

    def _emit(self, event: AccountEvent) -> None:
        at = state.time_of(event)
        if at and at < self.line.latest_ns:
            event.flags |= AccountFlag.LATE
        out = self._out
        if isinstance(event, OrderUpdate):
            out.orders.append(event)
        elif isinstance(event, Fill):
            out.fills.append(event)
        elif isinstance(event, Balance):
            out.balances.append(event)
            self.line.balance_ns = max(self.line.balance_ns, event.receive_ns)
        elif isinstance(event, Position):
            out.positions.append(event)
        else:
            out.changes.append(event)
            if event.cause in ("deposit", "withdrawal"):
                self.line.moved_ns = max(self.line.moved_ns, event.venue_ns)
        self.line.latest_ns = max(self.line.latest_ns, at)
        if not event.flags & AccountFlag.REST:
            self.line.told_ns = max(self.line.told_ns, at)
        self.live.take(event)

    # -- gaps (listening.Listener)

    def lost(self, cause: str, from_ns: int, to_ns: int, at_ns: int, *, doubtful: bool = False) -> None:
        self._stop_run()
        self._changed = True
        known = self.line.gap
        if self.base is None:
            self._freeze(self.live.since(self.line, 0 if doubtful else from_ns))
            self.line.unswept = False
        elif known is None:
            self.line.unswept = True
            if self.line.whole:
                old, new = self.base, self.live.since(self.line, 0 if doubtful else from_ns)
                # All but where the sweep has to begin.
                self._freeze(
                    replace(new, last_order=old.last_order, last_fill=old.last_fill, since_ms=old.since_ms,
                            moved_ms=old.moved_ms)
                )  # fmt: skip
        self.line.owed = True
        if known is None:
            # Any connection may have been dead for a while before it ended: its newest event is the last sure sign.
            begin_ns = min(from_ns, max(self.line.told_ns, from_ns - UNSEEN_NS))
            gap = AccountGap(f"{self.account}@{self._at}", cause, "open", max(0, begin_ns), to_ns, 1, at_ns)
        elif known.to_ns == to_ns or 0 < to_ns < known.to_ns:
            return  # What a session that counts no more brings late lies within what is told already.
        else:
            gap = msgspec.structs.replace(known, to_ns=to_ns, revision=known.revision + 1)
        self._gap(gap)

    def _freeze(self, known: Known) -> None:
        self.base, self._base_touched = known, True

    def back(self, at_ns: int) -> None:
        self._stop_run()
        self._changed = True
        known = self.line.gap
        if known is not None:
            self._gap(msgspec.structs.replace(known, to_ns=at_ns, revision=known.revision + 1))

    def _gap(self, gap: AccountGap) -> None:
        self.line.gap = gap if gap.state == "open" else None
        self._out.gaps.append(gap)

    # -- reconciliation

    def _stop_run(self) -> None:
        self._run = None
        self._flying.clear()
        self._handed.clear()

    def _begin(self) -> None:
        self._stop_run()
        self._runs += 1
        self._told = False
        known = self.live.since(self.line, self._now_ns) if self.base is None else self.live.above(self.base)
        rest = self._venue.reconcile(self._instruments, known, self._now_ns // MS)
        gap_id = self.line.gap.id if self.line.gap is not None else ""
        # A look by the timer does without the sweep, which costs as much as the market has instruments.
        spare = not self.line.unswept
        self._run = Reconciliation(rest, gap_id, self._now_ns, sweep=self.line.owed, spare=spare)

    def _landed(self, command: str) -> Asked | None:
        self._handed.pop(command, None)
        return self._flying.pop(command, None)

    def _answered(self, answer: RestAnswer, events: Sequence[AccountEvent]) -> None:
        asked = self._landed(answer.command)
        if asked is None or self._run is None:
            return
        try:
            more = self._mapper.more(answer.kind, answer.body)
        except (MapError, ValueError) as error:
            self._rejected(asked, Rejection(Mend.REFUSED, answer.status, str(error)))
            return
        self._rest = FIRST_REST
        for event in self._run.answered(asked, events, more=more):
            self._emit(event)
        self._look()

    def _refuse(self, payload: bytes, letter: Letter) -> None:
        try:
            asked = self._landed(decode_answer(payload).command)
        except (msgspec.DecodeError, ValueError):
            return  # It is overdue some time.
        if asked is not None:
            self._rejected(asked, Rejection(Mend.REFUSED, 0, letter.reason))

    def _rejected(self, asked: Asked, why: Rejection) -> None:
        assert self._run is not None
        self._run.rejected(asked, why)
        if why.mend is not Mend.REFUSED:
            self._not_before = max(self._not_before, self._monotonic + self._rest)
            self._rest = min(self._rest * 2, MAX_REST)

    def _look(self) -> None:
        """Tell what has come to its end."""
        run = self._run
        assert run is not None
        if run.closed and not self._told:
            self._told = self._changed = True
            self._out.reconciled.append(marker := run.reconciled(self._now_ns))
            self.line.whole = not marker.refused
            if (gap := self.line.gap) is not None:
                self._gap(msgspec.structs.replace(gap, state="closed", revision=gap.revision + 1))
        if run.stage is Stage.DONE:
            self._changed = True
            if self.line.owed:
                self._out.reconciled.append(run.reconciled(self._now_ns))
            self.line.owed = self.line.unswept = False
            self.line.looked_ns = self._now_ns
            self._base_touched = self._base_touched or self.base is not None
            self.base = None
            self._stop_run()

    @property
    def sweeping(self) -> bool:
        """The gap is closed, what is left is the sweep."""
        return self._run is not None and self._run.closed

    @property
    def likely(self) -> bool:
        """The sweep is still where something may well be found."""
        return self._run is not None and self._run.closed and self._run.likely

    def asks(self, *, sweep: bool = True) -> list[tuple[str, AccountRequest]]:
        """Requests to make now, each under the name that its answer must carry. ``sweep``: also those of one."""
        found: list[tuple[str, AccountRequest]] = []
        if self._monotonic < self._not_before:
            return found
        while self._run is not None and (asked := self._run.next(BUDGET, sweep=sweep)) is not None:
            command = f"{self._life}/{self._runs}/{asked.number}"
            self._flying[command] = asked
            found.append((command, asked.request))
        if self._run is not None:
            if self._run.pause:
                self._not_before = self._monotonic + self._run.pause
            self._look()
        return found

    def handed(self, command: str, monotonic: float) -> None:
        """The answer, or that there is none, was given to the raw stream: it must come soon."""
        if command in self._flying:
            self._handed[command] = monotonic

    # -- time

    def tick(self, now_ns: int, monotonic: float, *, idle: bool) -> None:
        """Time passes. ``idle``: everything there was to read was read."""
        if self._heard is None or monotonic - self._monotonic > ASLEEP:
            self._heard = monotonic
        self._now_ns, self._monotonic = now_ns, monotonic
        line = self.line
        if idle and monotonic - self._heard > self._silence:
            self._at = f"{self.pos}/silent"
            self._listening.silence(now_ns)
        for command, since in list(self._handed.items()):
            if idle and monotonic - since > ANSWER:
                asked = self._landed(command)
                if asked is not None:
                    self._rejected(asked, Rejection(Mend.RETRY, 0, "the answer did not come"))
        if self._run is None and line.conn and not line.silent and monotonic >= self._not_before:
            due = now_ns - line.looked_ns > self._look_every * 1_000_000_000
            if line.gap is not None or line.owed or due:
                self._begin()

    # -- output

    @property
    def moved(self) -> bool:
        """Whether there is anything to commit."""
        live = self.live
        return bool(self.pos != self._committed or self._changed or len(self._out) or live.touched or live.deleted)

    def take(self) -> Taken:
        """Encode everything since the last call. The memory goes on from there."""
        live, block, number, before = self.live, self._out, 0, self.eid
        fields = {name: state.encode(each) for name, each in live.touched.items()}
        fields["line"] = state.encode(self.line)
        deleted = sorted(live.deleted)
        if self._base_touched:
            if self.base is not None:
                fields["base"] = state.encode(self.base)
            else:
                deleted.append("base")
        if len(block):
            self.en += 1
            number = self.en
        events: Any = encode_account(block) if number else b""
        live.touched.clear()
        live.deleted.clear()
        self._changed = self._base_touched = False
        self._committed = self.pos
        self._out = AccountBlock(account=self.account)
        self.traces = []
        return Taken(self.pos, number, before, events, fields, deleted, block)
