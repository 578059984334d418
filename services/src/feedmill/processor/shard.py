"""One shard: read its events stream, commit what was gathered, again and again.

Reading and committing overlap: while a transaction is under way the next entries are read and rendered, so batches
grow with the load by themselves. A batch that is full stops the reading (back-pressure).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from feedmill.exchanges.base import ChannelName
from feedmill.processor import measures
from feedmill.processor.batch import Batch
from feedmill.processor.chain import Chain
from feedmill.processor.hints import Hints
from feedmill.processor.measures import Figures, Meter
from feedmill.processor.settings import ProcessorSettings, ShardSettings
from feedmill.processor.source import CHECK_EVERY, Source
from feedmill.processor.spans import StoreSpans
from feedmill.processor.store import Moved, Outcome, Position, Store
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.clock import SECOND, monotonic
from feedmill.shared.lease import sleep_or
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect
from feedmill.shared.tracing import TRACES

PLENTY = 1000
"""Events of one read after which the next one follows at once."""
FULL_BATCHES = 4
"""Shards of one process that may gather as many rows as the settings say; more of them share that, or catching up with
many shards after an outage would take memory by their number."""
LEAST_ROWS = 1000


class Finisher(Protocol):
    """Who is told which candles changed."""

    def adopt(self, shard: ShardSettings, instruments: Sequence[int]) -> None:
        """The shard is ours (again): look at everything that may be unfinished."""

    def touch(self, shard: ShardSettings, minutes: Sequence[tuple[int, int]]) -> None:
        """(instrument, begin of a minute as epoch seconds)."""


class ServerError(Exception):
    """A session ended because a server is away. ``server`` is postgres or redis."""

    def __init__(self, server: str, error: BaseException) -> None:
        super().__init__(f"{server}: {postgres.describe(error)}")
        self.server = server
        self.error = error


class ShardWorker:
    """Works on one shard while it is owned."""

    def __init__(
        self,
        settings: ProcessorSettings,
        shard: ShardSettings,
        redis_url: RedisUrl,
        database_url: postgres.Url,
        *,
        redis: Breaker,
        database: Breaker,
        figures: Figures,
        finisher: Finisher,
        log: Any,
        hints: Hints | None = None,
    ) -> None:
        """``hints``: who tells Redis what may be trimmed; without it nothing ever is."""
        self.settings = settings
        self.shard = shard
        self._redis_url = redis_url
        self._database_url = database_url
        self._redis = redis
        self._database = database
        self._finisher = finisher
        self._hints = hints
        self._figures = figures
        self.forked = False
        """Whether the stream ever did not go on from what was stored."""
        self.failed_batch: dict[str, Any] = {}
        """For the log: the batch of the session that failed, where one was under way."""
        self._store: Store | None = None
        self._wire: Wire | None = None
        self._over: asyncio.Event | None = None
        """Of the session there is: ends it between two commits."""
        self._idle = asyncio.Event()
        """Set while there is no session."""
        self._idle.set()
        self.meter = Meter(str(shard.ref), shard.exchange, shard.market, figures)
        self._log = log.bind(shard=str(shard.ref))

    @property
    def has_losses(self) -> bool:
        """Whether commits were ever lost, as far as is known now."""
        return self._store is not None and self._store.losses.watch.late

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; what was read by then is committed. Waits out servers that are away."""
        backoff = Backoff(0.1, 2.0)
        figures = self.meter.figures
        figures.owned = True
        try:
            while not stop.is_set():
                commits = figures.commits
                try:
                    await self._session(stop)
                    continue
                except BreakerOpen as error:
                    wait = max(error.retry_in, 0.05) + backoff.next() / 10
                    figures.error = str(error)[:300]
                except ServerError as error:
                    if figures.commits > commits:
                        backoff.reset()
                    wait = backoff.next()
                    figures.error = str(error)
                    self._log.warning(
                        "shard.interrupted",
                        server=error.server,
                        error=str(error),
                        retry_in=round(wait, 3),
                        **self._lost(),
                    )
                except Moved:
                    measures.moved.inc()
                    if figures.commits > commits:
                        backoff.reset()
                    wait = backoff.next()
                    self._log.warning("shard.position_moved", action="reload the position", **self._lost())
                await sleep_or(stop, wait)
        finally:
            figures.give_up()
            if self._hints is not None:
                self._hints.drop(self.shard.ref)

    def _lost(self) -> dict[str, Any]:
        """The batch that was under way; told once."""
        named, self.failed_batch = self.failed_batch, {}
        return named

    async def reconfigure(self, settings: ProcessorSettings, shard: ShardSettings) -> None:
        """Work by other settings: what was read is committed, then a new session begins.

        Returns when nothing works by the old ones any more.
        """
        self.settings, self.shard = settings, shard
        if self._over is not None:
            self._over.set()
        await self._idle.wait()

    def abort(self) -> None:
        """Cut both connections: whatever waits for a server that hangs ends at once. For an end that is overdue."""
        if self._store is not None:
            self._store.connection.terminate()
        if self._wire is not None:
            self._wire.abort()

    @property
    def owned(self) -> int:
        """Shards this process works on, at least 1."""
        return max(1, sum(shard.owned for shard in self._figures.shards.values()))

    async def _session(self, stop: asyncio.Event) -> None:
        """One connection to each server, until one of them fails, ``stop`` is set, or the settings are others."""
        self._over = over = asyncio.Event()
        self._idle.clear()
        passer = asyncio.create_task(_pass_on(stop, over))
        try:
            await self._connected_session(over)
        finally:
            passer.cancel()
            self._over = None
            self._idle.set()

    async def _connected_session(self, stop: asyncio.Event) -> None:
        figures = self.meter.figures
        store = self._store = await self._guarded("postgres", self._database, self._open_store)
        try:
            wire = self._wire = await self._guarded("redis", self._redis, self._connect)
            try:
                figures.working, figures.error, figures.fault = True, "", ""
                await _Session(self, store, wire).run(stop)
            finally:
                figures.working = False
                figures.oldest_ms = figures.oldest_ms or None  # What comes from now on is not seen.
                figures.behind = None
                wire.abort()
        finally:
            await store.close()
            self._store = self._wire = None

    async def _open_store(self) -> Store:
        return await Store.open(
            self._database_url,
            self.shard,
            dict(self.settings.retention_ns),
            statement_timeout=self.settings.statement_timeout,
        )

    async def _connect(self) -> Wire:
        return await connect(self._redis_url, name=f"feedmill-processor-{self.shard.ref}")

    async def _guarded(self, server: str, breaker: Breaker, function: Callable[[], Any]) -> Any:
        """Call through the breaker; errors of the server become ServerError, its state a metric."""
        try:
            result = await breaker.call(function)
        except BreakerOpen:
            raise
        except Exception as error:
            if not (postgres.is_retryable(error) or isinstance(error, (WireError, postgres.SchemaBehind))):
                raise
            self._figures.failed(server, postgres.describe(error))
            raise ServerError(server, error) from error
        self._figures.answered(server)
        return result

    def _stored(self, position: Position) -> None:
        if self._hints is not None:
            self._hints.give(self.shard.ref, position)


class _Session:
    """Reader and committer over one pair of connections."""

    def __init__(self, worker: ShardWorker, store: Store, wire: Wire) -> None:
        self._worker = worker
        self._store = store
        if worker.forked:
            store.forked()
        self._settings = worker.settings
        position = store.position
        self._chain = Chain(position.n, position.commit_id, position.stream_id)
        self._source = Source(
            wire,
            worker.shard.ref,
            self._chain,
            watch=store.losses.watch,
            block_ms=worker.settings.block_ms,
            on_break=self._broken,
        )
        self._batch = Batch()
        self._under_way: Batch | None = None
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader_error: ServerError | None = None
        self._reading = True

    def _broken(self, why: str) -> None:
        measures.rereads.inc()
        self._worker.meter.figures.rereads += 1
        self._worker._log.warning("stream.reread", why=why)
        self._worker.forked = True
        self._store.forked()

    async def run(self, stop: asyncio.Event) -> None:
        self._worker._finisher.adopt(self._worker.shard, list(self._store.own_ids().values()))
        self._worker.meter.figures.n = self._store.position.n
        self._worker._stored(self._store.position)
        reader = asyncio.create_task(self._read(stop), name=f"read {self._worker.shard.ref}")
        stopper = asyncio.create_task(self._wake_on(stop))
        try:
            await self._commit()
            if reader.done():
                reader.result()  # A fault of the code must not pass for an end.
            if self._reader_error is not None:
                raise self._reader_error
        finally:
            for task in (reader, stopper):
                task.cancel()
            await asyncio.gather(reader, stopper, return_exceptions=True)

    async def _wake_on(self, stop: asyncio.Event) -> None:
        """A read may block for a second: end the reading at once when asked to stop."""
        await stop.wait()
        self._reading = False
        self._filled.set()

    # reader
    async def _read(self, stop: asyncio.Event) -> None:
        try:
            await self._source.start()
            looked = monotonic()
            while not stop.is_set():
                batch = self._batch
                part = min(1.0, FULL_BATCHES / self._worker.owned)
                room = max(LEAST_ROWS, int(self._settings.max_rows * part)) - batch.count
                waits = self._source.held and not batch.empty
                if room <= 0 or waits or batch.size >= self._settings.max_bytes * part:
                    self._taken.clear()
                    await self._taken.wait()
                    continue
                entries = await self._source.fetch(room)
                # The committer may have taken the batch meanwhile: add to the one that is open now.
                came = self._source.add(entries, self._batch, self._store.ids, self._store.windows)
                if not self._batch.empty:
                    self._filled.set()
                if monotonic() - looked >= CHECK_EVERY or not came:
                    if came:
                        await self._source.look()
                    looked = monotonic()
                    self._show_lag()
                if 0 < came < PLENTY and self._worker.shard.linger:
                    await asyncio.sleep(self._worker.shard.linger)
        except (WireError, OSError, TimeoutError) as error:
            _count_failure(self._worker._redis, error)
            self._worker._figures.failed("redis", postgres.describe(error))
            self._reader_error = ServerError("redis", error)
        finally:
            self._reading = False
            self._filled.set()

    def _show_lag(self) -> None:
        tip, n = self._source.tip, self._store.position.n
        commits = max(tip.n, self._chain.n) - n
        waiting = [
            batch.entries[0].stream_id
            for batch in (self._under_way, self._batch)
            if batch is not None and batch.entries
        ]
        if not waiting and commits > 0:
            waiting = [tip.stream_id]  # Seen at the stream's end and not read yet: it is about to be.
        self._worker.meter.lag(max(0, commits), id_of(waiting[0])[0] if waiting else 0)

    # committer
    async def _commit(self) -> None:
        worker, store = self._worker, self._store
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch = self._batch
            if batch.empty:
                if not self._reading:
                    return
                continue
            self._batch, self._under_way = Batch(), batch
            self._taken.set()
            self._show_lag()
            started = monotonic()
            spans = StoreSpans(str(worker.shard.ref), batch.traces) if batch.traces and TRACES.on else None
            try:
                outcome = await worker._guarded("postgres", worker._database, partial(_attempt, store, batch))
                if outcome is None:
                    raise Moved(str(worker.shard.ref))
            except BaseException as error:
                if spans is not None:
                    spans.failed(str(error) or type(error).__name__)
                worker.failed_batch = _named(batch, spans)
                raise
            if spans is not None:
                worker.meter.followed(spans.stored(len(batch.entries), outcome.stored.inserted))
            self._under_way = None
            if (loss := batch.loss) is not None and loss.certain:
                worker._log.warning(
                    "commits.lost", first=loss.first, last=loss.last if loss.last >= 0 else "unknown",
                    effect="gap rows with cause redis_lost, and what the venue still offers is asked for",
                )  # fmt: skip
            store.losses.settle_watch(coming=self._batch.loss is not None)
            if outcome.own:
                worker._log.warning(
                    "events.refused", events=dict(outcome.own), effect="they are dead letters: feedmill dlq list",
                    **_named(batch, spans),
                )  # fmt: skip
            worker.meter.committed(batch, outcome, monotonic() - started)
            worker._stored(store.position)
            self._show_lag()
            if touched := _touched(worker.shard, batch, outcome):
                worker._finisher.touch(worker.shard, touched)
            if not self._reading:
                self._filled.set()


def _named(batch: Batch, spans: StoreSpans | None) -> dict[str, Any]:
    """What a line of the log says of a batch: by which commits and traces to look for it."""
    first = batch.entries[0].n if batch.entries else batch.n
    named: dict[str, Any] = {"commits": [first, batch.n]}
    if spans is not None:
        named["trace_ids"] = spans.trace_ids
    return named


def _touched(shard: ShardSettings, batch: Batch, outcome: Outcome) -> list[tuple[int, int]]:
    """Minutes (instrument, epoch seconds) whose candles may be finished now or no longer are."""
    touched = outcome.stored.minutes
    touched += [(key[0], key[2] // SECOND) for key, candle in batch.rows.candles.items() if candle.closed]
    if not shard.rules.dense:
        for instrument, gap in batch.rows.gaps.values():
            if instrument is not None and gap.channel == ChannelName.TRADES.value:
                touched += [(instrument, ns // SECOND // 60 * 60) for ns in (gap.from_ns, gap.to_ns) if ns]
    return touched


async def _pass_on(stop: asyncio.Event, over: asyncio.Event) -> None:
    await stop.wait()
    over.set()


async def _attempt(store: Store, batch: Batch) -> Outcome | None:
    """None when the position was moved: that is no failure of the server, and the breaker must not take it for one."""
    try:
        return await store.commit(batch)
    except Moved:
        return None


def _count_failure(breaker: Breaker, error: Exception) -> None:
    try:
        breaker.admit().failure(error)
    except BreakerOpen:
        pass
