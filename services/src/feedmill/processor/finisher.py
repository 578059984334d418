"""Finishes candles behind the trades: rolls up the longer ones, proves them complete, fills empty ones, compares.

Works on its own connection, every two seconds, on what was touched since; whatever it does is idempotent, and what it
had not done when its process ended is found from the tables (see ``dirty``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from feedmill.processor import finish_sql, measures
from feedmill.processor.dirty import Dirty, Range
from feedmill.processor.settings import INTERVALS, ShardSettings, VenueRules
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.clock import monotonic
from feedmill.shared.lease import sleep_or

INSTRUMENTS_AT_ONCE = 100
SESSION = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "lock_timeout": "2s"}
"""Every statement is a set of index look-ups, whatever the planner believes of tables it has not analysed yet."""


def sources(intervals: Sequence[str]) -> list[tuple[str, str]]:
    """(interval, the one it is rolled up from), shortest first: the longest shorter one that divides it."""
    known = sorted({"1m", *intervals}, key=INTERVALS.__getitem__)
    return [
        (name, next(other for other in reversed(known[:place]) if INTERVALS[name] % INTERVALS[other] == 0))
        for place, name in enumerate(known)
        if place
    ]


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _length(interval: str) -> timedelta:
    return timedelta(seconds=INTERVALS[interval])


class CandleFinisher:
    """One per processor process, for the shards it owns."""

    def __init__(
        self,
        database_url: postgres.Url,
        intervals: Sequence[str],
        *,
        database: Breaker,
        every: float,
        timeout: float,
        log: Any,
    ) -> None:
        self._database_url = database_url
        self.work_with(intervals)
        self._breaker = database
        self._every = every
        self._timeout = timeout
        self._log = log
        self._dirty: dict[str, Dirty] = {}
        self._rules: dict[str, VenueRules] = {}
        self._names: dict[str, str] = {}
        self._adopted: dict[str, set[int]] = {}
        self._connection: asyncpg.Connection | None = None
        self.runs = 0
        self.error = ""

    def work_with(self, intervals: Sequence[str]) -> None:
        """Make candles of these lengths from now on."""
        self._sources = sources(intervals)
        self._intervals = ["1m", *(name for name, _ in self._sources)]

    def adopt(self, shard: ShardSettings, instruments: Sequence[int]) -> None:
        """The shard is ours (again): look at everything that may be unfinished."""
        self._know(shard)
        self._adopted.setdefault(str(shard.ref), set()).update(instruments)

    def touch(self, shard: ShardSettings, minutes: Sequence[tuple[int, int]]) -> None:
        """(instrument, begin of a minute as epoch seconds)."""
        self._know(shard).add(minutes)

    def _know(self, shard: ShardSettings) -> Dirty:
        name = str(shard.ref)
        self._rules[name] = shard.rules
        self._names[name] = shard.venue
        return self._dirty.setdefault(name, Dirty())

    def document(self) -> dict[str, Any]:
        return {
            "runs": self.runs,
            "instrumentsWaiting": sum(len(dirty) for dirty in self._dirty.values()),
            "lastError": self.error,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then once more: what was touched last is finished too."""
        backoff = Backoff(0.5, 10.0)
        wait = self._every
        try:
            while not stop.is_set():
                await sleep_or(stop, wait)
                wait = self._every
                try:
                    await self.finish()
                    backoff.reset()
                    self.error = ""
                except BreakerOpen as error:
                    wait = max(self._every, error.retry_in)
                except Exception as error:
                    if not (postgres.is_retryable(error) or isinstance(error, postgres.SchemaBehind)):
                        raise
                    self.error = postgres.describe(error)
                    wait = self._every + backoff.next()
                    self._log.warning("finisher.interrupted", error=self.error, retry_in=round(wait, 3))
        finally:
            await self.close()

    def abort(self) -> None:
        """Cut the connection: for an end that is overdue."""
        if self._connection is not None:
            self._connection.terminate()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        await postgres.close(connection)

    async def finish(self) -> None:
        """Do all there is to do now. Raises asyncpg errors, OSError, TimeoutError, BreakerOpen; forgets nothing."""
        started = monotonic()
        for name in list(self._dirty):
            # One with nothing to do would pass for an answer of the server.
            if len(self._dirty[name]) or self._adopted.get(name):
                await self._breaker.call(self._finish_shard, name)
        self.runs += 1
        measures.finish_seconds.observe(monotonic() - started)

    async def _open(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            connection = await postgres.connect(
                self._database_url, name="feedmill processor finisher", command_timeout=self._timeout
            )
            try:
                await postgres.require_schema(connection)
                for setting, value in SESSION.items():
                    await connection.execute("SELECT set_config($1, $2, false)", setting, value)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    async def _finish_shard(self, name: str) -> None:
        dirty = self._dirty[name]
        connection = await self._open()
        try:
            await self._find_unfinished(connection, name, dirty)
            while ranges := dirty.take(INSTRUMENTS_AT_ONCE):
                try:
                    await self._finish_ranges(connection, name, ranges)
                except BaseException:
                    dirty.put_back(ranges)
                    raise
        except postgres.RETRYABLE:
            await self.close()
            raise

    async def _find_unfinished(self, connection: asyncpg.Connection, name: str, dirty: Dirty) -> None:
        adopted = self._adopted.pop(name, set())
        try:
            left = sorted(adopted)
            while left:
                part, left = left[:INSTRUMENTS_AT_ONCE], left[INSTRUMENTS_AT_ONCE:]
                for row in await connection.fetch(finish_sql.UNFINISHED, part):
                    if row["lo"] is not None:
                        dirty.add_range((row["instrument_id"], int(row["lo"].timestamp()), int(row["hi"].timestamp())))
        except BaseException:
            self._adopted.setdefault(name, set()).update(adopted)
            raise

    async def _finish_ranges(self, connection: asyncpg.Connection, name: str, ranges: list[Range]) -> None:
        rules = self._rules[name]
        bounds = (
            [item[0] for item in ranges],
            [_moment(item[1]) for item in ranges],
            [_moment(item[2]) for item in ranges],
        )
        judge = finish_sql.JUDGE_DENSE if rules.dense else finish_sql.JUDGE_GAPLESS
        fill = finish_sql.FILL_DENSE if rules.dense else finish_sql.FILL_GAPLESS
        compare = finish_sql.compare(dict(rules.comparable))
        for interval, source in self._sources:
            await connection.execute(finish_sql.ROLL_UP, *bounds, [interval], [_length(interval)], source)
        scope = (*bounds, self._intervals, [_length(interval) for interval in self._intervals])
        for row in await connection.fetch(judge, *scope):
            if row["complete"]:
                measures.candles_complete.labels(row["interval"]).inc()
        for row in await connection.fetch(fill, *scope):
            measures.candles_filled.labels(row["interval"]).inc()
        if compare:
            await self._compare(connection, name, compare, scope)

    async def _compare(self, connection: asyncpg.Connection, name: str, statement: str, scope: tuple[Any, ...]) -> None:
        for row in await connection.fetch(statement, *scope):
            measures.candles_compared.labels(row["interval"], str(row["venue_agrees"]).lower()).inc()
            if not row["venue_agrees"]:
                key = (row["instrument_id"], row["interval"], row["open_time"])
                both = await connection.fetchrow(finish_sql.BOTH, *key)
                self._log.warning(
                    "candle.disagrees",
                    venue=self._names[name],
                    shard=name,
                    instrument_id=key[0],
                    interval=key[1],
                    open_time=key[2].isoformat(),
                    **{field: str(value) for field, value in (both or {}).items()},
                )
