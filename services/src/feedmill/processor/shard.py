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
from feedmill.processor.chain import Chain, id_of
from feedmill.processor.measures import Figures, Meter
from feedmill.processor.settings import ProcessorSettings, ShardSettings
from feedmill.processor.source import CHECK_EVERY, Source
from feedmill.processor.store import Moved, Outcome, Store
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.clock import SECOND, monotonic
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect

HINT_EVERY = 0.05
"""Seconds: how often the trimming hint is written at most."""
PLENTY = 1000
"""Events of one read after which the next one follows at once."""


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
        database_url: str,
        *,
        redis: Breaker,
        database: Breaker,
        figures: Figures,
        finisher: Finisher,
        log: Any,
    ) -> None:
        self.settings = settings
        self.shard = shard
        self._redis_url = redis_url
        self._database_url = database_url
        self._redis = redis
        self._database = database
        self._finisher = finisher
        self.meter = Meter(str(shard.ref), shard.exchange, shard.market, figures)
        self._log = log.bind(shard=str(shard.ref))
        self._hinted = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; what was read by then is committed. Waits out servers that are away."""
        backoff = Backoff(0.1, 2.0)
        self.meter.figures.owned = True
        try:
            while not stop.is_set():
                commits = self.meter.figures.commits
                try:
                    await self._session(stop)
                    continue
                except BreakerOpen as error:
                    wait = max(error.retry_in, 0.05) + backoff.next() / 10
                    self.meter.figures.error = str(error)[:300]
                except ServerError as error:
                    measures.failures.labels(error.server).inc()
                    if self.meter.figures.commits > commits:
                        backoff.reset()
                    wait = backoff.next()
                    self.meter.figures.error = str(error)
                    self._log.warning("shard.interrupted", server=error.server, error=str(error), retry_in=round(wait, 3))
                except Moved:
                    measures.moved.inc()
                    wait = backoff.next()
                    self._log.warning("shard.position_moved", action="reload the position")
                await _sleep_or(stop, wait)
        finally:
            self.meter.figures.owned = False

    async def _session(self, stop: asyncio.Event) -> None:
        """One connection to each server, until one of them fails or ``stop`` is set."""
        store = await self._guarded("postgres", self._database, self._open_store)
        try:
            wire = await self._guarded("redis", self._redis, self._connect)
            try:
                await _Session(self, store, wire).run(stop)
            finally:
                wire.abort()
        finally:
            await store.close()

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
        except (WireError, postgres.SchemaBehind) as error:
            measures.server_up.labels(server).set(0)
            raise ServerError(server, error) from error
        except Exception as error:
            if not postgres.is_retryable(error):
                raise
            measures.server_up.labels(server).set(0)
            raise ServerError(server, error) from error
        measures.server_up.labels(server).set(1)
        return result


class _Session:
    """Reader and committer over one pair of connections."""

    def __init__(self, worker: ShardWorker, store: Store, wire: Wire) -> None:
        self._worker = worker
        self._store = store
        self._settings = worker.settings
        position = store.position
        self._chain = Chain(worker.shard.ref, position.n, position.commit_id, position.stream_id)
        self._source = Source(
            wire, worker.shard.ref, self._chain, block_ms=worker.settings.block_ms, on_break=self._broken
        )
        self._wire = wire
        self._batch = Batch()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader_error: ServerError | None = None
        self._reading = True

    def _broken(self, why: str) -> None:
        measures.rereads.inc()
        self._worker.meter.figures.rereads += 1
        self._worker._log.warning("stream.reread", why=why)

    async def run(self, stop: asyncio.Event) -> None:
        ids, natives = self._store.ids, self._worker.shard.natives
        mine = [ids[symbol] for symbol in natives if symbol in ids] if natives else list(ids.values())
        self._worker._finisher.adopt(self._worker.shard, mine)
        self._worker.meter.figures.n = self._store.position.n
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
                room = self._settings.max_rows - len(batch)
                if room <= 0 or batch.size >= self._settings.max_bytes:
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
                    self._hint(force=True)
                if 0 < came < PLENTY and self._worker.shard.linger:
                    await asyncio.sleep(self._worker.shard.linger)
        except (WireError, OSError, TimeoutError) as error:
            _count_failure(self._worker._redis, error)
            measures.server_up.labels("redis").set(0)
            self._reader_error = ServerError("redis", error)
        finally:
            self._reading = False
            self._filled.set()

    def _show_lag(self) -> None:
        tip = self._source.tip
        self._worker.meter.lag(tip.n, id_of(tip.stream_id)[0], self._store.position.n)

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
            self._batch = Batch()
            self._taken.set()
            started = monotonic()
            outcome = await worker._guarded("postgres", worker._database, partial(_attempt, store, batch))
            if outcome is None:
                raise Moved(str(worker.shard.ref))
            worker.meter.committed(batch, outcome, monotonic() - started)
            if touched := _touched(worker.shard, batch, outcome):
                worker._finisher.touch(worker.shard, touched)
            self._hint()
            if not self._reading:
                self._filled.set()

    def _hint(self, *, force: bool = False) -> None:
        """Tell the distributor how far the stream may be trimmed. Nobody waits for the answer."""
        now = monotonic()
        if not force and now - self._worker._hinted < HINT_EVERY:
            return
        self._worker._hinted = now
        at = self._store.position
        if at.n:
            future = self._wire.send(
                "HSET", self._worker.shard.ref.applied, "n", at.n, "id", at.commit_id, "stream", at.stream_id
            )
            future.add_done_callback(_forget)


def _touched(shard: ShardSettings, batch: Batch, outcome: Outcome) -> list[tuple[int, int]]:
    """Minutes (instrument, epoch seconds) whose candles may be finished now or no longer are."""
    touched = outcome.stored.minutes
    touched += [(key[0], key[2] // SECOND) for key, candle in batch.rows.candles.items() if candle.closed]
    if not shard.rules.dense:
        for instrument, gap in batch.rows.gaps.values():
            if instrument is not None and gap.channel == ChannelName.TRADES.value:
                touched += [(instrument, ns // SECOND // 60 * 60) for ns in (gap.from_ns, gap.to_ns) if ns]
    return touched


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


def _forget(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


async def _sleep_or(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
