"""Compare what a simulator emitted (its ledger) with what a database holds, by the delivery contract.

Numbered channels (trades): the table equals the ledger, apart from numbers that gap rows name, exactly. Other channels
(tickers): what is missing lies inside a gap row. Books: every stored snapshot equals the book rebuilt from the ledger.
Candles: equal to those recomputed from the stored trades, and never called complete when one is missing. Accounts: see
``verify_accounts``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from feedmill.simulator import verify_sql as sql
from feedmill.simulator.ledger_reading import lines, plain, rows, ticker_lines, venues_in
from feedmill.simulator.report import Flow, Report, VenueReport
from feedmill.simulator.verify_accounts import compare_accounts
from feedmill.simulator.verify_books import BookChecker, Stored

_NOTES = 5
_CHUNK = 5_000


class VerifyError(RuntimeError):
    """The comparison could not be made; the message names the remedy."""


async def verify(ledger_dir: Path | str, database_url: str, *, timeout: float = 600.0) -> Report:
    """Compare the ledger in ``ledger_dir`` with the database. Reads only (temporary tables apart).

    Raises FileNotFoundError when there is no ledger, VerifyError when the database cannot be compared.
    """
    folder = Path(ledger_dir)
    venues = venues_in(folder)
    try:
        connection = await asyncpg.connect(database_url, command_timeout=timeout)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise VerifyError(f"the database cannot be reached: {type(error).__name__}: check DATABASE_URL") from error
    try:
        report = Report()
        for venue in venues:
            # One snapshot of the database a venue: rows that arrive meanwhile would look like phantoms.
            async with connection.transaction(isolation="repeatable_read"):
                report.venues.append(await _venue(connection, folder, venue))
        return report
    except asyncpg.UndefinedTableError as error:
        raise VerifyError(f"the database has no such table ({error}): run feedmill migrate first") from error
    finally:
        await connection.close()


async def _venue(connection: asyncpg.Connection[Any], folder: Path, venue: str) -> VenueReport:
    report = VenueReport(venue)
    exchange, _, market = venue.partition("/")
    await connection.execute(sql.TABLES)
    await connection.execute(sql.OURS.format(exchange=exchange, market=market))
    await _load(connection, "l_trades", _plain_numbers(lines(folder, venue, "trades"), venue))
    await _load(connection, "l_tickers", ticker_lines(folder, venue))
    await _load(connection, "l_candles", _plain_numbers(lines(folder, venue, "candles"), venue))
    bad = [row for row in rows(folder, venue, "faults") if row[1] == "bad_price"]
    await _load(connection, "l_bad", (f"{row[2]}\t{row[4]}\n" for row in bad))
    for row in rows(folder, venue, "faults"):
        report.faults[row[1]] = report.faults.get(row[1], 0) + 1
    for kind, flow in (("trades", report.trades), ("tickers", report.tickers)):
        await connection.execute(sql.EMITTED[kind])
        await connection.execute(sql.MISSING[kind])
        await _flow(connection, report, kind, flow)
    report.trades.unreadable = len(bad)
    report.trades.gaps_wrong = await connection.fetchval(sql.GAPS_WRONG)
    if report.trades.gaps_wrong:
        _note(report, f"gap rows of trades name {report.trades.gaps_wrong} numbers that are not missing")
    by_time = venue.startswith("deribit")
    report.tickers.gaps_wrong = await connection.fetchval(sql.tickers_in_gaps(by_time=by_time))
    if report.tickers.gaps_wrong:
        _note(report, f"{report.tickers.gaps_wrong} tickers are stored although a gap row says they were not seen")
    for channel, cause, count in await connection.fetch(sql.CAUSES):
        report.causes[f"{channel} {cause}"] = count
        for name, part in (("Trades", report.trades), ("Ticker", report.tickers), ("Book", report.books)):
            if channel == name:
                part.gap_rows += count
    await _books(connection, report, folder)
    await _candles(connection, report)
    try:
        report.accounts = await compare_accounts(connection, folder, venue, report.notes)
    except asyncpg.DataError as error:
        raise VerifyError(f"the ledger's accounts cannot be read: {error}") from error
    report.dead_letters = await connection.fetchval(sql.DEAD_LETTERS)
    return report


async def _flow(connection: asyncpg.Connection[Any], report: VenueReport, kind: str, flow: Flow) -> None:
    flow.emitted = await connection.fetchval(f"SELECT count(*) FROM e_{kind}")  # noqa: S608
    flow.stored, flow.doubled = await _row(connection, sql.STORED[kind])
    if flow.doubled:
        _note(report, f"{kind}: {flow.doubled} rows are stored twice")
    phantom = await connection.fetch(sql.PHANTOM[kind])
    flow.phantom = len(phantom)
    _name(report, kind, "stored, never emitted", phantom)
    wrong = await connection.fetch(sql.WRONG[kind])
    flow.wrong = len(wrong)
    _name(report, kind, "stored with another content", wrong)
    missing = await connection.fetchval(f"SELECT count(*) FROM m_{kind}")  # noqa: S608
    lost = await connection.fetch(sql.covered(kind, by_time=report.venue.startswith("deribit")))
    flow.lost = len(lost)
    flow.in_gaps = missing - flow.lost
    flow.lost_before_first = sum(1 for row in lost if row[2])
    flow.lost_after_last = sum(1 for row in lost if row[3] and not row[2])
    _name(report, kind, "emitted, not stored, in no gap row", lost)


async def _books(connection: asyncpg.Connection[Any], report: VenueReport, folder: Path) -> None:
    stored: dict[str, dict[int, list[Stored]]] = {}
    async for row in connection.cursor(sql.BOOKS, prefetch=500):
        shot: Stored = (row[2], row[3], row[4], row[5], row[6])
        stored.setdefault(row[0], {}).setdefault(row[1], []).append(shot)
    checker = BookChecker(stored)
    checker.run(rows(folder, report.venue, "books"))
    report.books.checked, report.books.wrong = checker.checked, checker.wrong
    report.books.phantom = len(checker.phantom)
    for note in checker.notes[:_NOTES]:
        _note(report, note)
    _name(report, "books", "of an update id never emitted", checker.phantom)


async def _candles(connection: asyncpg.Connection[Any], report: VenueReport) -> None:
    candles = report.candles
    await connection.execute(sql.RECOMPUTE)
    row = await _row(connection, sql.CANDLES)
    candles.stored, candles.complete, candles.wrong = row["stored"], row["complete"], row["wrong"]
    candles.missing, candles.agree, candles.disagree = row["missing"], row["agree"], row["disagree"]
    row = await _row(connection, sql.VENUE_CANDLES)
    candles.venue_emitted, candles.venue_stored, candles.venue_wrong = row["emitted"], row["stored"], row["wrong"]
    for count, words in (
        (candles.wrong, "1m candles differ from the stored trades, or are called complete although one is missing"),
        (candles.missing, "minutes have stored trades and no candle"),
        (candles.venue_wrong, "closed candles of the venue are stored with another content"),
        (candles.disagree, "complete candles are said to differ from the venue's own"),
    ):
        if count:
            _note(report, f"{count} {words}")


async def _row(connection: asyncpg.Connection[Any], statement: str) -> asyncpg.Record:
    row: asyncpg.Record | None = await connection.fetchrow(statement)
    assert row is not None
    return row


def _plain_numbers(found: Iterable[str], venue: str) -> Iterator[str]:
    """Deribit prints numbers with exponents at times; PostgreSQL's scale should not depend on that."""
    if not venue.startswith("deribit"):
        yield from found
        return
    for line in found:
        fields = line[:-1].split("\t")
        yield "\t".join([fields[0], *map(plain, fields[1:])]) + "\n"


async def _load(connection: asyncpg.Connection[Any], table: str, found: Iterable[str]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        batch: list[str] = []
        for line in found:
            batch.append(line)
            if len(batch) >= _CHUNK:
                yield "".join(batch).encode()
                batch.clear()
        if batch:
            yield "".join(batch).encode()

    try:
        await connection.copy_to_table(table, source=chunks(), format="text", null="")
    except asyncpg.DataError as error:
        raise VerifyError(f"the ledger's {table.removeprefix('l_')} cannot be read: {error}") from error


def _name(report: VenueReport, kind: str, what: str, found: Any) -> None:
    if found:
        examples = ", ".join(f"{row[0]} {row[1]}" for row in found[:_NOTES])
        _note(report, f"{kind} {what}: {len(found)} (first: {examples})")


def _note(report: VenueReport, text: str) -> None:
    report.notes.append(text)
