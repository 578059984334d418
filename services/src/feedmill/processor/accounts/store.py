"""The PostgreSQL side of one account: its position, and one transaction a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import DecimalException
from typing import TypeVar

import asyncpg
import msgspec

from feedmill import __version__
from feedmill.processor import statements as shared_statements
from feedmill.processor import writer
from feedmill.processor.accounts import results, rows, statements
from feedmill.processor.accounts.results import Touched
from feedmill.processor.accounts.rows import Unit, units_of
from feedmill.processor.chain import Loss
from feedmill.processor.rows import Letter, Rows, event_session
from feedmill.processor.spans import Took, Traced
from feedmill.processor.store import Moved, Position
from feedmill.processor.writer import Move, Stored
from feedmill.shared import account_events as events
from feedmill.shared.account_events import AccountBlock, AccountGap
from feedmill.shared.clock import now_ns
from feedmill.shared.events import DeadLetter, Gap, Instrument
from feedmill.shared.keys import account_ref
from feedmill.shared.redis.ids import id_of

E = TypeVar("E")
CHANNEL = "Account"
"""Of gap rows that concern an account."""


Describe = Callable[[str, str, Sequence[str]], Awaitable[Sequence[Instrument]]]
"""(exchange, market, symbols) -> what the venue says of them, as far as that is at hand. Raises nothing."""


async def undescribed(exchange: str, market: str, symbols: Sequence[str]) -> Sequence[Instrument]:
    """Nothing is at hand."""
    return ()


class UnknownAccount(LookupError):
    """A stream has a name that is no account of the database (yet)."""

    def __init__(self, account: str) -> None:
        super().__init__(f"there is no account {account} in the database: add it with feedmill accounts add")


@dataclass(slots=True)
class Batch:
    """Commits of one account in the order of its stream."""

    blocks: list[tuple[tuple[int, str], AccountBlock]] = field(default_factory=list)
    """((number, id), events)."""
    letters: list[Letter] = field(default_factory=list)
    """Entries that could not be read."""
    loss: Loss | None = None
    """Commits that are gone before the first."""
    traces: list[Traced] = field(default_factory=list)
    took: list[Took] = field(default_factory=list)
    """Of the traced ones, once it is stored."""
    n: int = 0
    commit_id: str = ""
    stream_id: str = ""
    """Where the position stands once this is stored."""

    def add(self, commit: tuple[int, str], block: AccountBlock) -> None:
        self.blocks.append((commit, block))

    def stand(self, n: int, commit_id: str, stream_id: str) -> None:
        self.n, self.commit_id, self.stream_id = n, commit_id, stream_id

    @property
    def empty(self) -> bool:
        return not self.stream_id


@dataclass(slots=True)
class Outcome:
    """What storing a batch did."""

    fills: int = 0
    """New ones."""
    refused: int = 0
    """Events that PostgreSQL would not take: dead letters."""


class AccountStore:
    """One account; each call is given the connection to use. :meth:`load` first, and after every failure."""

    def __init__(self, account: str, describe: Describe = undescribed) -> None:
        self.account = account
        self._describe = describe
        self.shard = str(account_ref(account))
        self.position = Position(0, "", "0-0")
        self._id = 0
        self._venue = ("", "")
        self._ids: dict[str, int] = {}
        self.restored: list[str] = []
        """Rows of a restore of which the account's distributor does not know yet."""
        self._forgot: tuple[str, int] = ("0-0", 0)
        """The last entry that a distributor told which was made to forget the account, and when."""
        self._untold: set[str] = set()
        """Instruments of which it is not known what they are counted in, since no feed has told of them."""

    @property
    def venue(self) -> tuple[str, str]:
        """Exchange and market; empty before :meth:`load`."""
        return self._venue

    async def load(self, connection: asyncpg.Connection) -> Position:
        """Read who the account is and where its position stands. Raises UnknownAccount."""
        namespace, _, name = self.account.partition("/")
        row = await connection.fetchrow(statements.ACCOUNT, namespace, name)
        if row is None:
            raise UnknownAccount(self.account)
        self._id, self._venue = row["id"], (row["exchange"], row["market"])
        await connection.execute(shared_statements.FIRST_POSITION, self.shard)
        row = await connection.fetchrow(shared_statements.POSITION, self.shard)
        assert row is not None
        self.position = Position(row["n"], row["commit_id"], row["stream_id"])
        rows_ = await connection.fetch(statements.RESTORED, self.shard, shared_statements.RESTORED)
        self.restored = [row["id"] for row in rows_]
        return self.position

    async def began_anew(self, connection: asyncpg.Connection, last: str, at_ns: int) -> None:
        """From ``at_ns`` (UTC) on the distributor knows nothing of the account any more, so what it reconciles next is
        all of it. ``last``: the last entry of the events stream that was made before."""
        self._forgot = (last, at_ns)
        await connection.execute(statements.BEGAN_ANEW, self.restored, at_ns)
        self.restored = []

    async def commit(self, connection: asyncpg.Connection, batch: Batch) -> Outcome:
        """Store the events and the position, or nothing. Raises Moved when another stored meanwhile (or the answer to
        our own commit was lost), else what PostgreSQL raises: then :meth:`load` tells what is stored."""
        step = Move(self.shard, self.position.commit_id, batch.n, batch.commit_id, batch.stream_id)
        units = [unit for commit, block in batch.blocks for unit in units_of(commit, block)]
        symbols = rows.symbols_of(units)
        await self._know(connection, symbols)
        if untold := sorted(symbols & self._untold):
            await self._tell(connection, untold)
        outcome = Outcome()
        try:
            async with connection.transaction():
                await self._move(connection, step, batch)
                await self._finish(connection, batch.letters, await self._write(connection, units), outcome)
        except Exception as error:
            if not _is_data(error):
                raise
            outcome = await self._commit_isolating(connection, units, step, batch)
        self.position = Position(batch.n, batch.commit_id, batch.stream_id)
        return outcome

    async def _know(self, connection: asyncpg.Connection, symbols: set[str]) -> None:
        """Ids of instruments; those that no feed has made yet are made."""
        unknown = sorted(symbol for symbol in symbols - self._ids.keys() if "\x00" not in symbol)
        if not unknown:
            return
        for attempt in range(2):
            for row in await connection.fetch(statements.INSTRUMENTS, *self._venue, unknown):
                self._ids[row["symbol"]] = row["id"]
            for symbol in unknown if attempt == 0 else ():
                if symbol not in self._ids:
                    await connection.execute(shared_statements.NEW_INSTRUMENT, *self._venue, symbol, symbol)
        new = [self._ids[symbol] for symbol in unknown if symbol in self._ids]
        self._untold |= {row["symbol"] for row in await connection.fetch(statements.UNTOLD, new)}

    async def _tell(self, connection: asyncpg.Connection, symbols: list[str]) -> None:
        """Store what the account's own market says of instruments that no feed follows."""
        described = [(self._ids[each.symbol], each) for each in await self._describe(*self._venue, symbols)]
        if not described:
            return
        self._untold -= {each.symbol for _, each in described}
        try:
            async with connection.transaction():
                await writer.store_instruments(connection, described)
        except Exception as error:
            # A number that PostgreSQL does not take: the profit is not counted, and nothing else is the worse for it.
            if not _is_data(error):
                raise

    async def _move(self, connection: asyncpg.Connection, step: Move, batch: Batch) -> None:
        if not await writer.move(connection, step):
            raise Moved(self.shard)
        if batch.loss is not None:
            await self._gaps(connection, [self._loss_gap(batch, batch.loss)])

    async def _finish(
        self, connection: asyncpg.Connection, letters: list[Letter], touched: Touched, outcome: Outcome
    ) -> None:
        if letters:
            await writer.store_seldom(connection, self.shard, Rows(letters=letters), Stored())
        if touched:
            await results.keep(connection, self._id, touched)
        outcome.fills = sum(map(len, touched.new.values()))

    async def _commit_isolating(
        self, connection: asyncpg.Connection, units: list[Unit], step: Move, batch: Batch
    ) -> Outcome:
        """Something is refused: find it by halves, make it a dead letter, store the rest."""
        outcome, touched, letters = Outcome(), Touched(), list(batch.letters)
        async with connection.transaction():
            await self._move(connection, step, batch)
            pending = [units] if units else []
            while pending:
                part = pending.pop()
                try:
                    async with connection.transaction():
                        found = await self._write(connection, part)
                except Exception as error:
                    if not _is_data(error):
                        raise
                    if len(part) == 1:
                        letters.append(_letter(part[0], error))
                        outcome.refused += 1
                    else:
                        middle = len(part) // 2
                        pending += [part[middle:], part[:middle]]
                else:
                    for instrument, fills in found.new.items():
                        touched.new[instrument] += fills
                    touched.told |= found.told
            await self._finish(connection, letters, touched, outcome)
        return outcome

    async def _write(self, connection: asyncpg.Connection, units: Sequence[Unit]) -> Touched:
        """All events into their tables; idempotent."""
        kinds: dict[type, list[rows.AccountEvent]] = {}
        for unit in units:
            kinds.setdefault(type(unit.event), []).append(unit.event)

        def of(kind: type[E]) -> list[E]:
            return kinds.get(kind, [])  # type: ignore[return-value]

        run, me, ids = connection.execute, self._id, self._ids
        if orders := of(events.OrderUpdate):
            for part in rows.order_rounds(orders):
                await run(statements.ORDERS, me, *rows.order_columns(part, ids))
            await run(statements.ORDER_HISTORY, me, *rows.order_columns(orders, ids))
        touched = await self._fills(connection, of(events.Fill))
        if balances := of(events.Balance):
            await run(statements.BALANCES, me, *rows.balance_columns(rows.latest_balances(balances)))
            await run(statements.BALANCE_HISTORY, me, *rows.balance_columns(balances))
        if changes := of(events.BalanceChange):
            await run(statements.CHANGES, me, *rows.change_columns(changes))
        if positions := of(events.Position):
            await run(statements.POSITIONS, me, *rows.position_columns(rows.latest_positions(positions), ids))
        if gaps := of(events.AccountGap):
            await self._gaps(connection, [_gap(gap) for gap in gaps])
        for done in of(events.Reconciled):
            if not done.refused:
                if done.gap_id:
                    await run(statements.RECONCILED, self.shard, done.gap_id, done.finished_ns)
                await run(statements.LOSSES_REPAIRED, self.shard, done.finished_ns, done.started_ns)
        if letters := of(DeadLetter):
            found = Rows()
            for letter in letters:
                found.add_letter(letter)
            await writer.store_seldom(connection, self.shard, found, Stored())
        return touched

    async def _fills(self, connection: asyncpg.Connection, fills: list[events.Fill]) -> Touched:
        touched = Touched()
        if not fills:
            return touched
        each = rows.once(fills)
        found = {(self._ids[x.symbol], x.trade_id, x.order_id): x for x in each}
        for row in await connection.fetch(statements.FILLS, self._id, *rows.fill_columns(each, self._ids)):
            if row["inserted"]:
                key = row["instrument_id"], row["trade_id"], row["order_id"]
                touched.new[row["instrument_id"]].append(found[key])
            else:
                touched.told.add(row["instrument_id"])
        return touched

    def _loss_gap(self, batch: Batch, loss: Loss) -> Gap:
        """Commits that are gone from Redis: what they told, a reconciliation that begins after it was seen must tell
        again.

        A distributor that lost everything too has seen it before us, and begins with nothing: its first one does. So
        does the first one of a distributor that was made to forget, of all that was told before.
        """
        seen = [gap.detected_ns - 1 for gap in batch.blocks[0][1].gaps if gap.cause == "first"] if batch.blocks else []
        last, at_ns = self._forgot
        if id_of(loss.until) <= id_of(last):
            seen.append(at_ns)
        return Gap(
            f"{self.shard}:lost:{loss.first}:{loss.until}", "", CHANNEL, "redis_lost", "open", loss.first, loss.last,
            [], 0, 0, "", 1, min(seen, default=now_ns()),
        )  # fmt: skip

    async def _gaps(self, connection: asyncpg.Connection, gaps: list[Gap]) -> None:
        latest: dict[str, tuple[int | None, Gap]] = {}
        for gap in sorted(gaps, key=lambda each: each.revision):
            latest[gap.id] = (None, gap)
        await writer.store_seldom(connection, self.shard, Rows(gaps=latest), Stored())


def _is_data(error: BaseException) -> bool:
    """Whether an event is at fault. A symbol without a row is one that PostgreSQL cannot write."""
    return isinstance(error, (DecimalException, KeyError)) or writer.is_data(error)


def _gap(gap: AccountGap) -> Gap:
    return Gap(
        gap.id, "", CHANNEL, gap.cause, gap.state, -1, -1, [], gap.from_ns, gap.to_ns, "", gap.revision, gap.detected_ns
    )


def _letter(unit: Unit, error: Exception) -> Letter:
    n, commit_id = unit.commit
    event = unit.event
    receive_ns = max(0, min(getattr(event, "receive_ns", 0), 2**63 - 1))
    # The kind of error and no more: its text may hold a value.
    return Letter(
        event_session(commit_id), n, unit.index, 0, receive_ns, f"{type(event).__name__.lower()}_refused",
        type(error).__name__, __version__, msgspec.msgpack.encode(event),
    )  # fmt: skip
