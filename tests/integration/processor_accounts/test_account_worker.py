"""The worker over real servers: what was lost, killed or hung ends in each event stored once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from account_stage import Running, Stream, add_account, until
from proxy import Proxy

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.shared.account_events import AccountGap, Fill, Reconciled
from feedmill.shared.clock import now_ns

D = Decimal
T0 = 1_700_000_000_000_000_000
ONE, TWO = "default/one", "default/two"


def fill(number: int, *, side: int = 1, price: str = "", symbol: str = "BTC-USDT", **more: Any) -> Fill:
    return Fill(
        symbol, str(number), f"o{number}", "", side, "", price or str(100 + number), "1", "", "0.01", "USDT", True, "",
        T0 + number * 1_000_000, T0 + number * 1_000_000 + 5, **more,
    )  # fmt: skip


class World:
    def __init__(self, redis: EmbeddedRedis, url: str, db: asyncpg.Connection) -> None:
        self.redis, self.url, self.db = redis, url, db
        self.one, self.two = Stream(redis, ONE), Stream(redis, TWO)
        self.running: list[Running] = []

    def start(self, url: str | None = None) -> Running:
        self.running.append(Running(self.redis.url, url or self.url, (ONE, TWO)))
        return self.running[-1]

    async def stored(self, *streams: Stream) -> None:
        async def all_are() -> bool:
            for running in self.running:
                if running.task.done():
                    running.task.result()
            found = {row[0] for row in await self.db.fetch("SELECT commit_id FROM applied")}
            return {stream.id for stream in streams} <= found

        await until(all_are)

    async def trades(self, account: str) -> list[int]:
        rows = await self.db.fetch(
            "SELECT trade_id::int FROM fills JOIN accounts a ON a.id = account_id WHERE name = $1 ORDER BY 1",
            account.partition("/")[2],
        )
        return [row[0] for row in rows]


@pytest.fixture
async def world(redis_server: EmbeddedRedis, migrated: str) -> AsyncIterator[World]:
    db = await asyncpg.connect(migrated)
    await add_account(db, "one")
    await add_account(db, "two")
    made = World(redis_server, migrated, db)
    yield made
    for running in made.running:
        await running.end()
    for stream in (made.one, made.two):
        await stream.client.aclose()
    db.terminate()


async def test_each_account_is_stored_in_order_beside_the_others(world: World) -> None:
    for number in range(300):
        await world.one.commit(fills=[fill(number)])
    await world.two.commit(fills=[fill(7)])
    world.start()
    await world.stored(world.one, world.two)
    assert await world.trades(ONE) == list(range(300))
    assert await world.trades(TWO) == [7]


async def test_a_lost_answer_to_a_commit_doubles_nothing(world: World) -> None:
    proxy = Proxy(world.url)
    await proxy.start()
    try:
        running = world.start(proxy.url)
        await world.one.commit(fills=[fill(1)])
        await world.stored(world.one)
        proxy.swallow = b"COMMIT"
        await world.one.commit(fills=[fill(2)])
        await proxy.swallowed.wait()
        await world.one.commit(fills=[fill(3)])
        await world.stored(world.one)
        assert await world.trades(ONE) == [1, 2, 3]
        await running.end()
    finally:
        await proxy.close()
    account = await world.db.fetchval("SELECT id FROM accounts WHERE name = 'one'")
    assert await world.db.fetchval("SELECT total FROM result_fees WHERE account_id = $1", account) == D("0.03")


async def test_two_that_work_on_the_same_accounts_store_each_fill_once(world: World) -> None:
    first, second = world.start(), world.start()
    for number in range(200):
        await world.one.commit(fills=[fill(number)])
    await world.stored(world.one)
    assert await world.trades(ONE) == list(range(200))
    assert await world.db.fetchval("SELECT sum(total) FROM result_fees") == D("2.00")

    async def counted() -> bool:
        return first.worker.figures.fills + second.worker.figures.fills >= 200

    # The database shows a commit a moment before its worker has the answer and counts it.
    await until(counted)
    assert first.worker.figures.fills + second.worker.figures.fills == 200


async def test_a_worker_that_is_killed_is_gone_on_from(world: World) -> None:
    first = world.start()
    for number in range(100):
        await world.one.commit(fills=[fill(number)])
    await until(lambda: _any(world))
    first.task.cancel()
    await asyncio.gather(first.task, return_exceptions=True)
    world.running.remove(first)
    world.start()
    await world.one.commit(fills=[fill(100)])
    await world.stored(world.one)
    assert await world.trades(ONE) == list(range(101))
    assert await world.db.fetchval("SELECT sum(total) FROM result_fees") == D("1.01")


async def _any(world: World) -> bool:
    return bool(await world.db.fetchval("SELECT count(*) FROM fills"))


async def test_postgresql_away_is_waited_out(world: World, postgres_server: EmbeddedPostgres) -> None:
    running = world.start()
    await world.one.commit(fills=[fill(1)])
    await world.stored(world.one)
    postgres_server.kill()
    for number in range(2, 200):
        await world.one.commit(fills=[fill(number)])
    await until(lambda: _error(running))
    postgres_server.start()
    world.db = await asyncpg.connect(world.url)
    await world.stored(world.one)
    assert await world.trades(ONE) == list(range(1, 200))


async def _error(running: Running) -> bool:
    return bool(running.worker.figures.error)


async def test_a_fill_that_postgresql_refuses_becomes_a_dead_letter_and_costs_no_other(world: World) -> None:
    await world.one.commit(fills=[fill(1), fill(2, price="NaN"), fill(3), fill(4, symbol="A\x00B")])
    await world.one.append(b"no block")
    await world.one.client.xadd(world.one.key, {"what": "is this"})
    await world.one.commit(fills=[fill(5, price="1e999999"), fill(6)])
    world.start()
    await world.stored(world.one)
    assert await world.trades(ONE) == [1, 3, 6]
    letters = await world.db.fetch("SELECT reason, shard FROM dead_letters ORDER BY reason")
    assert [tuple(row) for row in letters] == [
        (reason, "default.@one.0")
        for reason in ("fill_refused", "fill_refused", "fill_refused", "not_a_commit", "undecodable")
    ]


async def test_an_account_that_the_database_does_not_know_waits_and_holds_no_other_up(world: World) -> None:
    running = world.start()
    running.worker.work_on((ONE, TWO, "default/stranger"))
    await world.one.commit(fills=[fill(1)])
    await world.stored(world.one)
    assert await world.trades(ONE) == [1]
    assert running.worker.figures.faults == 0
    running.worker.work_on((TWO,))
    await world.two.commit(fills=[fill(2)])
    await world.stored(world.two)
    assert await world.trades(TWO) == [2]


async def test_commits_that_redis_forgot_are_an_open_gap_until_an_account_is_reconciled(world: World) -> None:
    running = world.start()
    await world.one.commit(fills=[fill(1)])
    await world.stored(world.one)
    await running.end()
    await world.one.commit(fills=[fill(2)])
    await world.one.client.delete(world.one.key)
    await world.one.commit(fills=[fill(3)])
    world.start()
    await world.stored(world.one)
    gap = await world.db.fetchrow("SELECT cause, state, from_seq, to_seq, detected_ns FROM gaps")
    assert tuple(gap)[:4] == ("redis_lost", "open", 2, 2)
    seen = gap["detected_ns"]
    await world.one.commit(reconciled=[Reconciled("", seen + 1, seen + 2, 3, 10, ["BTC-USDT"], ["fills: no"])])
    await world.stored(world.one)
    assert await world.db.fetchval("SELECT state FROM gaps") == "open", "what is not complete closes nothing"
    await world.one.commit(fills=[fill(2)], reconciled=[Reconciled("", seen + 1, seen + 2, 3, 10, ["BTC-USDT"], [])])
    await world.stored(world.one)
    assert await world.db.fetchval("SELECT state FROM gaps") == "closed"
    assert await world.trades(ONE) == [1, 2, 3]


async def test_a_chain_that_began_anew_is_whole_after_its_first_reconciliation(world: World) -> None:
    world.start()
    await world.one.commit(fills=[fill(1)])
    await world.stored(world.one)
    # Redis forgot everything, and so did the distributor, which reconciles before anybody here has noticed.
    began = now_ns()
    await world.one.client.delete(world.one.key)
    world.one.n, world.one.id = 0, ""
    await world.one.commit(fills=[fill(3)])
    await until(lambda: world.db.fetchval("SELECT true FROM gaps"))
    gap = await world.db.fetchrow("SELECT cause, state, from_seq, to_seq, detected_ns FROM gaps")
    assert tuple(gap)[:4] == ("redis_lost", "open", 2, None)
    assert began < gap["detected_ns"]
    await world.one.commit(reconciled=[Reconciled("", began, began + 1, 3, 10, ["BTC-USDT"], ["fills: no"])])
    await world.stored(world.one)
    assert await world.db.fetchval("SELECT state FROM gaps") == "open", "what is not complete closes nothing"
    await world.one.commit(reconciled=[Reconciled("", began, began + 1, 3, 10, ["BTC-USDT"], [])])
    await world.stored(world.one)
    assert await world.db.fetchval("SELECT state FROM gaps") == "closed"


async def test_a_gap_of_an_account_is_closed_by_the_reconciliation_that_names_it(world: World) -> None:
    world.start()
    await world.one.commit(gaps=[AccountGap("g1", "disconnected", "open", T0, 0, 1, T0 + 5)])
    await world.one.commit(gaps=[AccountGap("g1", "disconnected", "open", T0, T0 + 9, 2, T0 + 5)])
    await world.one.commit(reconciled=[Reconciled("g1", T0 + 10, T0 + 20, 3, 10, [], [])])
    await world.stored(world.one)
    rows = await world.db.fetch("SELECT state, from_ns, to_ns, repaired_by, channel FROM gaps")
    assert [tuple(row) for row in rows] == [("closed", T0, T0 + 9, f"reconciled:{T0 + 20}", "Account")]


async def test_profit_is_the_same_whenever_a_late_fill_comes(world: World) -> None:
    ident = await world.db.fetchval(
        "INSERT INTO instruments (exchange, market, symbol, native) VALUES ('binance', 'Spot', 'BTC-USDT', 'BTCUSDT') "
        "RETURNING id"
    )
    await world.db.execute(
        "INSERT INTO instrument_versions (instrument_id, valid_from, type, base, quote, settle, status) "
        "VALUES ($1, now(), 'Spot', 'BTC', 'USDT', '', 'Trading')", ident,
    )  # fmt: skip
    told = [fill(1, price="100"), fill(2, price="110"), fill(3, side=2, price="120"), fill(4, side=2, price="130")]
    for each in told:
        await world.one.commit(fills=[each])
    for each in (told[0], told[3], told[2], told[1]):
        await world.two.commit(fills=[each])
    world.start()
    await world.stored(world.one, world.two)
    rows = await world.db.fetch(
        "SELECT name, size, average_price, realised, currency, fills FROM results JOIN accounts a ON a.id = account_id "
        "ORDER BY name"
    )
    assert [tuple(row) for row in rows] == [
        (name, D(0), None, D(40), "USDT", 4) for name in ("one", "two")
    ]  # (120 - 105) + (130 - 105)
