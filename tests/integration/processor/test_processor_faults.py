"""Several processors, and servers that go away under load: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.processor.measures import Meter
from feedmill.processor.shard import ShardWorker
from feedmill.shared.events import EventBlock, encode
from feedmill.shared.keys import ShardRef

from .conftest import REF, Bench, Distributor, Run, shard_settings, trade

REFS = [ShardRef("test", "spot", number) for number in range(4)]


def owned(run: Run) -> set[str]:
    return {str(seat.shard.ref) for seat in run.processor.seats if seat.figures.working}


async def feed(
    distributor: Distributor, first: int, last: int, pause: float = 0.002, *, over: asyncio.Event | None = None
) -> None:
    """Commit trade by trade as the real one does: one not answered is looked up, and made again if it is not there.

    ``over``: go on after ``last`` until it is set.
    """
    for number in itertools.count(first):
        if number > last and (over is None or over.is_set()):
            return
        before, n = distributor.id, distributor.n + 1
        commit_id = f"{n:016x}"
        payload = encode(EventBlock(trades=[trade(number)]))
        while True:
            try:
                tip = await distributor.client.xrevrange(distributor.ref.events, count=1)
                if not tip or tip[0][1][b"id"].decode() != commit_id:
                    fields: Any = {"n": n, "id": commit_id, "p": before, "e": payload}
                    await distributor.client.xadd(distributor.ref.events, fields)
                break
            except (RedisError, OSError):
                await asyncio.sleep(0.02)
        distributor.n, distributor.id = n, commit_id
        await asyncio.sleep(pause)


async def check(bench: Bench, last: int) -> None:
    await bench.until_stored()
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == list(range(1, last + 1))
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == last
    assert await bench.value("SELECT count(*) FROM gaps") == 0
    assert await bench.value("SELECT count(*) FROM dead_letters") == 0


async def test_shards_are_shared_and_taken_over(bench: Bench) -> None:
    shards = [shard_settings(ref) for ref in REFS]
    first = bench.start(*shards, replica="r0")
    await bench.until(lambda: len(owned(first)) == 4)
    second = bench.start(*shards, replica="r1")
    # Where the machine was busy for longer than a lease, one that lost a shard works on it for a moment still.
    await bench.until(lambda: len(owned(first)) == len(owned(second)) == 2 and not owned(first) & owned(second))
    for ref in REFS:
        await bench.distributor(ref).trades(1, 50, symbol=f"S{ref.shard}-USDT")
    for ref in REFS:
        await bench.until_stored(bench.distributor(ref))
    assert await bench.value("SELECT count(*) FROM trades") == 200

    def shared() -> bool:
        leases = second.document()["leases"]
        counts = (leases["replicasAlive"], leases["allowed"], leases["held"])
        return counts == (2, 2, 2) and set(leases["holders"].values()) == {"r0", "r1"}

    await bench.until(shared)
    await first.kill()
    for ref in REFS:
        await bench.distributor(ref).trades(51, 80, symbol=f"S{ref.shard}-USDT")
    for ref in REFS:
        await bench.until_stored(bench.distributor(ref))
    await bench.until(lambda: len(owned(second)) == 4)
    assert await bench.fetch("SELECT count(*), count(DISTINCT (instrument_id, trade_id)) FROM trades") == [(320, 320)]
    third = bench.start(*shards, replica="r2")
    await bench.until(lambda: len(owned(third)) == 2)
    await second.end()  # An orderly end gives its shards over at once.
    await bench.until(lambda: len(owned(third)) == 4)


async def test_postgres_restarted_under_load(bench: Bench) -> None:
    run = bench.start()
    # First: a load that was stored at once when it began to work leaves nothing by which it would see the server go.
    await bench.until(lambda: run.shard().working)
    distributor = bench.distributor()
    for end in (bench.postgres.stop, bench.postgres.kill):
        stored, first, over = run.shard().rows, distributor.n + 1, asyncio.Event()
        load = asyncio.create_task(feed(distributor, first, first + 299, over=over))
        await bench.until(lambda seen=stored: run.shard().rows > seen + 50)
        await asyncio.to_thread(end)
        await bench.until(lambda: run.document()["postgres"]["reachable"] is False)
        over.set()  # Not before: what is stored before the server is gone leaves nothing by which that is seen.
        await bench.until(lambda: not run.document()["ready"])
        assert "not connected" in run.document()["waitingFor"]["shards"]
        await asyncio.to_thread(bench.postgres.start)
        await bench.until(lambda: run.document()["ready"])
        await load
    await check(bench, distributor.n)
    assert run.shard().rereads == 0


async def test_redis_restarted_under_load(bench: Bench) -> None:
    run = bench.start()
    for first, end in ((1, bench.redis.stop), (301, bench.redis.kill)):
        stored = run.shard().rows
        load = asyncio.create_task(feed(bench.distributor(), first, first + 299))
        await bench.until(lambda seen=stored: run.shard().rows > seen + 50)
        await asyncio.to_thread(end)
        await bench.until(lambda: run.document()["redis"]["reachable"] is False)
        await asyncio.to_thread(bench.redis.start)
        await bench.until(lambda: run.document()["ready"])
        await load
    await check(bench, 600)


async def test_processors_killed_again_and_again_under_load(bench: Bench) -> None:
    for number in range(4):
        # A load for each: one for all would be at its end before the last is killed where the machine is slow.
        load = asyncio.create_task(feed(bench.distributor(), number * 150 + 1, number * 150 + 150))
        run = bench.start(replica=f"r{number}")
        await bench.until(lambda seen=run: seen.shard().rows > 30)
        await run.kill()
        await load
    bench.start(replica="last")
    await check(bench, 600)


async def test_a_lag_is_seen_to_grow_while_postgres_is_away(bench: Bench) -> None:
    run = bench.start()
    distributor = bench.distributor()
    await distributor.trades(1, 10)
    await bench.until_stored()
    await bench.until(lambda: run.document()["lag"] == {"commits": 0, "seconds": 0.0})
    load = asyncio.create_task(feed(distributor, 11, 200))
    await bench.until(lambda: run.shard().rows > 50)
    await asyncio.to_thread(bench.postgres.stop)
    await load
    # One that surely comes while it is away: where nothing comes nobody asks PostgreSQL.
    await distributor.trades(201, 201)
    await bench.until(lambda: run.document()["lag"]["commits"] is None)
    shown = run.document()["shards"][str(REF)]["lagSeconds"]
    # None: all that was read had been stored; never 0. (What is shown may be: of one that came this very millisecond.)
    assert run.shard().oldest_ms != 0
    if shown is not None:
        await bench.until(lambda: run.document()["shards"][str(REF)]["lagSeconds"] > shown)
    await asyncio.to_thread(bench.postgres.start)
    await check(bench, 201)
    await bench.until(lambda: run.document()["lag"] == {"commits": 0, "seconds": 0.0})


async def test_it_ends_in_time_while_redis_hangs(bench: Bench) -> None:
    run = bench.start()
    await bench.distributor().trades(1, 20)
    await bench.until_stored()
    pid = bench.redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            await run.end()
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def far_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """One that is not started."""
    server = EmbeddedRedis(tmp_path / "far")
    server.start()
    server.stop()
    yield server
    server.stop()


async def test_it_waits_for_servers_that_are_not_there_yet(
    far_redis: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str
) -> None:
    from feedmill.cli.migrate import upgrade

    bench = Bench(far_redis, postgres_server, database_url)
    try:
        run = bench.start(statement_timeout=2.0)
        await bench.until(lambda: run.document()["redis"]["reachable"] is False)
        assert run.document()["ready"] is False
        # The first error may be that a busy machine did not get to connect in time.
        refused = "Redis did not answer yet (ConnectionRefusedError"
        await bench.until(lambda: run.document()["waitingFor"]["shards"].startswith(refused))
        await asyncio.to_thread(far_redis.start)
        await bench.until(lambda: "run feedmill migrate" in run.document()["waitingFor"].get("shards", ""))
        await upgrade(database_url)
        await bench.distributor().trades(1, 20)
        await bench.until(lambda: run.document()["ready"])
        await bench.until_stored()
    finally:
        await bench.close()


async def test_a_fault_of_the_code_costs_the_other_shards_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    run_as_it_is = ShardWorker.run

    async def run_or_fail(self: ShardWorker, stop: asyncio.Event) -> None:
        if broken and self.shard.ref == REFS[0]:
            raise KeyError("a fault")
        await run_as_it_is(self, stop)

    monkeypatch.setattr(ShardWorker, "run", run_or_fail)
    run = bench.start(*(shard_settings(ref) for ref in REFS[:2]))
    for ref in REFS[:2]:
        await bench.distributor(ref).trades(1, 20)
    await bench.until_stored(bench.distributor(REFS[1]))
    await bench.until(lambda: "a fault" in run.document()["waitingFor"].get("shards", ""))
    broken = False
    await bench.until_stored(bench.distributor(REFS[0]))
    await bench.until(lambda: run.document()["ready"])


async def test_a_standby_is_ready_and_says_who_works(bench: Bench) -> None:
    # A lease that does not run out while the machine is busy: the other one would have it, and keep it.
    first = bench.start(replica="r0", lease_ttl=10.0)
    await bench.until(lambda: first.document()["ready"])
    second = bench.start(replica="r1", lease_ttl=10.0)
    await bench.until(lambda: second.document()["ready"])
    await bench.until(lambda: second.document()["leases"]["holders"] == {str(REF): "r0"})
    document = second.document()
    assert document["shards"][str(REF)]["owned"] is False
    assert document["shards"][str(REF)]["lagSeconds"] is None
    assert document["redis"] == {"reachable": True, "lastError": ""}
    assert document["postgres"]["reachable"] is None


async def test_the_health_document_has_what_the_live_view_reads(bench: Bench) -> None:
    run = bench.start()
    await bench.distributor().trades(1, 20)
    await bench.until_stored()
    await bench.until(lambda: run.shard().rows == 20)
    document = run.document()
    shard = document["shards"][str(REF)]
    assert (shard["owned"], shard["working"], shard["rows"], shard["lagSeconds"]) == (True, True, 20, 0.0)
    stretches = document["latency"]["binance/Spot"]
    assert stretches["exchangeToCommit"]["count"] == stretches["receiveToCommit"]["count"] == 20
    assert stretches["exchangeToCommit"]["p50Ms"] > 0
    assert document["breaker"]["postgres"]["state"] == document["breaker"]["redis"]["state"] == "closed"


async def test_without_any_shard_it_just_waits(bench: Bench) -> None:
    from feedmill.processor.settings import ProcessorSettings

    run = Run(ProcessorSettings(()), bench.redis.url, bench.database_url)
    assert run.document()["ready"] is True
    await run.end()


async def test_many_shards_behind_share_the_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedmill.processor.shard.LEAST_ROWS", 50)
    refs = [ShardRef("test", "many", number) for number in range(8)]
    run = bench.start(*(shard_settings(ref) for ref in refs), max_rows=400)
    await bench.until(lambda: len(owned(run)) == 8)
    sizes: list[int] = []
    count = Meter.committed
    monkeypatch.setattr(Meter, "committed", lambda *given: (sizes.append(len(given[1].rows)), count(*given)))
    await asyncio.gather(
        *(bench.distributor(ref).trades(1, 1500, size=30, symbol=f"S{ref.shard}-USDT") for ref in refs)
    )
    await bench.until_value("SELECT count(*) FROM trades", 8 * 1500)
    await bench.until(lambda: sum(sizes) == 8 * 1500)
    assert max(sizes) < 200 + 30  # Half of what one alone may gather, and the commit that filled it.
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 8 * 1500
