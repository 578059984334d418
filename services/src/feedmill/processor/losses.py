"""What is told when commits are gone: the stream was trimmed, or Redis was wiped and its chain began anew.

One row for the shard says when. And one for each instrument and channel says what: the numbers between the last one
stored and the first one that comes after. They are written open in the transaction of the first commit after the loss,
as nobody else knows any more where the old chain ended, and get their extent in the transaction of the instrument's
first event; both survive whatever happens in between. One that turns out to miss nothing is removed. A book's gap that
was open ends with its next snapshot.

These rows are the processor's own: their revisions begin at ``OWN``, so a row of the distributor under the same name,
which knows less, never replaces them. What comes late is taken out of them here.

A database that was restored from a backup begins with such rows (see ``restored``): its shard's row waits for the first
commit, which tells whether anything is missing at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from feedmill.exchanges.base import ChannelName
from feedmill.processor import losses_sql as sql
from feedmill.processor.chain import Loss
from feedmill.processor.settings import ShardSettings
from feedmill.processor.statements import OWN
from feedmill.shared.clock import MS, SECOND
from feedmill.shared.events import EventBlock, Flag
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import BEGIN, id_of

MARGIN_NS = 60 * SECOND
"""The row of the shard begins this much before the last commit stored: a lost event may have happened that much before
the commit that would have followed."""
HOLES = timedelta(seconds=60)
"""Numbers left out within this time before the last trade stored may have waited to be declared as a gap."""
PATIENCE = "10s"
"""Longest search for the last tickers where no index helps."""

TRADES, TICKER, BOOK = ChannelName.TRADES.value, ChannelName.TICKER.value, ChannelName.BOOK.value
_LATE = int(Flag.LATE | Flag.BACKFILL)

Key = tuple[str, str]
"""(symbol, channel)."""


@dataclass(frozen=True, slots=True)
class First:
    """The first event of an instrument and channel in a batch."""

    number: int
    exchange_ns: int
    receive_ns: int


@dataclass(slots=True)
class Notes:
    """Of one batch."""

    firsts: dict[Key, First] = field(default_factory=dict)
    late: list[tuple[str, str, int, int]] = field(default_factory=list)
    """(symbol, channel, number, exchange time)."""


class Watch:
    """What reading looks for while there are losses to tell."""

    def __init__(self, *, by_time: bool) -> None:
        """``by_time``: tickers have no number; their exchange time in ms stands for it."""
        self._by_time = by_time
        self.on = False
        """The first events of instruments are wanted."""
        self.late = False
        """What comes late is wanted."""

    def note(self, block: EventBlock, notes: Notes | None) -> Notes:
        notes = notes or Notes()
        for t in block.trades:
            if t.flags & _LATE:
                notes.late.append((t.symbol, TRADES, t.id, t.exchange_ns))
            elif self.on and (t.symbol, TRADES) not in notes.firsts:
                notes.firsts[t.symbol, TRADES] = First(t.id, t.exchange_ns, t.receive_ns)
        for q in block.tickers:
            number = q.exchange_ns // MS if self._by_time else q.seq
            if q.flags & _LATE:
                notes.late.append((q.symbol, TICKER, number, q.exchange_ns))
            elif self.on and (q.symbol, TICKER) not in notes.firsts:
                notes.firsts[q.symbol, TICKER] = First(number, q.exchange_ns, q.receive_ns)
        if self.on:
            for b in block.books:
                notes.firsts.setdefault((b.symbol, BOOK), First(b.seq, b.exchange_ns, b.receive_ns))
        return notes


@dataclass(frozen=True, slots=True)
class Pending:
    """A row that waits for the instrument's first event."""

    id: str
    from_seq: int


@dataclass(slots=True)
class Change:
    """What a transaction does to the rows; becomes known when it was committed."""

    pending: dict[Key, Pending]
    restored: str
    """As :attr:`Losses.restored`."""
    rows: int = 0
    """Written or removed."""


def shard_times(loss: Loss) -> tuple[int, int]:
    """When the lost commits' events happened, ns: from (0 = not known), to."""
    begin = 0 if loss.after == BEGIN else max(1, id_of(loss.after)[0] * MS - MARGIN_NS)
    return begin, (id_of(loss.until)[0] + 1) * MS


def gap_id(shard: ShardRef, symbol: str, channel: str, from_seq: int) -> str:
    """As the distributor makes it."""
    return f"{shard}/{symbol}/{channel}/{from_seq}"


class Losses:
    """Of one shard, over the connection of its store; all but :meth:`load` within its transactions."""

    def __init__(self, connection: asyncpg.Connection, shard: ShardSettings) -> None:
        self._connection = connection
        self._shard = shard
        self._name = str(shard.ref)
        self.pending: dict[Key, Pending] = {}
        self.restored = ""
        """The row of a restore that waits for the first commit after it; empty = there is none."""
        self.watch = Watch(by_time=shard.rules.tickers_by_time)

    async def load(self) -> None:
        """Go on where the last process was."""
        self.restored = await self._connection.fetchval(sql.RESTORED_SHARD, self._name) or ""
        for row in await self._connection.fetch(sql.LOAD, self._name, OWN):
            self.watch.late = True
            if row["waits"]:
                self.pending[row["symbol"], row["channel"]] = Pending(row["id"], row["from_seq"])
        self.watch.on = bool(self.pending)

    def concern(self, loss: Loss | None, notes: Notes | None) -> bool:
        """Whether a batch has anything to do with losses."""
        if loss is not None or self.restored:
            return True
        return notes is not None and bool(notes.late or not self.pending.keys().isdisjoint(notes.firsts))

    async def open(self, loss: Loss, commit_id: str, detected_ns: int, ids: Mapping[str, int]) -> Change:
        """Write the shard's row and those of the instruments. To be called before anything else is stored."""
        change = self._change()
        if self.restored:
            last, end = (loss.last, shard_times(loss)[1])
            await self._connection.execute(sql.END_RESTORED, self.restored, last, end)
            change.restored = ""
            change.rows += 1
        elif loss.certain:
            begin, end = shard_times(loss)
            name = f"{self._name}/events/{loss.first}"
            await self._connection.execute(
                sql.SHARD, name, self._name, loss.first, loss.last, begin, end, detected_ns, f"{name}:{commit_id}", OWN
            )
            change.rows += 1
        found = [item for item in await self.ends(loss.after, ids) if item[:2] not in change.pending]
        if found:
            keys = [gap_id(self._shard.ref, symbol, channel, begin) for symbol, channel, begin, _, _ in found]
            columns = [list(column) for column in zip(*found, strict=True)]
            symbols, channels, begins, missing, times = columns
            numbers = [ids[symbol] for symbol in symbols]
            await self._connection.execute(
                sql.OPEN, self._name, keys, numbers, channels, begins, missing, times, detected_ns, OWN, "redis_lost"
            )
            for key, (symbol, channel, begin, _, _) in zip(keys, found, strict=True):
                change.pending[symbol, channel] = Pending(key, begin)
            change.rows += len(found)
        if not loss.certain or loss.last >= 0:
            return change  # The distributor still knows what it opened.
        symbols_of = {number: symbol for symbol, number in ids.items()}
        for row in await self._connection.fetch(sql.ADOPT_BOOKS, self._name, list(symbols_of), OWN):
            change.pending[symbols_of[row["instrument_id"]], BOOK] = Pending(row["id"], row["from_seq"])
            change.rows += 1
        return change

    async def went_on(self) -> Change:
        """The first commit after a restore follows what is stored: nothing was missing."""
        await self._connection.execute(sql.REMOVE_RESTORED, self._name)
        left = {row["id"] for row in await self._connection.fetch(sql.LOAD, self._name, OWN) if row["waits"]}
        pending = {key: each for key, each in self.pending.items() if each.id in left}
        return Change(pending, "", len(self.pending) - len(pending))

    def _change(self) -> Change:
        return Change(dict(self.pending), self.restored)

    async def ends(self, after: str, ids: Mapping[str, int]) -> list[tuple[str, str, int, str, int]]:
        """Where the tables end: (symbol, channel, where a gap begins, numbers known to be missing, receive time).

        ``after``: entry id of the last commit stored.
        """
        symbols = {number: symbol for symbol, number in ids.items()}
        found: list[tuple[str, str, int, str, int]] = []
        if TRADES in self._shard.channels:
            for row in await self._connection.fetch(sql.LAST_TRADES, list(symbols), HOLES):
                dense = self._shard.rules.dense
                begin = row["begin"] if dense else row["last"]
                missing = row["holes"] if dense else "{}"
                found.append((symbols[row["instrument_id"]], TRADES, begin, missing, row["receive_ns"]))
        if TICKER in self._shard.channels:
            for number, last, receive_ns in await self._last_tickers(after, list(symbols)):
                found.append((symbols[number], TICKER, last, "{}", receive_ns))
        return found

    async def _last_tickers(self, after: str, numbers: list[int]) -> list[tuple[int, int, int]]:
        """(instrument, number or ms, receive time) of the last ticker."""
        if not self._shard.rules.tickers_by_time:
            return [tuple(row) for row in await self._connection.fetch(sql.LAST_TICKERS, numbers)]
        before_ms = id_of(after)[0]
        since = (datetime.fromtimestamp(before_ms / 1000, UTC) - timedelta(days=1)).date()
        try:
            async with self._connection.transaction():
                await self._connection.execute(f"SET LOCAL statement_timeout = '{PATIENCE}'")
                rows = await self._connection.fetch(sql.LAST_TICKERS_BY_TIME, numbers, since)
                await self._connection.execute("SET LOCAL statement_timeout = 0")
        except asyncpg.QueryCanceledError:
            begin = before_ms - MARGIN_NS // MS  # Further back than need be, but not silent.
            return [(number, begin, begin * MS) for number in numbers]
        return [(row["instrument_id"], row["last"], row["receive_ns"]) for row in rows]

    async def settle(self, notes: Notes | None, change: Change | None) -> Change:
        """Give rows their extent whose instruments have events in this batch; those that miss nothing are removed."""
        change = change or self._change()
        came = [
            (key, pending, notes.firsts[key])
            for key, pending in change.pending.items()
            if notes is not None and key in notes.firsts
        ]
        dense = [item for item in came if self._dense(item[0])]
        others = [item for item in came if not self._dense(item[0])]
        if dense:
            await self._connection.execute(sql.SETTLE_NUMBERS, *_settling(dense))
            await self._connection.execute(sql.REMOVE_EMPTY, [pending.id for _, pending, _ in dense])
        # A book's numbers may begin anew; that it has a snapshot again ends the gap whatever its number.
        nothing = [item for item in others if item[0][1] != BOOK and item[2].number <= item[1].from_seq]
        if nothing:
            await self._connection.execute(sql.REMOVE, [pending.id for _, pending, _ in nothing])
        if ended := [item for item in others if item not in nothing]:
            await self._connection.execute(sql.SETTLE_EXTENT, *_settling(ended))
        for key, _, _ in came:
            del change.pending[key]
        change.rows += len(came)
        return change

    def _dense(self, key: Key) -> bool:
        return key[1] == TRADES and self._shard.rules.dense

    async def fill(self, notes: Notes | None, ids: Mapping[str, int], *, everywhere: bool) -> None:
        """Take out of the rows what came late. To be called when everything is stored. ``everywhere``: numbers also out
        of rows of the distributor, which may have forgotten them."""
        late = [item for item in notes.late if item[0] in ids] if notes is not None else []
        for statement, channel in ((sql.FILL_NUMBERS, TRADES), (sql.FILL_EXTENT, TICKER)):
            part = [item for item in late if item[1] == channel]
            if part:
                numbers = [ids[symbol] for symbol, _, _, _ in part]
                least = 0 if everywhere and channel == TRADES else OWN
                await self._connection.execute(
                    statement, self._name, numbers, [item[2] for item in part], [item[3] for item in part], least
                )

    def committed(self, change: Change) -> None:
        self.pending, self.restored = change.pending, change.restored
        self.watch.late = self.watch.late or bool(change.rows)

    def settle_watch(self, *, coming: bool) -> None:
        """After a commit. ``coming``: the batch being gathered begins with a loss."""
        if not self.pending and not coming:
            self.watch.on = False


def _settling(items: Iterable[tuple[Key, Pending, First]]) -> tuple[list[Any], ...]:
    found = list(items)
    return (
        [pending.id for _, pending, _ in found],
        [first.number for _, _, first in found],
        [first.exchange_ns for _, _, first in found],
        [first.receive_ns for _, _, first in found],
    )
