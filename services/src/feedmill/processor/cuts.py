"""Gap rows are cut to what PostgreSQL does not hold.

A Redis that failed over to a replica that lagged has forgotten commits that are stored here. The distributor goes on
from a checkpoint before them, so what it then tells to be missing begins at the last event that *it* knows. Before such
a row is stored its begin is moved to the last event stored, and numbers that are stored are taken out of it: at every
revision, as the distributor knows no better the next time.

Rows that the forgotten commits told stay, since what they say was missing is. One still open ends where the new
chain tells of the time around it; one whose name the new chain uses again for something later is kept, and the later
one is named after where it really begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime

import asyncpg
import msgspec

from feedmill.exchanges.base import ChannelName
from feedmill.processor import cuts_sql as sql
from feedmill.processor.statements import OWN
from feedmill.shared.clock import MS, SECOND
from feedmill.shared.events import Gap

FORGOTTEN = frozenset({"session_lost", "redis_lost"})
"""Causes that a server which forgot commits brings about."""
PATIENCE = "5s"
"""Longest look for tickers where no index helps; a row that is not cut says more than is missing, never less."""
MARGIN_NS = 60 * SECOND
"""Times of the venue and of the receiver differ by less."""
_EVER = 2**63 - 1

TRADES, TICKER, BOOK = ChannelName.TRADES.value, ChannelName.TICKER.value, ChannelName.BOOK.value
Row = tuple[int | None, Gap]
"""(instrument, gap)."""
Rows = Mapping[str, Row]
Begin = tuple[int, int]
"""(number or ms, receive time) of the last event stored within a row."""


class Cutter:
    """Of one shard. To be asked within the transaction that stores the rows, when its events are stored."""

    def __init__(self, *, by_time: bool) -> None:
        """``by_time``: tickers have no number; their exchange time in ms stands for it."""
        self._by_time = by_time
        self.forked = False
        """The stream did not go on from what is stored: whatever the distributor tells may be known here."""

    async def cut(self, connection: asyncpg.Connection, shard: str, gaps: Rows) -> list[Row]:
        """The rows as they are to be stored."""
        doubtful = {name: row for name, row in gaps.items() if self._is_doubtful(*row)}
        if not doubtful:
            return list(gaps.values())
        begins: dict[str, Begin] = {}
        kept = dict(gaps)
        for channel in (TRADES, TICKER, BOOK):
            part = {name: row for name, row in doubtful.items() if row[1].channel == channel}
            if not part:
                continue
            if channel == TRADES:
                kept |= await _without_stored(connection, part)
            elif channel == BOOK:
                begins |= await _begins(connection, sql.LAST_BOOKS, part)
            elif self._by_time:
                begins |= await _begins_by_time(connection, part)
            else:
                begins |= await _begins(connection, sql.LAST_TICKERS, part)
        await _end_forgotten(connection, doubtful.values())
        taken = await _taken(connection, begins, doubtful)
        for name, (begin, receive_ns) in begins.items():
            instrument, gap = doubtful[name]
            own = f"{shard}/{gap.symbol}/{gap.channel}/{begin}" if name in taken else name
            kept[name] = (instrument, msgspec.structs.replace(gap, id=own, from_seq=begin, from_ns=receive_ns))
        return list({gap.id: (instrument, gap) for instrument, gap in kept.values()}.values())

    def _is_doubtful(self, instrument: int | None, gap: Gap) -> bool:
        return instrument is not None and (self.forked or gap.cause in FORGOTTEN)


async def _without_stored(connection: asyncpg.Connection, rows: Rows) -> dict[str, Row]:
    """Rows of trades less the numbers that are stored."""
    cut: dict[str, Row] = {}
    named = {name: row for name, row in rows.items() if row[1].missing}
    if not named:
        return cut
    gaps = [gap for _, gap in named.values()]
    found = await connection.fetch(
        sql.STORED_TRADES,
        list(named),
        [instrument for instrument, _ in named.values()],
        [_multirange(gap.missing) for gap in gaps],
        [_since_us(gap) for gap in gaps],
        [(gap.to_ns or gap.detected_ns) // 1000 + MARGIN_NS // 1000 for gap in gaps],
    )
    for row in found:
        instrument, gap = named[row["name"]]
        missing = [(each.lower, each.upper - 1) for each in row["missing"]]
        state, by = (gap.state, gap.repaired_by) if missing else ("closed", gap.repaired_by or "late")
        cut[row["name"]] = (instrument, msgspec.structs.replace(gap, missing=missing, state=state, repaired_by=by))
    return cut


def _multirange(ranges: list[tuple[int, int]]) -> str:
    return "{" + ",".join(f"[{low},{high}]" for low, high in ranges) + "}"


def _since_us(gap: Gap) -> int:
    return max(0, gap.from_ns - MARGIN_NS) // 1000


def _end(gap: Gap) -> int:
    return gap.to_seq if gap.to_seq >= 0 else _EVER


async def _begins(connection: asyncpg.Connection, statement: str, rows: Rows) -> dict[str, Begin]:
    """By number: the last event stored within each row, where there is one."""
    found = await connection.fetch(
        statement,
        list(rows),
        [instrument for instrument, _ in rows.values()],
        [gap.from_seq for _, gap in rows.values()],
        [_end(gap) for _, gap in rows.values()],
        [_since_us(gap) for _, gap in rows.values()],
    )
    return {row["name"]: (row["number"], row["receive_ns"]) for row in found}


async def _begins_by_time(connection: asyncpg.Connection, rows: Rows) -> dict[str, Begin]:
    """The same of tickers without number."""
    lows = [(gap.from_seq + 1) * MS if gap.from_seq >= 0 else gap.from_ns for _, gap in rows.values()]
    highs = [gap.to_seq * MS - 1 if gap.to_seq >= 0 else _EVER for _, gap in rows.values()]
    instruments = [instrument for instrument, _ in rows.values()]
    days = [_day(low) for low in lows]
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{PATIENCE}'")
            found = await connection.fetch(sql.LAST_TICKERS_BY_TIME, list(rows), instruments, lows, highs, days)
            await connection.execute("SET LOCAL statement_timeout = 0")
    except asyncpg.QueryCanceledError:
        return {}
    return {row["name"]: (row["number"], row["receive_ns"]) for row in found}


def _day(time_ns: int) -> date:
    return datetime.fromtimestamp(time_ns // SECOND, UTC).date()


async def _end_forgotten(connection: asyncpg.Connection, rows: Iterable[Row]) -> None:
    """Remove open rows that begin within a closed one: no chain tells both, so it was forgotten who would end them."""
    closed = [row for row in rows if row[1].channel != TRADES and row[1].state == "closed" and row[1].to_seq >= 0]
    if closed:
        await connection.execute(
            sql.END_FORGOTTEN,
            [gap.id for _, gap in closed],
            [instrument for instrument, _ in closed],
            [gap.channel for _, gap in closed],
            [gap.from_seq for _, gap in closed],
            [gap.to_seq for _, gap in closed],
            OWN,
        )


async def _taken(connection: asyncpg.Connection, begins: Mapping[str, Begin], rows: Rows) -> set[str]:
    """Names that stand for something before what is to be stored."""
    closed = [name for name in begins if rows[name][1].state == "closed"]
    if not closed:
        return set()
    numbers, revisions = [begins[name][0] for name in closed], [rows[name][1].revision for name in closed]
    found = await connection.fetch(sql.TAKEN, closed, numbers, revisions)
    return {row["id"] for row in found}
