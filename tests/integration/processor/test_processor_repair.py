"""Trades of lost commits are asked for: only while they are missing, a page at a time, a few times."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from feedmill.processor import measures, repair
from feedmill.shared.control import Command, decode_command
from feedmill.shared.events import Flag

from .conftest import REF, SYMBOL, Bench, Distributor, shard_settings, trade

SHARD = shard_settings(trades_page=10)


async def asked(distributor: Distributor) -> list[Command]:
    return [decode_command(fields[b"c"]) for _, fields in await distributor.client.xrange(REF.commands)]


async def lose(bench: Bench, distributor: Distributor) -> Any:
    """Trades 101 to 125 are lost with the server."""
    await distributor.trades(1, 100, size=50)
    run = bench.start(SHARD, repair_every=0.05)
    await bench.until_stored()
    assert await asked(distributor) == []
    await run.end()
    await distributor.client.flushall()
    distributor.n, distributor.id = 0, ""
    await distributor.trades(126, 130)
    return bench.start(SHARD, repair_every=0.05)


async def until_asked(distributor: Distributor, count: int) -> list[Command]:
    async with asyncio.timeout(60):
        while len(found := await asked(distributor)) < count:
            await asyncio.sleep(0.01)
    return found


async def test_a_page_at_a_time_until_nothing_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "WAIT", 1.0)
    distributor = bench.distributor()
    await lose(bench, distributor)
    command, *again = await until_asked(distributor, 1)
    assert (command.kind, command.symbol, command.channel) == ("trades", SYMBOL, "Trades")
    # More than once where what comes takes longer than WAIT, and still this page only.
    assert {(each.from_id, each.to_id) for each in (command, *again)} == {(101, 110)}
    late = int(Flag.LATE | Flag.BACKFILL)
    await distributor.commit(trades=[trade(n, flags=late) for n in range(101, 111)])
    async with asyncio.timeout(60):
        while (command := (await asked(distributor))[-1]).from_id == 101:
            await asyncio.sleep(0.01)
    assert (command.from_id, command.to_id) == (111, 120)
    await distributor.commit(trades=[trade(n, flags=late) for n in range(111, 126)])
    await bench.until_value("SELECT count(*) FROM gaps WHERE channel = 'Trades' AND state = 'open'", 0)
    assert await bench.value("SELECT count(*) FROM trades") == 130


async def test_what_does_not_come_is_asked_for_a_few_times(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "WAIT", 0.02)
    distributor = bench.distributor()
    counted = measures.given_up._value.get()
    run = await lose(bench, distributor)
    found = await until_asked(distributor, repair.ATTEMPTS)
    assert {(command.from_id, command.to_id) for command in found} == {(101, 110)}
    before = run.processor.repairer
    await bench.until(lambda: all(row.times == repair.ATTEMPTS for row in before._asked.values()))
    await asyncio.sleep(20 * 0.05)
    assert len(await asked(distributor)) == repair.ATTEMPTS
    assert measures.given_up._value.get() == counted + 1
    assert await bench.value("SELECT count(*) FROM gaps WHERE channel = 'Trades' AND state = 'open'") == 1
