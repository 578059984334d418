"""The PostgreSQL side of one shard: position, instruments, partitions, and one transaction a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import asyncpg
import msgspec

from feedmill import __version__
from feedmill.plan import shard_of
from feedmill.processor import statements, writer
from feedmill.processor.batch import Batch
from feedmill.processor.chain import Loss
from feedmill.processor.cuts import Cutter
from feedmill.processor.isolate import Unit, isolate
from feedmill.processor.losses import Change, Losses
from feedmill.processor.rows import (
    STRANGER,
    CommitKey,
    Deferred,
    Event,
    Letter,
    Rows,
    Windows,
    event_session,
    event_time,
    numbered,
)
from feedmill.processor.settings import ShardSettings
from feedmill.processor.writer import Move, Stored
from feedmill.shared import partitions, postgres
from feedmill.shared.clock import now_ns
from feedmill.shared.events import BookSnapshot, DeadLetter, Gap, Ticker, Trade
from feedmill.shared.partitions import DAY_NS, Partitioned

AHEAD_NS = 2 * DAY_NS
"""Events further in the future than this are refused."""

_TABLES: dict[type, Partitioned] = {
    Trade: partitions.TRADES,
    Ticker: partitions.TICKERS,
    BookSnapshot: partitions.BOOKS,
}


class Moved(RuntimeError):
    """The position is not where this process left it: another works on the shard, or a commit's answer was lost."""


@dataclass(frozen=True, slots=True)
class Position:
    """The last commit stored: its number, its id, its entry in the stream."""

    n: int
    commit_id: str
    stream_id: str


@dataclass(slots=True)
class Outcome:
    """What storing a batch did, for metrics."""

    stored: Stored = field(default_factory=Stored)
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """(table, reason) -> events not stored, each a dead letter."""
    letters: Counter[str] = field(default_factory=Counter)
    """Reason -> dead letters, those of the receiver's and distributor's making included."""
    own: Counter[str] = field(default_factory=Counter)
    """The same of the processor's making only."""

    def keep(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self.letters[letter.reason] += 1
            if letter.session.startswith(STRANGER):
                self.own[letter.reason] += 1

    def refuse(self, table: str, reason: str) -> None:
        self.refused[table, reason] = self.refused.get((table, reason), 0) + 1


def letter_of(commit: CommitKey, index: int, event: Event, reason: str, detail: str) -> Letter:
    """A dead letter for an event of a commit."""
    n, commit_id = commit
    receive_ns = event.detected_ns if isinstance(event, Gap) else event.receive_ns
    receive_ns = max(0, min(receive_ns, 2**63 - 1))
    kind = type(event).__name__.lower()
    payload = msgspec.msgpack.encode(event)
    return Letter(event_session(commit_id), n, index, 0, receive_ns, f"{kind}_{reason}", detail, __version__, payload)


class Store:
    """One session of PostgreSQL for one shard. Made by :meth:`open`."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        shard: ShardSettings,
        retention_ns: dict[str, int],
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self.connection = connection
        self.shard = shard
        self._retention = retention_ns
        self._clock = clock
        self.ids: dict[str, int] = {}
        """Symbol -> instrument. Grows; never changes an entry."""
        self.windows = Windows()
        self._days: dict[str, set[int]] = {}
        self.position = Position(0, "", "0-0")
        self.losses = Losses(connection, shard)
        self.cutter = Cutter(by_time=shard.rules.tickers_by_time)

    @classmethod
    async def open(
        cls,
        database_url: postgres.Url,
        shard: ShardSettings,
        retention_ns: dict[str, int],
        *,
        statement_timeout: float = 30.0,
        clock: Callable[[], int] = now_ns,
    ) -> Store:
        """Connect, check the schema, read the position. Raises asyncpg errors, OSError, TimeoutError, SchemaBehind."""
        connection = await postgres.connect(
            database_url, name=f"feedmill processor {shard.ref}", command_timeout=statement_timeout
        )
        try:
            store = cls(connection, shard, retention_ns, clock)
            await postgres.require_schema(connection)
            await store.load_position()
            await store.load_ids()
            await store.losses.load()
            await store._load_days()
        except BaseException:
            connection.terminate()
            raise
        return store

    async def close(self) -> None:
        await postgres.close(self.connection)

    def forked(self) -> None:
        """The stream does not go on from what is stored: it is read again, and what gap rows say is compared."""
        self.cutter.forked = self.losses.watch.late = True

    async def load_position(self) -> Position:
        """Read the shard's position, beginning it where there is none."""
        name = str(self.shard.ref)
        row = await self.connection.fetchrow(statements.POSITION, name)
        if row is None:
            await self.connection.execute(statements.FIRST_POSITION, name)
            row = await self.connection.fetchrow(statements.POSITION, name)
        assert row is not None
        self.position = Position(row["n"], row["commit_id"], row["stream_id"])
        return self.position

    async def load_ids(self) -> None:
        rows = await self.connection.fetch(statements.INSTRUMENTS, self.shard.exchange, self.shard.market)
        self.ids.update((row["symbol"], row["id"]) for row in rows)

    def own_ids(self) -> dict[str, int]:
        """Symbol -> instrument, of those of this shard (of the whole market where the shard names none)."""
        natives = self.shard.natives
        return {symbol: self.ids[symbol] for symbol in natives if symbol in self.ids} if natives else self.ids

    async def live_ids(self) -> dict[str, int]:
        """Those of :meth:`own_ids` that may have more to come, where it is not known which are this shard's: what its
        symbol puts here and has not expired."""
        own, shards = self.own_ids(), self.shard.selected_of
        if not shards:
            return own
        expired = {row["id"] for row in await self.connection.fetch(statements.EXPIRED, list(own.values()))}
        number = self.shard.ref.shard
        return {symbol: i for symbol, i in own.items() if i not in expired and shard_of(symbol, shards) == number}

    async def _load_days(self) -> None:
        for table in partitions.ALL:
            self._days[table.name] = await partitions.existing(self.connection, table)
        self._set_windows()

    def _set_windows(self, around: int | None = None) -> None:
        """Remember the run of days that holds the day last seen (a replay of old days, or today)."""
        today = self._clock() // DAY_NS
        runs = []
        for table in partitions.ALL:
            days = self._days[table.name]
            low, high = partitions.window(days, today if around is None or around not in days else around)
            # What the retention no longer covers goes the slow way, where it is refused.
            oldest = partitions.oldest_day(self._clock(), self._retention[table.name])
            runs.append((max(low, oldest * DAY_NS), min(high, self._clock() + AHEAD_NS)))
        self.windows.trades, self.windows.tickers, self.windows.books = runs

    def _covers(self, table: Partitioned, time_ns: int) -> bool:
        windows = {"trades": self.windows.trades, "tickers": self.windows.tickers, "book_snapshots": self.windows.books}
        low, high = windows[table.name]
        return low <= time_ns < high

    async def _instrument(self, symbol: str) -> int:
        found = self.ids.get(symbol)
        if found is None:
            native = self.shard.natives.get(symbol, symbol)
            await self.connection.execute(
                statements.NEW_INSTRUMENT, self.shard.exchange, self.shard.market, symbol, native
            )
            await self.load_ids()
            found = self.ids[symbol]
        return found

    def _refusal(self, table: Partitioned, time_ns: int) -> str:
        """Why an event of that time is not kept; empty when it is."""
        now = self._clock()
        if time_ns // DAY_NS < partitions.oldest_day(now, self._retention[table.name]):
            return "too_old"
        return "too_new" if time_ns >= now + AHEAD_NS else ""

    async def _settle(self, rows: Rows, item: Deferred, outcome: Outcome) -> None:
        """Make what a deferred event needs and render it, or refuse it."""
        event = item.event
        table = _TABLES.get(type(event))
        if table is not None:
            time_ns = event_time(event)
            refusal = self._refusal(table, time_ns)
            if refusal:
                day = f"{time_ns} ns is outside the {table.name} kept: see spec.retention"
                rows.letters.append(letter_of(item.commit, item.index, event, refusal, day))
                outcome.refuse(table.name, refusal)
                return
            day_number = time_ns // DAY_NS
            if day_number not in self._days[table.name]:
                await partitions.ensure(self.connection, table, day_number)
                self._days[table.name].add(day_number)
                self._set_windows(day_number)
            elif not self._covers(table, time_ns):
                self._set_windows(day_number)
        instrument = None if isinstance(event, Gap) and not event.symbol else await self._instrument(event.symbol)
        rows.add(instrument, event)

    async def commit(self, batch: Batch) -> Outcome:
        """Store a batch and move the position, exactly once.

        Raises Moved when the position was moved by somebody else (nothing is stored then), and asyncpg errors, OSError
        or TimeoutError when the server is away: then it is not known whether it was stored, the position tells.
        """
        for attempt in (1, 2):
            outcome = Outcome()
            try:
                await self._commit(batch, outcome)
            except Exception as error:
                if postgres.trouble(error) is postgres.Trouble.PARTITION and attempt == 1:
                    # A partition was retired meanwhile. Look again and judge each event anew.
                    await self._load_days()
                    batch.rows, batch.deferred = Rows(), []
                    for entry in batch.entries:
                        batch.rows.add_block(entry.key, entry.events(), self.ids, Windows(), batch.deferred)
                    continue
                raise
            self.position = Position(batch.n, batch.commit_id, batch.stream_id)
            return outcome
        raise AssertionError("unreachable")

    async def _commit(self, batch: Batch, outcome: Outcome) -> None:
        rows = batch.rows
        deferred, batch.deferred = batch.deferred, []
        poison: list[tuple[Deferred, Exception]] = []
        for place, item in enumerate(deferred):
            try:
                await self._settle(rows, item, outcome)
            except Exception as error:
                if not writer.is_data(error):
                    batch.deferred = deferred[place:]
                    raise
                poison.append((item, error))  # A symbol PostgreSQL cannot hold.
        for item, why in poison:
            rows.letters.append(letter_of(item.commit, item.index, item.event, "refused", postgres.describe(why)))
        rows.letters.extend(batch.made)
        step = Move(str(self.shard.ref), self.position.commit_id, batch.n, batch.commit_id, batch.stream_id)
        stored = Stored()
        outcome.keep(rows.letters)
        try:
            if self.losses.concern(batch.loss, batch.notes):
                await self._commit_losses(batch, rows, step, stored)
            elif rows.seldom:
                async with self.connection.transaction():
                    await self._commit_all(rows, step, stored)
            elif not await writer.commit_busy(self.connection, rows, step, stored):
                raise Moved(str(self.shard.ref))
        except Exception as error:
            if not writer.is_data(error):
                raise
            stored = Stored()
            outcome.letters.clear()
            outcome.own.clear()
            await self._commit_isolating(batch, step, stored, outcome)
        outcome.stored = stored

    async def _commit_losses(self, batch: Batch, rows: Rows, step: Move, stored: Stored) -> None:
        """The same where commits are gone, or events came that tell what was in them."""
        losses = self.losses
        async with self.connection.transaction():
            change = await self._open_losses(batch)
            if not await writer.commit_busy(self.connection, rows, step, stored):
                raise Moved(step.shard)
            # Before the distributor's own rows: one of ours that is removed here may be in the way of one of them.
            change = await losses.settle(batch.notes, change)
            await writer.store_seldom(self.connection, step.shard, rows, stored, self.cutter)
            await losses.fill(batch.notes, self.ids, everywhere=self.cutter.forked)
        losses.committed(change)

    async def _open_losses(self, batch: Batch) -> Change | None:
        loss = batch.loss
        if loss is None:
            if not self.losses.restored or not batch.entries:
                return None
            first = batch.entries[0]
            if first.before == self.position.commit_id:
                return await self.losses.went_on()
            # Numbers of another chain than the one that the backup knew.
            loss = Loss(self.position.n + 1, -1, self.position.stream_id, first.stream_id)
        return await self.losses.open(loss, batch.entries[0].commit_id, self._clock(), await self.live_ids())

    async def _commit_all(self, rows: Rows, step: Move, stored: Stored) -> None:
        if not await writer.commit_busy(self.connection, rows, step, stored):
            raise Moved(step.shard)
        await writer.store_seldom(self.connection, step.shard, rows, stored, self.cutter)

    async def _commit_isolating(self, batch: Batch, step: Move, stored: Stored, outcome: Outcome) -> None:
        """Something in the batch is refused: find it, make it a dead letter, store the rest."""
        units: list[Unit] = []
        for entry in batch.entries:
            units.extend((entry.key, index, event) for index, event in numbered(entry.events()))
        sessions = {STRANGER, *(event_session(entry.commit_id) for entry in batch.entries)}
        letters = [item for item in batch.rows.letters if item.session in sessions]
        lettered = {(item.session, item.index) for item in letters}
        units = [unit for unit in units if (event_session(unit[0][1]), unit[1]) not in lettered]

        def render(part: list[Unit]) -> Rows:
            rows = Rows()
            for _, _, event in part:
                if isinstance(event, DeadLetter):
                    rows.add_letter(event)
                else:
                    rows.add(self.ids.get(event.symbol), event)
            return rows

        async with self.connection.transaction():
            if not await writer.move(self.connection, step):
                raise Moved(step.shard)
            change = None
            if concerned := self.losses.concern(batch.loss, batch.notes):
                change = await self.losses.settle(batch.notes, await self._open_losses(batch))
            refused = await isolate(self.connection, step.shard, units, render, stored, self.cutter)
            letters += [letter_of(c, x, event, "refused", postgres.describe(error)) for c, x, event, error in refused]
            await writer.store_seldom(self.connection, step.shard, Rows(letters=letters), stored)
            if concerned:
                await self.losses.fill(batch.notes, self.ids, everywhere=self.cutter.forked)
        if change is not None:
            self.losses.committed(change)
        lost = {item[:2] for item in refused}
        outcome.keep(letters)
        outcome.letters.update(
            event.reason for key, x, event in units if isinstance(event, DeadLetter) and (key, x) not in lost
        )
