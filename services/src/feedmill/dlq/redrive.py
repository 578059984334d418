"""Driving dead letters again: the rows they should have become and the end of the letter, in one transaction.

Rows have keys made of exchange content only, so whatever was stored meanwhile (by another replica, by a backfill, by
the same command a minute ago) is met as itself: nothing is doubled, and run twice costs nothing. Storing them here
instead of through the streams is what makes that exact: a stream has gone on since, and takes an old ticker for one it
knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import asyncpg

from feedmill import __version__
from feedmill.dlq import letters
from feedmill.dlq.letters import Key, Letter
from feedmill.dlq.reading import Contents, Storable, Unreadable, read
from feedmill.exchanges.base import Mapper
from feedmill.exchanges.registry import get_venue
from feedmill.processor import statements, writer
from feedmill.processor.finisher import CandleFinisher
from feedmill.processor.rows import Rows, event_time
from feedmill.processor.settings import ShardSettings
from feedmill.processor.store import AHEAD_NS
from feedmill.processor.writer import Stored
from feedmill.shared import partitions, postgres
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.events import BookSnapshot, Candle, Flag, Gap, Ticker, Trade
from feedmill.shared.partitions import DAY_NS, Partitioned

_TABLES: dict[type, Partitioned] = {
    Trade: partitions.TRADES,
    Ticker: partitions.TICKERS,
    BookSnapshot: partitions.BOOKS,
}
_LATE = int(Flag.LATE)
REPAIRED_BY = "redrive"

_FILL_GAPS = """
UPDATE gaps SET missing = missing - $2::int8multirange,
    state = CASE WHEN isempty(missing - $2::int8multirange) THEN 'closed' ELSE state END,
    repaired_by = CASE WHEN isempty(missing - $2::int8multirange) THEN $3 ELSE repaired_by END
WHERE instrument_id = $1 AND channel = 'Trades' AND state = 'open' AND missing && $2::int8multirange
"""
"""The revision stays: what the distributor says next of the same gap counts, it is told of the frames as well."""


class State(StrEnum):
    """What became of a letter."""

    STORED = "stored"
    """Its rows are there now, the letter is gone."""
    FAILED = "failed"
    """It cannot be handled by this code either: the letter stays, with the new reason."""
    KEPT = "kept"
    """It can be read, but there is no row to make of it: the letter stays."""
    GONE = "gone"
    """There is none (any more), or another command is driving it."""


@dataclass(slots=True)
class Outcome:
    """What driving one letter did."""

    key: Key
    state: State
    detail: str = ""
    rows: Counter[str] = field(default_factory=Counter)
    """Table -> rows that were not there before."""
    known: int = 0
    """Rows that were there already."""
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    """What the distributor is to be told."""


class Redriver:
    """Works over one connection, one transaction a letter."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        shards: Mapping[str, ShardSettings],
        retention_ns: Mapping[str, int],
        *,
        mapper_of: Callable[[ShardSettings, Mapping[str, str]], Mapper] | None = None,
        clock: Callable[[], int] = now_ns,
        version: str = __version__,
    ) -> None:
        """``shards``: by name, those of the manifests. ``retention_ns``: table -> how long its rows are kept."""
        self._connection = connection
        self._shards = shards
        self._retention = retention_ns
        self._mapper_of = mapper_of or _mapper
        self._clock = clock
        self._version = version
        self._mappers: dict[str, Mapper] = {}
        self._ids: dict[tuple[str, str, str], int] = {}
        self.minutes: dict[str, set[tuple[int, int]]] = {}
        """Shard -> (instrument, begin of a minute) whose candles are to be looked at again."""

    async def drive(self, key: Key) -> Outcome:
        """Raises asyncpg errors, OSError and TimeoutError when the server is away: nothing is changed then."""
        shard = self._shards.get(key.shard)
        if shard is None:
            return Outcome(key, State.KEPT, f"no feed of --config has the shard {key.shard}")
        contents: Contents | None = None
        letter = await letters.read(self._connection, key)
        if letter is None:
            return Outcome(key, State.GONE)
        try:
            contents = read(letter, await self._mapper(shard))
            if (refusal := self._refusal(contents.events)) is not None:
                raise refusal
        except Unreadable as error:
            return await self._failed(letter, error)
        if not contents.events:
            return self._nothing(key, contents)
        await self._make_room(shard, contents.events)
        try:
            return await self._store(shard, key, contents)
        except Exception as error:
            if not writer.is_data(error):
                raise
            kind = type(contents.events[0]).__name__.lower()
            return await self._failed(letter, Unreadable(f"{kind}_refused", postgres.describe(error)))

    def _refusal(self, events: Iterable[Storable]) -> Unreadable | None:
        """As the processor refuses it: rows of days that are not kept."""
        now = self._clock()
        for event in events:
            table = _TABLES.get(type(event))
            if table is None:
                continue
            at, kind = event_time(event), type(event).__name__.lower()
            what = f"{at} ns is outside the {table.name} kept: see spec.retention"
            if at // DAY_NS < partitions.oldest_day(now, self._retention[table.name]):
                return Unreadable(f"{kind}_too_old", what)
            if at >= now + AHEAD_NS:
                return Unreadable(f"{kind}_too_new", what)
        return None

    async def _failed(self, letter: Letter, error: Unreadable) -> Outcome:
        if (letter.reason, letter.detail, letter.code_version) != (error.reason, error.detail, self._version):
            await letters.mark(self._connection, letter.key, error.reason, error.detail, self._version)
        return Outcome(letter.key, State.FAILED, str(error))

    @staticmethod
    def _nothing(key: Key, contents: Contents) -> Outcome:
        if contents.books:
            why = "a change of a book: the book was built anew since, its gap row says what is missing"
        elif contents.controls:
            why = "a record of a connection that is over"
        else:
            why = "no event in it (an acknowledgement, a heartbeat)"
        return Outcome(key, State.KEPT, f"{why}: feedmill dlq drop removes it")

    async def _store(self, shard: ShardSettings, key: Key, contents: Contents) -> Outcome:
        connection = self._connection
        stored = Stored()
        async with connection.transaction():
            if await letters.take(connection, key) is None:
                return Outcome(key, State.GONE)
            rows = Rows()
            for event in contents.events:
                if isinstance(event, Trade):
                    event.flags |= _LATE
                if isinstance(event, Gap) and not event.symbol:
                    rows.add(None, event)
                else:
                    rows.add(await self._instrument(shard, event.symbol), event)
            await writer.store_busy(connection, rows, stored)
            await writer.store_seldom(connection, key.shard, rows, stored)
            await self._fill_gaps(shard, contents.trades)
            await letters.remove(connection, key)
        touched = self.minutes.setdefault(key.shard, set())
        touched.update(stored.minutes)
        touched.update(
            (self._ids[shard.exchange, shard.market, event.symbol], event.open_ns // SECOND)
            for event in contents.events
            if isinstance(event, Candle)
        )
        made = Counter({table: count for table, count in stored.inserted.items() if count})
        known = sum(stored.given.values()) - made.total()
        # What was there already came from the distributor, or it was told before.
        frames = contents.frames if made["trades"] else []
        return Outcome(key, State.STORED, rows=made, known=known, frames=frames)

    async def _fill_gaps(self, shard: ShardSettings, trades: Sequence[Trade]) -> None:
        """They are missing no longer."""
        ids: dict[int, list[int]] = {}
        for trade in trades:
            ids.setdefault(self._ids[shard.exchange, shard.market, trade.symbol], []).append(trade.id)
        for instrument, numbers in sorted(ids.items()):
            found = [asyncpg.Range(number, number, upper_inc=True) for number in numbers]
            await self._connection.execute(_FILL_GAPS, instrument, found, REPAIRED_BY)

    async def _make_room(self, shard: ShardSettings, events: Iterable[Storable]) -> None:
        """Partitions of the days concerned."""
        days = {(table, event_time(e) // DAY_NS) for e in events if (table := _TABLES.get(type(e))) is not None}
        for table, day in sorted(days, key=lambda item: (item[0].name, item[1])):
            await partitions.ensure(self._connection, table, day)

    async def _instrument(self, shard: ShardSettings, symbol: str) -> int:
        key = (shard.exchange, shard.market, symbol)
        if key not in self._ids:
            native = shard.natives.get(symbol, symbol)
            await self._connection.execute(statements.NEW_INSTRUMENT, shard.exchange, shard.market, symbol, native)
            rows = await self._connection.fetch(statements.INSTRUMENTS, shard.exchange, shard.market)
            self._ids.update({(shard.exchange, shard.market, row["symbol"]): row["id"] for row in rows})
        return self._ids[key]

    async def _mapper(self, shard: ShardSettings) -> Mapper:
        """One that knows what the manifest names, and every instrument ever seen of this market."""
        found = self._mappers.get(shard.venue)
        if found is None:
            rows = await self._connection.fetch(
                "SELECT native, symbol FROM instruments WHERE exchange = $1 AND market = $2",
                *(shard.exchange, shard.market),
            )
            found = self._mapper_of(shard, {row["native"]: row["symbol"] for row in rows})
            self._mappers[shard.venue] = found
        for symbol, native in shard.natives.items():
            found.learn(native, symbol)
        return found

    async def finish(self, database_url: postgres.Url, intervals: Sequence[str], log: Any) -> None:
        """Roll up, judge and compare the candles whose trades changed; the processor knows nothing of them."""
        breaker = Breaker("postgres", fail_max=1)
        finisher = CandleFinisher(database_url, intervals, database=breaker, every=1.0, timeout=60.0, log=log)
        try:
            for name, minutes in self.minutes.items():
                finisher.touch(self._shards[name], sorted(minutes))
            await finisher.finish()
        finally:
            await finisher.close()
        self.minutes.clear()


def _mapper(shard: ShardSettings, symbols: Mapping[str, str]) -> Mapper:
    return get_venue(shard.exchange, shard.market).mapper(symbols)
