"""A database restored from a backup: its gap rows become exact with the first events, or go if nothing is missing."""

from __future__ import annotations

import asyncio
from typing import Any

from feedmill.processor.restored import open_rows
from feedmill.processor.statements import RESTORED
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns
from feedmill.shared.control import Missing, SessionEnd, decode_control
from feedmill.shared.events import Flag, Gap, Ticker
from feedmill.shared.frames import decode_batch

from .conftest import BASE, REF, SYMBOL, Bench, Distributor, shard_settings, trade

SHARD = shard_settings(natives={SYMBOL: "BTCUSDT"}, trades_page=10)
RETENTION = {"trades": 30 * 86400 * 10**9, "tickers": 3 * 86400 * 10**9, "book_snapshots": 7 * 86400 * 10**9}
LATE = int(Flag.LATE | Flag.BACKFILL)
GAPS = "SELECT channel, state, cause, from_seq, to_seq, missing::text FROM gaps ORDER BY channel, from_seq"


def ticker(seq: int) -> Ticker:
    return Ticker(SYMBOL, seq, "1", "1", "2", "1", BASE + seq * 10**9, BASE + seq * 10**9)


async def restored(bench: Bench, first: int = 1, last: int = 100) -> Distributor:
    """The database has trades up to ``last`` and is then as a restore leaves it."""
    distributor = bench.distributor()
    await distributor.trades(first, last, size=50)
    await distributor.commit(tickers=[ticker(last)])
    run = bench.start(SHARD)
    await bench.until_stored()
    await run.end()
    connection = await postgres.connect(bench.database_url, name="test")
    try:
        async with connection.transaction():
            assert await open_rows(connection, SHARD, RETENTION, "r1", now_ns(), now_ns()) == 3
    finally:
        connection.terminate()
    assert await bench.fetch(GAPS) == [
        ("Ticker", "open", "restore", last, None, "{}"),
        ("Trades", "open", "restore", last + 1, None, "{}"),
        ("events", "open", "restore", distributor.n + 1, None, "{}"),
    ]
    return distributor


async def test_where_redis_has_everything_nothing_was_missing(bench: Bench) -> None:
    distributor = await restored(bench)
    await distributor.trades(101, 200, size=10)
    bench.start(SHARD)
    await bench.until_stored()
    assert await bench.fetch(GAPS) == []
    assert await bench.value("SELECT count(*) FROM trades") == 200


async def lost(bench: Bench) -> Distributor:
    """Commits after the backup were stored by the database that is gone, and trimmed."""
    distributor = await restored(bench)
    await distributor.trades(101, 180, size=10)
    await distributor.commit(tickers=[ticker(190)])
    await distributor.trades(201, 210)
    await distributor.client.xtrim(REF.events, minid=distributor.entries[-1], approximate=False)
    await distributor.commit(tickers=[ticker(211)])
    return distributor


async def test_where_the_stream_goes_on_later_the_rows_get_their_extent(bench: Bench) -> None:
    distributor = await lost(bench)
    bench.start(SHARD)
    await bench.until_stored()
    first_lost, last_lost = 4, 12
    assert await bench.fetch(GAPS) == [
        ("Ticker", "closed", "restore", 100, 211, "{}"),
        ("Trades", "open", "restore", 101, 200, "{[101,201)}"),
        ("events", "closed", "restore", first_lost, last_lost, f"{{[{first_lost},{last_lost + 1})}}"),
    ]
    # What comes late is taken out, whoever fetched it.
    await distributor.commit(trades=[trade(n, flags=LATE) for n in range(101, 201)])
    await bench.until_value("SELECT count(*) FROM gaps WHERE state = 'open'", 0)
    assert await bench.value("SELECT count(*) FROM trades") == 210


async def told(distributor: Distributor) -> list[Any]:
    """Records in the raw stream."""
    found: list[Any] = []
    for _, fields in await distributor.client.xrange(REF.raw):
        batch = decode_batch(fields[b"b"])
        found += [decode_control(payload) for run in batch.runs for payload in run.frames]
    return found


async def test_the_distributor_is_told_what_is_missing(bench: Bench) -> None:
    """It has emitted these numbers and would take any answer for known."""
    distributor = await lost(bench)
    bench.start(SHARD, repair_every=0.05)
    await bench.until_stored()
    async with asyncio.timeout(60):
        while len(found := await told(distributor)) < 2:
            await asyncio.sleep(0.01)
    assert isinstance(found[0], Missing)
    assert (found[0].symbol, found[0].ranges) == (SYMBOL, [(101, 200)])
    assert isinstance(found[1], SessionEnd)
    assert await distributor.client.xlen(REF.commands) == 0, "it asks for them itself"


async def test_where_redis_was_wiped_the_new_chain_ends_the_rows(bench: Bench) -> None:
    distributor = await restored(bench)
    await distributor.client.flushall()
    distributor.n, distributor.id = 0, ""
    await distributor.trades(151, 160)
    await distributor.commit(tickers=[ticker(161)])
    bench.start(SHARD)
    await bench.until_stored()
    assert await bench.fetch(GAPS) == [
        ("Ticker", "closed", "restore", 100, 161, "{}"),
        ("Trades", "open", "restore", 101, 150, "{[101,151)}"),
        ("events", "closed", "restore", 4, None, "{}"),
    ]


async def test_another_chain_with_smaller_numbers_is_not_taken_for_the_same(bench: Bench) -> None:
    """Redis was wiped after the backup, and its new chain is not as far as the backup's position yet."""
    distributor = await restored(bench)
    await distributor.client.flushall()
    distributor.n, distributor.id = 0, ""
    await distributor.commit(tickers=[ticker(140)])
    await distributor.trades(151, 160)
    await distributor.client.xtrim(REF.events, minid=distributor.entries[-1], approximate=False)
    bench.start(SHARD)
    await bench.until_stored()
    found = await bench.fetch(GAPS)
    assert ("Trades", "open", "restore", 101, 150, "{[101,151)}") in found
    assert [row for row in found if row[0] == "events"] == [("events", "closed", "restore", 4, None, "{}")]


async def test_rows_that_were_open_are_taken_over(bench: Bench) -> None:
    """Their distributor closed one since, in commits that are gone."""
    gap = Gap(f"{REF}/{SYMBOL}/Trades/31", SYMBOL, "Trades", "disconnected", "open", 31, 40, [(31, 40)], 1, 2, "", 1, 2)
    distributor = bench.distributor()
    await distributor.commit(trades=[trade(n) for n in (*range(1, 31), *range(41, 51))], gaps=[gap])
    run = bench.start(SHARD)
    await bench.until_stored()
    await run.end()
    connection = await postgres.connect(bench.database_url, name="test")
    try:
        async with connection.transaction():
            await open_rows(connection, SHARD, RETENTION, "r1", now_ns(), now_ns())
    finally:
        connection.terminate()
    assert await bench.value("SELECT revision >= $1 FROM gaps WHERE from_seq = 31", RESTORED) is True
    await distributor.commit(trades=[trade(n, flags=LATE) for n in range(31, 41)])
    await distributor.client.xtrim(REF.events, minid=distributor.entries[-1], approximate=False)
    await distributor.client.xdel(REF.events, distributor.entries[-1])
    await distributor.trades(51, 60)
    bench.start(SHARD, repair_every=0.05)
    await bench.until_stored()
    async with asyncio.timeout(60):
        while len(found := await told(distributor)) < 2:
            await asyncio.sleep(0.01)
    assert found[0].ranges == [(31, 40)]
    # The distributor has it fetched again.
    await distributor.commit(trades=[trade(n, flags=LATE) for n in range(31, 41)])
    await bench.until_value("SELECT count(*) FROM gaps WHERE channel = 'Trades' AND state = 'open'", 0)
    assert await bench.value("SELECT count(*) FROM trades") == 60


async def test_a_shard_that_had_nothing_has_its_time_told(bench: Bench) -> None:
    connection = await postgres.connect(bench.database_url, name="test")
    try:
        async with connection.transaction():
            assert await open_rows(connection, SHARD, RETENTION, "r1", 1_000, 2_000) == 1
    finally:
        connection.terminate()
    assert await bench.fetch("SELECT channel, state, from_ns, to_ns FROM gaps") == [("events", "closed", 1_000, 2_000)]
    await bench.distributor().trades(1, 10)
    bench.start(SHARD)
    await bench.until_stored()
    assert await bench.value("SELECT count(*) FROM gaps") == 1
