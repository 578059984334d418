"""How fast one shard's processor stores trades, and what a row costs.

    PYTHONPATH=services/src python -m bench.hot_processor [--rows 300000] [--seconds 10] [--rate 3000]

Real Valkey and PostgreSQL (fsync on) on this machine. Two runs: a full stream blasted through, and entries appended at
a paced rate while the processor follows. CPU is per stored row: ours (this process, without the filling) and that of
the PostgreSQL backends of the shard.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import multiprocessing
import os
import pstats
import random
import resource
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import asyncpg
import structlog
import uvloop

from feedmill.cli.migrate import upgrade
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.processor.finisher import CandleFinisher
from feedmill.processor.measures import Figures
from feedmill.processor.settings import LINGER, ProcessorSettings, ShardSettings, VenueRules
from feedmill.processor.shard import ShardWorker
from feedmill.resources.types import BatchingMode
from feedmill.shared.breaker import Breaker
from feedmill.shared.events import EventBlock, Trade, encode
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, connect

SYMBOLS = 10
State = tuple[int, str, list[int]]
"""(last commit's number, its id, last trade id by symbol)."""


class Filler:
    """Appends commits of trades with dense ids to a shard's events stream."""

    def __init__(self, wire: Wire, ref: ShardRef) -> None:
        self.wire = wire
        self.ref = ref
        self.n = 0
        self.commit = ""
        self.rows = 0
        self.ids = [1_000_000_000] * SYMBOLS
        self.random = random.Random(7)

    def _trade(self) -> Trade:
        which = self.rows % SYMBOLS
        self.rows += 1
        self.ids[which] += 1
        now = time.time_ns()
        price = f"{60000 + self.random.random() * 100:.2f}"
        return Trade(f"SYM{which}-USDT", self.ids[which], price, f"{self.random.random():.5f}", 1, now - 2_000_000, now)

    async def append(self, trades: int) -> None:
        self.n += 1
        before, self.commit = self.commit, f"{self.n:016x}"
        block = encode(EventBlock(trades=[self._trade() for _ in range(trades)]))
        await self.wire.call("XADD", self.ref.events, "*", "n", self.n, "id", self.commit, "p", before, "e", block)


@dataclass(frozen=True)
class Work:
    """What the filling process does."""

    redis_url: str
    ref: ShardRef
    state: State
    rows: int
    size: int
    """Trades of one commit."""
    rate: int
    """Rows a second; 0 = as fast as it goes."""


async def _fill(work: Work) -> State:
    filler = Filler(await connect(RedisUrl.parse(work.redis_url), name="bench"), work.ref)
    filler.n, filler.commit, filler.ids = work.state
    started = time.perf_counter()
    while filler.rows < work.rows:
        await filler.append(work.size)
        if work.rate:
            await asyncio.sleep(max(0.0, filler.rows / work.rate - (time.perf_counter() - started)))
    filler.wire.abort()
    return filler.n, filler.commit, filler.ids


def fill(pipe: Connection, work: Work) -> None:
    """In a process of its own, so that the CPU measured is the processor's alone."""
    pipe.send(uvloop.run(_fill(work)))


def backend_cpu(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


async def backends(admin: asyncpg.Connection) -> list[int]:
    rows = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'feedmill processor%'")
    return [row["pid"] for row in rows]


async def run(arguments: argparse.Namespace, redis_url: str, database_url: str) -> None:
    await upgrade(database_url)
    ref = ShardRef("bench", "trades", 0)
    state: State = (0, "", [1_000_000_000] * SYMBOLS)
    paced = int(arguments.rate * arguments.seconds)
    for mode in arguments.modes:
        shard = ShardSettings(ref, "binance", "Spot", VenueRules(True), linger=LINGER[BatchingMode(mode)])
        for name, rows, size, rate in (
            ("blasted", arguments.rows, arguments.commit, 0),
            (f"{arguments.rate}/s", paced, max(1, arguments.rate // 100), arguments.rate),
        ):
            work = Work(redis_url, ref, state, rows, size, rate)
            state = await measure(f"{mode}, {name}", shard, database_url, work)


async def measure(name: str, shard: ShardSettings, database_url: str, work: Work) -> State:
    log = structlog.get_logger()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=fill, args=(theirs, work))
    process.start()
    if not work.rate:
        await asyncio.to_thread(process.join)
    settings = ProcessorSettings(())
    figures, database = Figures(), Breaker("postgres")
    finisher = CandleFinisher(database_url, settings.intervals, database=database, every=2.0, timeout=30, log=log)
    worker = ShardWorker(
        settings, shard, RedisUrl.parse(work.redis_url), database_url,
        redis=Breaker("redis"), database=database, figures=figures, finisher=finisher, log=log,
    )  # fmt: skip
    stop = asyncio.Event()
    tasks = [asyncio.create_task(worker.run(stop)), asyncio.create_task(finisher.run(stop))]
    seen = figures.of(str(shard.ref))
    admin = await asyncpg.connect(database_url)
    while not seen.rows and not any(task.done() for task in tasks):
        await asyncio.sleep(0.001)
    pids = await backends(admin)
    first, commits = seen.rows, seen.commits
    started, cpu, backend = time.perf_counter(), time.process_time(), backend_cpu(pids)
    while seen.rows < work.rows and not any(task.done() for task in tasks):
        await asyncio.sleep(0.02)
    seconds, stored, commits = time.perf_counter() - started, seen.rows - first, seen.commits - commits
    used, backend = time.process_time() - cpu, backend_cpu(pids) - backend
    stop.set()
    await asyncio.gather(*tasks)
    process.join()
    await admin.close()
    shown = figures.latencies.document()[shard.venue]["receiveToCommit"]
    latency = f", receive->commit p50 {shown['p50Ms']} ms p99 {shown['p99Ms']} ms" if work.rate else ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name}: {stored / seconds:,.0f} rows/s, {stored / max(1, commits):,.0f} rows a commit, client"
        f" {1e6 * used / max(1, stored):.2f} us/row, backend {1e6 * backend / max(1, stored):.2f} us/row{latency},"
        f" peak {peak:.0f} MiB",
        flush=True,
    )
    result: State = ours.recv()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000, help="rows blasted")
    parser.add_argument("--commit", type=int, default=200, help="trades of one commit when blasted")
    parser.add_argument("--rate", type=int, default=3000, help="rows a second when paced")
    parser.add_argument("--seconds", type=float, default=10, help="length of the paced run")
    parser.add_argument("--modes", nargs="+", default=["Adaptive"], choices=[mode.value for mode in BatchingMode])
    parser.add_argument("--profile", action="store_true", help="print where our CPU goes (slows it down)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-") as folder:
        redis, postgres = EmbeddedRedis(Path(folder) / "redis"), EmbeddedPostgres(Path(folder) / "postgres")
        redis.start()
        postgres.start()
        try:
            if arguments.profile:
                profile = cProfile.Profile()
                profile.runcall(uvloop.run, run(arguments, redis.url, postgres.url))
                pstats.Stats(profile).sort_stats("tottime").print_stats(35)
            else:
                uvloop.run(run(arguments, redis.url, postgres.url))
        finally:
            postgres.stop()
            redis.stop()


if __name__ == "__main__":
    main()
