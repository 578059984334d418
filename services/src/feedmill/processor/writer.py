"""Writes rows over one connection, within whatever transaction is open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import asyncpg

from feedmill.processor import statements
from feedmill.processor.cuts import Cutter
from feedmill.processor.rows import (
    BOOK_COLUMNS,
    TICKER_COLUMNS,
    TRADE_COLUMNS,
    BadText,
    Letter,
    Rows,
    join,
)
from feedmill.shared.events import Candle, Gap, Instrument
from feedmill.shared.postgres import Trouble, trouble


def is_data(error: BaseException) -> bool:
    """Whether the rows themselves are at fault."""
    return isinstance(error, (BadText, UnicodeEncodeError)) or trouble(error) is Trouble.DATA


@dataclass(slots=True)
class Stored:
    """What a transaction really did."""

    inserted: dict[str, int] = field(default_factory=lambda: {"trades": 0, "tickers": 0, "book_snapshots": 0})
    given: dict[str, int] = field(default_factory=lambda: {"trades": 0, "tickers": 0, "book_snapshots": 0})
    minutes: list[tuple[int, int]] = field(default_factory=list)
    """(instrument, begin of a 1m candle as epoch seconds) that got trades."""

    def count(self, table: str, given: int, inserted: int | None = None) -> None:
        self.given[table] = self.given.get(table, 0) + given
        self.inserted[table] = self.inserted.get(table, 0) + (given if inserted is None else inserted)

    def merge(self, other: Stored) -> None:
        for table, given in other.given.items():
            self.count(table, given, other.inserted[table])
        self.minutes.extend(other.minutes)

    def add_busy(self, rows: Rows, answer: asyncpg.Record) -> None:
        self.count("trades", len(rows.trades), answer["trades"])
        self.count("tickers", len(rows.tickers), answer["tickers"])
        self.count("book_snapshots", len(rows.books), answer["books"])
        if answer["instruments"]:
            self.minutes.extend(zip(answer["instruments"], answer["minutes"], strict=True))


@dataclass(frozen=True, slots=True)
class Move:
    """The step of a shard's position that belongs to a transaction."""

    shard: str
    before: str
    n: int
    commit_id: str
    stream_id: str


def busy_texts(rows: Rows) -> tuple[str, str, str]:
    """The parameters of the busy tables; raises BadText."""
    return (
        join(rows.trades, TRADE_COLUMNS),
        join(rows.tickers, TICKER_COLUMNS),
        join(rows.books, BOOK_COLUMNS),
    )


async def commit_busy(connection: asyncpg.Connection, rows: Rows, move: Move, stored: Stored) -> bool:
    """Store the busy tables and move the position; False (and nothing stored) when it was not where expected."""
    answer = await connection.fetchrow(
        statements.COMMIT_BUSY,
        *busy_texts(rows),
        move.shard,
        move.before,
        move.n,
        move.commit_id,
        move.stream_id,
    )
    assert answer is not None
    if answer["applied"]:
        stored.add_busy(rows, answer)
    return bool(answer["applied"])


async def store_busy(connection: asyncpg.Connection, rows: Rows, stored: Stored) -> None:
    if rows.trades or rows.tickers or rows.books:
        answer = await connection.fetchrow(statements.STORE_BUSY, *busy_texts(rows))
        assert answer is not None
        stored.add_busy(rows, answer)


async def move(connection: asyncpg.Connection, step: Move) -> bool:
    """Move the position alone; False when it was not where expected."""
    status = await connection.execute(statements.MOVE, step.shard, step.before, step.n, step.commit_id, step.stream_id)
    return bool(status == "UPDATE 1")


async def store_seldom(
    connection: asyncpg.Connection, shard: str, rows: Rows, stored: Stored, cutter: Cutter | None = None
) -> None:
    """Store the tables that have statements of their own. To be called when the busy ones are stored."""
    if rows.candles:
        status = await connection.execute(statements.CANDLES, *_candle_columns(rows.candles))
        stored.count("venue_candles", len(rows.candles), _affected(status))
    if rows.gaps:
        gaps = await cutter.cut(connection, shard, rows.gaps) if cutter is not None else rows.gaps.values()
        status = await connection.execute(statements.GAPS, shard, *_gap_columns(gaps))
        stored.count("gaps", len(rows.gaps), _affected(status))
    if rows.letters:
        status = await connection.execute(statements.LETTERS, shard, *_letter_columns(rows.letters))
        stored.count("dead_letters", len(rows.letters), _affected(status))
    if rows.instruments:
        changed = await store_instruments(connection, rows.instruments)
        stored.count("instrument_versions", len(rows.instruments), changed)


def _affected(status: str) -> int:
    """Rows of a command tag: ``INSERT 0 5``."""
    return int(status.rpartition(" ")[2])


def _candle_columns(candles: dict[tuple[int, str, int], Candle]) -> list[list[object]]:
    columns: list[list[object]] = [[] for _ in range(15)]
    for (instrument, interval, open_ns), c in candles.items():
        row = (
            *(instrument, interval, open_ns // 1000, c.open, c.high, c.low, c.close, c.volume, c.quote_volume),
            *(c.trades, c.first_id, c.last_id, c.closed, c.exchange_ns, c.receive_ns),
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns


def _gap_columns(gaps: Iterable[tuple[int | None, Gap]]) -> list[list[object]]:
    columns: list[list[object]] = [[] for _ in range(13)]
    for instrument, g in gaps:
        missing = "{" + ",".join(f"[{low},{high}]" for low, high in g.missing) + "}"
        row = (
            *(g.id, instrument, g.channel, g.cause, g.state, g.from_seq, g.to_seq, missing),
            *(g.from_ns, g.to_ns, g.repaired_by, g.revision, g.detected_ns),
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns


def _letter_columns(letters: list[Letter]) -> list[list[object]]:
    def clean(text: str) -> str:
        return text.replace("\x00", "\\x00")

    return [
        [clean(item.session) for item in letters],
        [item.batch for item in letters],
        [item.index for item in letters],
        [item.conn for item in letters],
        [item.receive_ns for item in letters],
        [clean(item.reason) for item in letters],
        [clean(item.detail) for item in letters],
        [clean(item.code_version) for item in letters],
        [item.payload for item in letters],
    ]


async def store_instruments(connection: asyncpg.Connection, instruments: list[tuple[int, Instrument]]) -> int:
    """How many are new versions."""
    changed = 0
    instruments = sorted(instruments, key=lambda pair: pair[1].receive_ns)
    latest = dict(instruments)
    natives, times = [i.native for i in latest.values()], [i.receive_ns for i in latest.values()]
    await connection.execute(statements.NATIVES, list(latest), natives, times)
    for key, i in instruments:
        status = await connection.execute(
            statements.VERSION,
            *(key, i.receive_ns, i.type, i.base, i.quote, i.settle, i.status, i.tick, i.lot, i.contract_size),
            *(i.expiry_ns, i.strike, i.option_type),
        )
        changed += _affected(status)
    return changed
