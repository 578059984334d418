"""One life of the engine over a pair of connections: load the checkpoint, read, commit, until something fails.

Reading and committing overlap by one step: while a commit is under way the next entries are read and mapped, and their
commit waits for its answer. Whatever fails ends the session with all its memory; the next one begins from the
checkpoint, so a commit whose answer was lost is either in it or not.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from feedmill.distributor import checkpoint, metrics
from feedmill.distributor.engine import Engine
from feedmill.distributor.gate import LOOK_EVERY, Behind, Gate
from feedmill.distributor.metrics import Figures
from feedmill.distributor.output import Taken
from feedmill.distributor.replies import Answer, Waker
from feedmill.distributor.scripts import COMMIT
from feedmill.distributor.settings import DistributorSettings
from feedmill.distributor.spans import CommitSpans
from feedmill.distributor.telling import lines_of
from feedmill.exchanges.base import Venue
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.wire import Wire
from feedmill.shared.tracing import TRACES

BLOCK_MS = 100
"""How long a read waits for entries; also how often time is looked at while nothing comes."""
READ_BYTES = 768 * 1024
"""What one read should bring at most: bounds the memory and the size of a commit."""
MAX_COUNT = 512
ANSWER = 10.0
"""Seconds after which a server that does not answer is away."""
SLICE = 0.01
"""Seconds of work after which the event loop gets its turn."""
FEW = 1000
"""Frames of a read after which the next one may linger."""
REPLAY_COUNT = 64


class Mismatch(Exception):
    """The checkpoint was moved by somebody else, or the server forgot: everything is loaded anew."""


class Dispatcher:
    """``run`` it once."""

    def __init__(
        self, settings: DistributorSettings, venue: Venue, reader: Wire, writer: Wire, figures: Figures, log: Any
    ) -> None:
        self.settings = settings
        self._venue = venue
        self._reader = reader
        self._writer = writer
        self._figures = figures
        self._log = log
        self._gate = Gate(writer, settings.shard, settings.memory_share)
        self._behind = Behind()
        self._looked = 0.0
        self._trimmed = ""
        """``Gate.stored`` at the last commit: what is stored since can be trimmed."""
        self._all_read = False
        """The last read gave all there was."""
        self._id = ""
        shard = settings.shard
        self._raw = shard.raw
        self._keys = (shard.checkpoint, shard.raw, shard.events, shard.commands, shard.images, shard.applied)
        self._waker = Waker()
        self._reading: Answer | None = None
        self._in_flight: tuple[Answer, Taken, str] | None = None
        self._spans: CommitSpans | None = None
        """Of the commit under way, where something in it is traced."""
        self._failure: Exception | None = None
        """Of a commit, or of the watch: ends the session."""
        self._entry_bytes = float(READ_BYTES)  # Not known yet: one entry first.

    async def run(self, ended: asyncio.Event, *, goes_on: Callable[[], bool] = lambda: False) -> None:
        """Work until ``ended``; raises Mismatch, WireError, WireClosed, TimeoutError, BadCheckpoint.

        ``goes_on``: whether another session of this process follows at once, so that holes may still be filled.
        """
        engine = await self._load()
        self._figures.loaded, self._figures.error = True, ""
        stopper = asyncio.create_task(self._wake_on(ended), name="stop dispatching")
        watch = asyncio.create_task(self._watch(), name="watch answers")
        try:
            await self._work(engine, ended)
            if not goes_on():
                engine.close_holes()
            if engine.moved:
                await self._commit(engine)
            await self._settled()
        finally:
            stopper.cancel()
            watch.cancel()
            if self._in_flight is not None:
                self._figures.failed_commit = {"commit": self._in_flight[1].en, "position": self._in_flight[1].pos}
            if self._spans is not None:
                self._figures.failed_commit["trace_ids"] = self._spans.trace_ids
                self._spans.failed(str(self._failure or "ended"))
            self._figures.report()

    async def _wake_on(self, ended: asyncio.Event) -> None:
        await ended.wait()
        self._waker.wake()

    async def _watch(self) -> None:
        """A server that does not answer is away."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            under_way = [self._reading, self._in_flight[0] if self._in_flight else None]
            if any(answer and not answer.finished and monotonic() - answer.sent > ANSWER for answer in under_way):
                self._fail(TimeoutError(f"no answer within {ANSWER:g} s"))

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._waker.wake()

    async def _load(self) -> Engine:
        shard, settings = self.settings.shard, self.settings
        async with asyncio.timeout(ANSWER):
            await self._writer.call("SCRIPT", "LOAD", COMMIT.source)
            answer = await self._reader.call("HGETALL", shard.checkpoint)
        state = checkpoint.load(dict(zip(answer[::2], answer[1::2], strict=True)))
        self._id = state.id
        images: dict[str, bytes] = {}
        for symbol, meta in state.books.items():
            if meta.image_pos:
                async with asyncio.timeout(ANSWER):
                    image = await self._reader.call("HGET", shard.images, symbol)
                if image is not None:
                    images[symbol] = image
        mapper = self._venue.mapper({native: symbol for symbol, native in settings.natives.items()})
        engine = Engine(settings, mapper, state, images)
        replayed = await self._replay(engine)
        self._log.info(
            "checkpoint.loaded", shard=str(shard), position=state.pos, commit=state.en, books=len(state.books),
            replayed_entries=replayed,
        )  # fmt: skip
        return engine

    async def _replay(self, engine: Engine) -> int:
        """Bring the books from their images to the position."""
        at, count = engine.replay_from(), 0
        while id_of(at) < id_of(engine.pos):
            async with asyncio.timeout(ANSWER):
                entries = await self._reader.call(
                    "XRANGE", self.settings.shard.raw, f"({at}", engine.pos, "COUNT", REPLAY_COUNT
                )
            for raw_id, fields in entries:
                at = raw_id.decode()
                engine.replay(at, _payload(fields) or b"")
                count += 1
                await asyncio.sleep(0)
            if len(entries) < REPLAY_COUNT:
                break
        return count

    async def _work(self, engine: Engine, ended: asyncio.Event) -> None:
        while not ended.is_set():
            if monotonic() - self._looked >= LOOK_EVERY:
                await self._look(engine)
                if self._gate.why:
                    await self._waker.wait(LOOK_EVERY / 4)
                    self._looked = 0.0
                    continue
            entries = await self._fetch(engine, ended)
            if entries is None:
                return
            frames = await self._handle(engine, entries)
            engine.tick(now_ns(), monotonic(), idle=not entries, all_read=self._all_read)
            if engine.moved or (not entries and (engine.trims or self._trimmed != self._gate.stored)):
                await self._commit(engine)
            if self.settings.linger and 0 < frames < FEW and not ended.is_set():
                await self._waker.wait(self.settings.linger)

    async def _fetch(self, engine: Engine, ended: asyncio.Event) -> list[Any] | None:
        """Entries after the position, empty when none came in time, None when asked to stop."""
        count = max(1, min(MAX_COUNT, int(READ_BYTES / self._entry_bytes)))
        self._reading = answer = Answer(lambda _: self._waker.wake())
        self._reader.post(answer, "XREAD", "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS", self._raw, engine.pos)
        while not answer.finished:
            await self._waker.wait()
            if self._failure is not None:
                raise self._failure
            if ended.is_set():
                return None
        if answer.error is not None:
            raise answer.error
        entries: list[Any] = answer.value[0][1] if answer.value else []
        self._all_read = len(entries) < count
        return entries

    async def _handle(self, engine: Engine, entries: list[Any]) -> int:
        """Answers the number of frames."""
        now, begun = now_ns(), monotonic()
        size = 0
        for raw_id, fields in entries:
            payload = _payload(fields)
            size += len(payload or b"")
            engine.entry(raw_id.decode(), payload, now, begun)
            if monotonic() - begun > SLICE:
                await asyncio.sleep(0)
                now, begun = now_ns(), monotonic()
        if entries:
            self._entry_bytes += 0.3 * (max(1.0, size / len(entries)) - self._entry_bytes)
        return engine.out.frames

    async def _commit(self, engine: Engine) -> None:
        """Send what was gathered, once the commit before it is known to have been made."""
        mapped_ns = now_ns() if TRACES.on else 0
        await self._settled()
        spans = self._open_spans(engine, mapped_ns) if mapped_ns else None
        taken = engine.take()
        self._trimmed = self._gate.stored
        before, new = self._id, secrets.token_hex(8)
        if taken.en:
            engine.eid = new
        fields = [item for pair in taken.fields.items() for item in pair]
        images = [item for pair in taken.images.items() for item in pair]
        answer = Answer(self._answered)
        self._in_flight, self._spans = (answer, taken, new), spans
        if spans is not None:
            spans.sent(taken.en, new)
        self._writer.post(
            answer, "EVALSHA", COMMIT.digest, len(self._keys), *self._keys,
            before, new, taken.pos, taken.floor,
            taken.en or "", new, taken.eid_before, taken.events, taken.deltas,
            len(fields), *fields, len(taken.deleted), *taken.deleted, len(images), *images, *taken.commands,
        )  # fmt: skip

    def _open_spans(self, engine: Engine, mapped_ns: int) -> CommitSpans | None:
        """Of what is traced in the commit at hand; from here on it goes on with them."""
        out = engine.out
        if not (out.traces or out.commands) or not TRACES.on:
            return None
        spans = CommitSpans(str(self.settings.shard), out.traces, out.commands, mapped_ns)
        out.events.traces = spans.refs
        return spans

    def _answered(self, answer: Answer) -> None:
        """The commit under way was made or refused."""
        assert self._in_flight is not None
        _, taken, new = self._in_flight
        if answer.error is not None:
            self._fail(answer.error)
        elif answer.value[0] != 1:
            self._fail(Mismatch(f"the last commit is {answer.value[1].decode()}, not {self._id or 'none'}"))
        else:
            self._in_flight = None
            self._id = new
            self._figures.committed(taken, monotonic() - answer.sent)
            named: dict[str, Any] = {"commit": taken.en}
            if self._spans is not None:
                named["trace_ids"] = self._spans.trace_ids
                for seconds, span in self._spans.committed():
                    metrics.receive_to_commit.observe(seconds, span.exemplar)
                self._spans = None
            block = taken.block
            if block.gaps or block.dead_letters:
                for level, event, fields in lines_of(str(self.settings.shard), block.gaps, block.dead_letters):
                    getattr(self._log, level)(event, **named, **fields)
            for gap in taken.given_up:
                self._log.warning(
                    "gap.not_offered", gap=gap.gap, trades=gap.trades, **named, effect="the gap stays open",
                    remedy="the venue no longer gives these trades: load them from an archive, or accept the gap",
                )  # fmt: skip
            if self._waits_for_commit:
                self._waker.wake()

    async def _settled(self) -> None:
        """Wait for the commit under way. Raises Mismatch when it was refused, and what the connection raises."""
        self._waits_for_commit = True
        try:
            while self._failure is None and self._in_flight is not None:
                await self._waker.wait()
        finally:
            self._waits_for_commit = False
        if self._failure is not None:
            raise self._failure

    _waits_for_commit = False

    async def _look(self, engine: Engine) -> None:
        """Once a second: room in Redis, lag, figures."""
        self._looked = monotonic()
        async with asyncio.timeout(ANSWER):
            await self._gate.look()
        figures, gate = self._figures, self._gate
        if bool(gate.why) != bool(figures.held_back):
            self._log.warning("held_back", why=gate.why or "no longer")
        figures.held_back = gate.why
        metrics.held_back.set(bool(gate.why))
        tip, at = id_of(gate.raw_tip), id_of(engine.pos)
        figures.lag_seconds = round(self._behind.seconds(tip, at, self._looked), 3)
        metrics.lag_seconds.set(figures.lag_seconds)
        states: dict[str, int] = {}
        for book in engine.books.values():
            states[book.meta.status] = states.get(book.meta.status, 0) + 1
        figures.books = states
        figures.resyncs = sum(book.resyncs for book in engine.books.values())
        for state in checkpoint.BOOK_STATES:
            metrics.books.labels(state).set(states.get(state, 0))
        figures.sessions = list(engine.sources.sessions)
        figures.connections = engine.sources.connections
        metrics.sessions.set(len(figures.sessions))
        figures.filling = engine.backfill.waiting
        metrics.filling.set(figures.filling)
        figures.report()


def _payload(fields: list[bytes]) -> bytes | None:
    """The batch of an entry (field ``b``)."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b") if fields else None
