"""verify of accounts: what stream and REST tell, stored by the processor's store, is equal to the ledger; each kind of
damage is found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from account_store import Store
from test_private_adapters import DERIBIT, SPOT, USDM, SmallDeribit, SmallSpot, SmallUsdm, venue

from feedmill.cli.migrate import migrate_sync
from feedmill.exchanges.account_base import AccountEvent
from feedmill.processor.accounts.store import AccountStore, Batch
from feedmill.shared.account_events import AccountBlock, Balance, BalanceChange, Fill, OrderUpdate
from feedmill.simulator.report import Accounts, Report
from feedmill.simulator.verify import verify

__all__ = ["venue"]
RESTS = {SPOT: SmallSpot, USDM: SmallUsdm, DERIBIT: SmallDeribit}


class Recording(Store):
    """Keeps what it is given, as blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[AccountBlock] = []

    def take(self, events: Iterable[AccountEvent]) -> None:
        told = list(events)
        super().take(told)
        block = AccountBlock()
        for event in told:
            kinds = {OrderUpdate: block.orders, Fill: block.fills, Balance: block.balances,
                     BalanceChange: block.changes}  # fmt: skip
            kinds.get(type(event), block.positions).append(event)  # type: ignore[union-attr, arg-type]
        self.blocks.append(block)


async def stored(db: asyncpg.Connection, world: Any, store: Recording) -> int:
    exchange, _, market = world.name.partition("/")
    ident = await db.fetchval(
        "INSERT INTO accounts (namespace, name, exchange, market, environment, origin) "
        "VALUES ('default', $1, $2, $3, 'Production', 'store') RETURNING id",
        world.account, exchange, market,
    )  # fmt: skip
    keeper = AccountStore(f"default/{world.account}")
    await keeper.load(db)
    for number, block in enumerate(store.blocks, 1):
        batch = Batch()
        batch.add((number, f"c{number}"), block)
        batch.stand(number, f"c{number}", f"{number}-0")
        assert (await keeper.commit(db, batch)).refused == 0
    return int(ident)


def accounts_of(report: Report) -> Accounts:
    return report.venues[0].accounts


@pytest.mark.parametrize("name", [SPOT, USDM, DERIBIT])
async def test_accounts_are_equal_and_damage_is_found(
    venue: Any,
    connect: Any,
    ledger: Any,
    tmp_path: Path,
    database_url: str,
    name: str,
) -> None:
    await asyncio.to_thread(migrate_sync, database_url)
    async with venue(name) as world:
        world.store = store = Recording()
        async with connect(await world.url()) as client:
            await world.log_on(client)
            for _ in range(15):
                # Binance gives transfers no id: two of one amount in one ms would be one.
                await world.hear(client, 10)

            async def nothing(number: int) -> None: ...

            await world.reconcile(RESTS[name], store.known(numbered=name != DERIBIT), nothing)
        db = await asyncpg.connect(database_url)
        try:
            ident = await stored(db, world, store)
            report = await verify(tmp_path / "ledger", database_url)
            found = accounts_of(report)
            assert found.ok, report.venues[0].notes
            assert (found.emitted, found.known) == (2, 1)
            fills = found.flows["fills"]
            assert fills.emitted == fills.stored == len(store.fills) > 10
            assert found.flows["orders"].stored == len(store.orders) > 10
            assert found.flows["balances"].stored > 0
            assert found.flows["transfers"].stored > 0

            async def damaged(statement: str) -> Accounts:
                await db.execute(statement.format(ident))
                return accounts_of(await verify(tmp_path / "ledger", database_url))

            found = await damaged(
                "DELETE FROM fills WHERE (account_id, instrument_id, trade_id, order_id) IN "
                "(SELECT account_id, instrument_id, trade_id, order_id FROM fills WHERE account_id = {0} LIMIT 1)"
            )
            assert (found.ok, found.flows["fills"].lost, found.half_filled) == (False, 1, 1)
            found = await damaged("UPDATE fills SET fee = fee + 1 WHERE account_id = {0}")
            assert found.flows["fills"].wrong == found.flows["fills"].stored > 10
            found = await damaged("UPDATE fills SET trade_id = 'x' || trade_id WHERE account_id = {0}")
            assert found.flows["fills"].phantom == found.flows["fills"].stored
            found = await damaged("UPDATE orders SET status = 'new' WHERE account_id = {0} AND terminal")
            assert found.flows["orders"].wrong > 5
            found = await damaged("UPDATE balances SET total = total + 1 WHERE account_id = {0}")
            assert found.flows["balances"].wrong + found.flows["balances"].phantom > 0
            found = await damaged("DELETE FROM balance_changes WHERE account_id = {0}")
            assert found.flows["transfers"].lost == found.flows["transfers"].emitted > 0
            if name != SPOT:
                found = await damaged("UPDATE positions SET size = size + 1 WHERE account_id = {0} AND size <> 0")
                assert found.flows["positions"].wrong > 0
        finally:
            await db.close()
