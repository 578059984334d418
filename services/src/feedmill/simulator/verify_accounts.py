"""Compare the accounts of a ledger with what a database holds: each fill once and whole, each order's last state, each
balance and position as it stands, each transfer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from feedmill.simulator import verify_accounts_sql as sql
from feedmill.simulator.ledger import ACCOUNT_KINDS
from feedmill.simulator.ledger_reading import lines
from feedmill.simulator.report import Accounts

_CHUNK = 5_000
_NOTES = 5


async def compare_accounts(connection: asyncpg.Connection[Any], folder: Path, venue: str, notes: list[str]) -> Accounts:
    """Within the transaction that made ``ours``. Accounts of the ledger that the database does not know are counted and
    not compared."""
    found = Accounts()
    await connection.execute(sql.TABLES)
    for kind in ACCOUNT_KINDS:
        await connection.copy_to_table(
            f"a_{kind}", source=_chunks(_numbered(folder, venue, kind)), format="text", null=""
        )
    exchange, _, market = venue.partition("/")
    await connection.execute(sql.MINE % (exchange, market))
    found.emitted, found.known, twice = await _row(connection, sql.ACCOUNTS)
    if twice:
        notes.append(f"{twice} accounts of the ledger are in the database under the same name in several namespaces")
    if not found.known:
        return found
    await connection.execute(sql.EXPECTED)
    for kind in ACCOUNT_KINDS:
        flow = found.flows[kind]
        flow.emitted, flow.stored = await _row(connection, sql.COUNTS[kind])
        for name, statements, words in (
            ("lost", sql.LOST, "emitted, not stored"),
            ("phantom", sql.PHANTOM, "stored, never emitted"),
            ("wrong", sql.WRONG, "stored with another content"),
        ):
            if kind not in statements:
                continue
            # Only Spot says what is free and what is locked; elsewhere free is what margins leave.
            rows = await connection.fetch(statements[kind].replace("{split}", str(market == "Spot").lower()))
            setattr(flow, name, len(rows))
            if rows:
                examples = ", ".join(f"{row[0]} {row[1]}" for row in rows[:_NOTES])
                notes.append(f"{kind} {words}: {len(rows)} (first: {examples})")
    found.flows["fills"].doubled = await connection.fetchval(sql.DOUBLED)
    found.flows["transfers"].in_gaps = await connection.fetchval(sql.TRANSFERS_IN_GAPS)
    found.half_filled = await connection.fetchval(sql.HALF_FILLED)
    if found.half_filled:
        notes.append(f"{found.half_filled} orders whose fills do not sum to what they say is filled")
    found.dead_letters = await connection.fetchval(sql.DEAD_LETTERS)
    found.gaps_open = await connection.fetchval(sql.GAPS_OPEN)
    return found


async def _row(connection: asyncpg.Connection[Any], statement: str) -> asyncpg.Record:
    row: asyncpg.Record | None = await connection.fetchrow(statement)
    assert row is not None
    return row


def _numbered(folder: Path, venue: str, kind: str) -> Iterator[str]:
    for number, line in enumerate(lines(folder, venue, kind)):
        yield f"{number}\t{line}"


async def _chunks(found: Iterator[str]) -> AsyncIterator[bytes]:
    batch: list[str] = []
    for line in found:
        batch.append(line)
        if len(batch) >= _CHUNK:
            yield "".join(batch).encode()
            batch.clear()
    if batch:
        yield "".join(batch).encode()
