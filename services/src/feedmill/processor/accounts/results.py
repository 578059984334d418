"""Keeps ``results`` and ``result_fees`` in step with the fills, within the transaction that stores them.

New fills later than all before are added; anything else (a late fill, one that was told more of) is computed again from
the table of fills. One writer per account: the transaction holds the account's position.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException

import asyncpg

from feedmill.processor.accounts import statements
from feedmill.processor.accounts.profit import Execution, Result, Terms, result_of
from feedmill.shared.account_events import Fill


@dataclass(slots=True)
class Touched:
    """What happened to the fills of an account."""

    new: dict[int, list[Fill]] = field(default_factory=lambda: defaultdict(list))
    """Instrument -> fills that are new."""
    told: set[int] = field(default_factory=set)
    """Instruments with a fill that was known and is told more of."""

    def __bool__(self) -> bool:
        return bool(self.new or self.told)


async def keep(connection: asyncpg.Connection, account: int, touched: Touched) -> None:
    instruments = sorted({*touched.new, *touched.told})
    await _fees(connection, account, touched)
    terms = {
        row["instrument_id"]: terms_of(row["type"], row["base"], row["quote"], row["settle"])
        for row in await connection.fetch(statements.TERMS, instruments)
    }
    known: dict[int, dict[str, Result]] = defaultdict(dict)
    for row in await connection.fetch(statements.RESULTS, account, instruments):
        known[row["instrument_id"]][row["position_side"]] = Result(
            row["size"], row["average_price"], row["realised"], row["fills"], row["last_ns"]
        )
    for instrument in instruments:
        if instrument not in terms:
            continue  # Nobody has told yet what it is counted in; the first fill after that brings all before it.
        new = touched.new.get(instrument, ())
        if instrument in touched.told or not _follow(known[instrument], new):
            await _again(connection, account, instrument, terms[instrument])
        else:
            for side, fills in _by_side(new).items():
                found = _computed(fills, terms[instrument], known[instrument][side])
                await _write(connection, account, instrument, side, terms[instrument], found)


def terms_of(kind: str, base: str, quote: str, settle: str) -> Terms:
    """Profit is counted in what is settled in. Futures settled in their base are inverse; options are not: they are
    quoted in it."""
    inverse = kind in ("Perpetual", "Future") and settle == base != quote
    return Terms(settle or quote, inverse)


def _by_side(fills: Iterable[Fill]) -> dict[str, list[Execution]]:
    found: dict[str, list[Execution]] = defaultdict(list)
    for x in fills:
        found[x.position_side].append(
            Execution(x.exchange_ns, x.trade_id, x.order_id, x.side, Decimal(x.price), Decimal(x.size))
        )
    return found


def _follow(known: dict[str, Result], new: Sequence[Fill]) -> bool:
    """Whether all are later than what the rows stand on. Without a row it is not known what there is."""
    return all(fill.position_side in known and fill.exchange_ns > known[fill.position_side].last_ns for fill in new)


def _computed(fills: list[Execution], terms: Terms, before: Result | None = None) -> Result | None:
    """None: a price that profit cannot be made of (0 in an inverse contract)."""
    try:
        return result_of(fills, inverse=terms.inverse, before=before)
    except DecimalException:
        return None


async def _again(connection: asyncpg.Connection, account: int, instrument: int, terms: Terms) -> None:
    sides: dict[str, list[Execution]] = defaultdict(list)
    for row in await connection.fetch(statements.ALL_FILLS, account, instrument):
        sides[row["position_side"]].append(
            Execution(row["exchange_ns"], row["trade_id"], row["order_id"], row["side"], row["price"], row["size"])
        )
    await connection.execute(statements.RESULTS_GONE, account, instrument, list(sides))
    for side, fills in sides.items():
        await _write(connection, account, instrument, side, terms, _computed(fills, terms))


async def _write(
    connection: asyncpg.Connection, account: int, instrument: int, side: str, terms: Terms, found: Result | None
) -> None:
    if found is not None:
        await connection.execute(
            statements.RESULT, account, instrument, side, found.size, found.average, found.realised, terms.currency,
            found.fills, found.last_ns,
        )  # fmt: skip


async def _fees(connection: asyncpg.Connection, account: int, touched: Touched) -> None:
    if touched.told:
        await connection.execute(statements.FEES_SUMMED, account, sorted(touched.told))
    added = [
        (instrument, fill.fee_asset, fill.fee)
        for instrument, fills in touched.new.items()
        if instrument not in touched.told
        for fill in fills
        if fill.fee and fill.fee_asset
    ]
    if added:
        await connection.execute(statements.FEES_ADDED, account, *map(list, zip(*added, strict=True)))
