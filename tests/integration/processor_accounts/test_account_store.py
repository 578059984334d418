"""Any order, repetition and split of an account's events ends in the same rows: those of the simulator's engine."""

from __future__ import annotations

import asyncio
import itertools
import random
from decimal import Decimal
from typing import Any

import asyncpg
from account_stage import add_account, blocks_of, store_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedmill.shared.account_events import Balance, Fill, OrderUpdate, Position
from feedmill.simulator.accounts.engine import OrderEngine, make_accounts
from feedmill.simulator.accounts.model import Update
from feedmill.simulator.accounts.rules import rules_of
from feedmill.simulator.catalog import listings

D = Decimal
_numbers = itertools.count(1)
STATUS = {
    "NEW": "new", "PARTIALLY_FILLED": "partially_filled", "FILLED": "filled", "CANCELED": "cancelled",
    "EXPIRED": "expired",
}  # fmt: skip


class Life:
    """What the engine did with one account, as events of a stream and as REST would tell the fills again."""

    def __init__(self, venue: str, steps: int, seed: int) -> None:
        self.events: list[Any] = []
        self.fees: dict[tuple[str, str], Decimal] = {}
        self.frame = 0
        listed = listings(venue)
        rules = rules_of(venue, lambda native: listed[native].price)
        (self.account,) = make_accounts(venue, 1, seed, rules, 10_000)
        engine = OrderEngine(
            [self.account], listed, rules, lambda native: listed[native].price, self.tell, seed=seed, ids=1000
        )
        for step in range(steps):
            engine.step(1_700_000_000_000 + step // 3)  # Several in one ms.

    def tell(self, update: Update) -> None:
        self.frame += 1
        at, seen = update.time_ms * 1_000_000, update.time_ms * 1_000_000 + self.frame
        order = update.order
        if order is not None:
            self.events.append(
                OrderUpdate(
                    order.listing.symbol, str(order.id), order.client_id, 1 if order.buy else 2, order.type.lower(),
                    order.tif.lower(), "", None, str(order.price or ""), "", str(order.size), str(order.filled),
                    str(order.quote), "", STATUS[order.status], order.status not in ("NEW", "PARTIALLY_FILLED"),
                    update.reason, at, order.created_ms * 1_000_000, seen,
                )
            )  # fmt: skip
        if (fill := update.fill) is not None:
            full = Fill(
                fill.listing.symbol, str(fill.trade_id), str(fill.order_id), "", 1 if fill.side == "BUY" else 2, "",
                str(fill.price), str(fill.size), str(fill.quote), str(fill.fee), fill.fee_asset, fill.maker, "", at,
                seen,
            )  # fmt: skip
            # One source lacks the fee, the other who was maker.
            self.events.append(Fill(*[getattr(full, name) for name in full.__struct_fields__]))
            self.events[-1].fee = self.events[-1].fee_asset = ""
            full.maker = None
            full.flags = 2
            self.events.append(full)
            key = fill.listing.symbol, fill.fee_asset
            self.fees[key] = self.fees.get(key, D(0)) + fill.fee
        for asset in update.assets:
            held = update.account.balances[asset]
            self.events.append(Balance(asset, str(held.total), str(held.free), str(held.locked), "", at, seen))
        if (position := update.position) is not None:
            self.events.append(
                Position(position.symbol, "", str(position.size), str(position.entry), "", "", "", at, seen)
            )


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    venue=st.sampled_from(("binance/Spot", "binance/UsdM", "deribit/Derivatives")),
    steps=st.integers(1, 80),
    seed=st.integers(0, 10_000),
)
def test_any_order_repetition_and_split_ends_in_what_happened(migrated: str, venue: str, steps: int, seed: int) -> None:
    life, rng = Life(venue, steps, seed), random.Random(seed)
    events = life.events + rng.sample(life.events, len(life.events) // 2)
    rng.shuffle(events)

    async def run() -> None:
        db = await asyncpg.connect(migrated)
        try:
            name = f"a{next(_numbers)}"
            ident = await add_account(db, name, *venue.split("/"))
            assert await store_all(db, f"default/{name}", blocks_of(events, rng), rng) == 0
            await check(db, ident, life)
        finally:
            await db.close()

    asyncio.run(run())


async def check(db: asyncpg.Connection, ident: int, life: Life) -> None:
    account = life.account
    orders = await db.fetch(
        "SELECT symbol, order_id, status, filled, terminal, client_order_id, filled_quote, o.price FROM orders o "
        "JOIN instruments i ON i.id = instrument_id WHERE account_id = $1", ident,
    )  # fmt: skip
    assert {(r[0], r[1]): tuple(r)[2:] for r in orders} == {
        (x.listing.symbol, str(x.id)): (
            STATUS[x.status], x.filled, x.status not in ("NEW", "PARTIALLY_FILLED"), x.client_id, x.quote,
            x.price or None,
        )
        for x in account.orders
    }  # fmt: skip
    fills = await db.fetch(
        "SELECT symbol, trade_id, order_id, f.price, f.size, fee, fee_asset, maker, exchange_ns FROM fills f "
        "JOIN instruments i ON i.id = instrument_id WHERE account_id = $1", ident,
    )  # fmt: skip
    assert sorted(map(tuple, fills)) == sorted(
        (x.listing.symbol, str(x.trade_id), str(x.order_id), x.price, x.size, x.fee, x.fee_asset, x.maker,
         x.time_ms * 1_000_000)
        for x in account.fills
    )  # fmt: skip
    assert len(await db.fetch("SELECT FROM order_history WHERE account_id = $1", ident)) == len(
        {(e.symbol, e.order_id, e.venue_ns, D(e.filled), e.terminal) for e in life.events if isinstance(e, OrderUpdate)}
    )
    touched = {event.asset for event in life.events if isinstance(event, Balance)}
    balances = await db.fetch("SELECT asset, total, free, locked FROM balances WHERE account_id = $1", ident)
    assert {r[0]: tuple(r)[1:] for r in balances} == {
        asset: (held.total, held.free, held.locked) for asset, held in account.balances.items() if asset in touched
    }
    positions = await db.fetch(
        "SELECT symbol, size, entry_price FROM positions JOIN instruments i ON i.id = instrument_id "
        "WHERE account_id = $1", ident,
    )  # fmt: skip
    assert {r[0]: tuple(r)[1:] for r in positions} == {
        x.symbol: (x.size, x.entry) for x in account.positions.values() if x.updated_ms
    }
    fees = await db.fetch(
        "SELECT symbol, asset, total FROM result_fees JOIN instruments i ON i.id = instrument_id WHERE account_id = $1",
        ident,
    )
    assert {(r[0], r[1]): r[2] for r in fees} == life.fees
