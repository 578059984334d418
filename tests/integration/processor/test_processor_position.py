"""The position: moved with the rows or not at all, whoever dies, forgets or interferes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import OutOfMemoryError

from feedmill.processor import hints
from feedmill.processor.settings import ProcessorSettings
from feedmill.shared.events import Gap

from .conftest import REF, SYMBOL, Bench, Run, shard_settings, trade
from .proxy import Proxy

GAPS = "SELECT id, channel, cause, state, from_seq, to_seq, missing::text, instrument_id FROM gaps ORDER BY 1"


@pytest.fixture
async def proxy(bench: Bench) -> AsyncIterator[Proxy]:
    made = Proxy(bench.database_url)
    await made.start()
    yield made
    for run in bench.runs:
        run.stop.set()
    await asyncio.gather(*(run.task for run in bench.runs), return_exceptions=True)
    await made.close()


def run_through(bench: Bench, proxy: Proxy, statement_timeout: float = 60.0) -> Run:
    settings = ProcessorSettings(
        (shard_settings(),), lease_ttl=0.6, finish_every=3600.0, block_ms=200, statement_timeout=statement_timeout,
        drain_timeout=1.0, finish_timeout=0.5,
    )  # fmt: skip
    run = Run(settings, bench.redis.url, proxy.url)
    bench.runs.append(run)
    return run


@pytest.mark.parametrize("kind", ["one statement", "a transaction"])
async def test_an_answer_lost_between_commit_and_client(bench: Bench, proxy: Proxy, kind: str) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 50)
    run = run_through(bench, proxy)
    await bench.until_stored()
    # The commit is carried out by the server; its answer never comes.
    if kind == "one statement":
        proxy.swallow = b"the-last-one"
        await distributor.commit(trades=[trade(51), trade(52, venue_id="the-last-one")])
    else:
        proxy.swallow = b"COMMIT;"
        gap = Gap("g/1", "BTC-USDT", "Trades", "sequence", "open", 3, 6, [(3, 6)], 1, 2, "", 1, 3)
        await distributor.commit(trades=[trade(51), trade(52)], gaps=[gap])
    async with asyncio.timeout(60):
        await proxy.swallowed.wait()
    await distributor.trades(53, 60)
    await bench.until_stored()
    await bench.until(lambda: run.shard().n == distributor.n)
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == list(range(1, 61))
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 60
    assert (run.shard().duplicates, run.shard().rereads) == (0, 0)
    assert run.document()["postgres"]["reachable"] is True


async def test_sessions_killed_again_and_again(bench: Bench) -> None:
    distributor = bench.distributor()
    run = bench.start()
    admin = await bench.connection()
    for start in range(1, 501, 50):
        await distributor.trades(start, start + 49, size=5)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'feedmill processor%' AND datname = current_database()"
        )
    await bench.until_stored()
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(500, 500)]
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 500
    assert run.shard().rereads == 0


async def test_a_position_moved_by_somebody_else(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 50)
    run = bench.start()
    await bench.until_stored()
    # Another process stored the next commit: this one's batch is given up and the position read again.
    elsewhere = "UPDATE applied SET n = 7, commit_id = 'elsewhere', stream_id = $1 RETURNING 1"
    await bench.value(elsewhere, distributor.entries[-1])
    await distributor.trades(51, 60)
    await bench.until_stored()
    assert run.shard().rereads == 1
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(60, 60)]
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 60
    assert await bench.value("SELECT count(*) FROM gaps") == 0


async def test_two_that_both_believe_to_own_the_shard(bench: Bench) -> None:
    """Correctness does not hang on the lease: without any, two workers on one shard store everything once."""
    distributor = bench.distributor()
    one, two = bench.start(members_key="fm:{a}:m"), bench.start(members_key="fm:{b}:m")
    await bench.until(lambda: one.shard().working or two.shard().working)
    both = [*one.processor.seats, *two.processor.seats]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(seat.worker.run(stop)) for seat in both if not seat.figures.owned]
    for start in range(1, 1001, 100):
        await distributor.trades(start, start + 99, size=10)
    await bench.until_stored()
    stop.set()
    await asyncio.gather(*tasks)
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(1000, 1000)]
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 1000
    assert await bench.value("SELECT count(*) FROM gaps") == 0


async def test_commits_trimmed_before_they_were_read_are_a_gap(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 100, size=10)
    run = bench.start()
    await bench.until_stored()
    await run.end()
    await distributor.trades(101, 150, size=10)
    await distributor.client.xtrim(REF.events, minid=distributor.entries[13], approximate=False)
    later = bench.start()
    await bench.until_stored()
    assert later.shard().rereads == 1
    assert await bench.fetch("SELECT count(*) FROM trades") == [100 + 20]
    assert await bench.fetch(GAPS) == [
        (f"{REF}/{SYMBOL}/Trades/101", "Trades", "redis_lost", "open", 101, 130, "{[101,131)}", 1),
        (f"{REF}/events/11", "events", "redis_lost", "closed", 11, 13, "{[11,14)}", None),
    ]


async def test_a_stream_trimmed_before_the_first_start(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 100, size=10)
    await distributor.client.xtrim(REF.events, minid=distributor.entries[4], approximate=False)
    bench.start()
    await bench.until_stored()
    assert await bench.fetch(GAPS) == [(f"{REF}/events/1", "events", "redis_lost", "closed", 1, 4, "{[1,5)}", None)]
    assert await bench.value("SELECT count(*) FROM trades") == 60


async def test_a_server_that_forgot_what_was_stored(bench: Bench) -> None:
    """The tail is gone from Redis though stored; the distributor emits it again in other commits."""
    distributor = bench.distributor()
    await distributor.trades(1, 100, size=10)
    run = bench.start()
    await bench.until_stored()
    for entry in distributor.entries[6:]:
        await distributor.client.xdel(REF.events, entry)
    kept = (await distributor.client.xrevrange(REF.events, count=1))[0][1]
    distributor.n, distributor.id = int(kept[b"n"]), kept[b"id"].decode()
    await distributor.trades(61, 120, size=15)
    await bench.until_stored()
    assert run.shard().rereads == 1
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(120, 120)]
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 120
    assert await bench.value("SELECT count(*) FROM gaps") == 0
    assert await bench.value("SELECT n FROM applied") == distributor.n < 12


async def test_a_stream_that_was_forgotten_whole(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 100, size=10)
    run = bench.start()
    await bench.until_stored()
    await distributor.client.flushall()
    # With nothing read yet of the new stream, its end lies before the position: that alone is noticed.
    await bench.until(lambda: run.shard().rereads > 0)
    distributor.n, distributor.id = 0, ""
    await distributor.trades(91, 130, size=20)
    await bench.until_stored()
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(130, 130)]
    # That commits are gone is told; no number is missing.
    wanted = (f"{REF}/events/11", "events", "redis_lost", "closed", 11, None, "{}", None)
    assert await bench.fetch(GAPS) == [wanted]


async def test_the_hint_for_trimming_follows_the_position(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "ANSWER", 60.0)  # The last one is written once: a busy machine is no server away.
    distributor = bench.distributor()
    await distributor.trades(1, 100, size=10)
    run = bench.start(finish_timeout=60.0)

    async def hinted() -> bool:
        found = await distributor.client.hgetall(REF.applied)
        wanted = {b"n": b"%d" % distributor.n, b"id": distributor.id, b"stream": distributor.entries[-1]}
        return bool(found and found == {k: v if isinstance(v, bytes) else v.encode() for k, v in wanted.items()})

    await bench.until(hinted)
    await distributor.client.delete(REF.applied)
    await distributor.trades(101, 110)
    await bench.until(hinted)
    # What is stored at the very end is told too: the last read does not wait for anything to come.
    await distributor.trades(111, 120)
    await bench.until_stored()
    await run.end()
    assert await hinted()


async def test_a_full_server_still_takes_the_hint(bench: Bench) -> None:
    """It is what lets the distributor go on and empty the server."""
    distributor = bench.distributor()
    await distributor.trades(1, 100, size=10)
    await distributor.client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await distributor.client.hset("any", "key", "value")
    bench.start()

    async def hinted() -> bool:
        return bool(await distributor.client.hget(REF.applied, "stream") == distributor.entries[-1].encode())

    await bench.until(hinted)


async def test_it_ends_in_time_while_postgres_hangs(bench: Bench, proxy: Proxy) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 50)
    run = run_through(bench, proxy, statement_timeout=60.0)
    await bench.until_stored()
    proxy.hang()
    await distributor.trades(51, 100)
    await bench.until(lambda: run.shard().oldest_ms)
    async with asyncio.timeout(30):  # Half of what the statement would wait.
        await run.end()
    proxy.resume()
    bench.start()
    await bench.until_stored()
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(100, 100)]
