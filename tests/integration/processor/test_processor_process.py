"""``feedmill run processor`` as a process: started by its command line, killed, stopped in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from feedmill.shared.keys import ShardRef

from .conftest import Bench, trade

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}, candles: {intervals: [1m, 5m]}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  receiver: {shards: 2}
  instruments: {symbols: [BTC-USDT, ETH-USDT]}
  channels: [{name: Trades}]
"""
REFS = [ShardRef("default", "spot", number) for number in range(2)]


class Process:
    """One processor process."""

    def __init__(self, process: asyncio.subprocess.Process, port_file: Path) -> None:
        self.process = process
        self.port_file = port_file

    def ask(self, path: str) -> tuple[int, str]:
        port = int(self.port_file.read_text())
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await asyncio.to_thread(self.ask, "/health"))[1])
        return found

    async def ready(self) -> bool:
        assert self.process.returncode is None
        return self.port_file.exists() and (await asyncio.to_thread(self.ask, "/readyz"))[0] == 200

    async def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


class Starter:
    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench = bench
        self._folder = folder
        self.started: list[Process] = []
        (folder / "feed.yaml").write_text(MANIFEST)

    async def __call__(self, replica: str = "r0") -> Process:
        port_file = self._folder / f"port-{len(self.started)}"
        environment = os.environ | {"REDIS_URL": self._bench.redis.url, "DATABASE_URL": self._bench.database_url}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "feedmill.cli.main", "run", "processor", "--config", "feed.yaml"),
            *("--pipeline", "default/main", "--replica", replica, "--port-file", str(port_file)),
            cwd=self._folder,
            env=environment,
        )
        self.started.append(Process(process, port_file))
        await self._bench.until(self.started[-1].ready)
        return self.started[-1]


@pytest.fixture
async def start(bench: Bench, tmp_path: Path) -> AsyncIterator[Starter]:
    starter = Starter(bench, tmp_path)
    yield starter
    for process in starter.started:
        await process.end(signal.SIGKILL)


async def test_a_process_stores_and_stops_in_order(bench: Bench, start: Starter) -> None:
    one = await start()
    for ref in REFS:
        await bench.distributor(ref).trades(1, 300, size=10, symbol=f"S{ref.shard}-USDT")
    for ref in REFS:
        await bench.until_stored(bench.distributor(ref))

    async def shown() -> bool:
        return all(shard["rows"] == 300 for shard in (await one.document())["shards"].values())

    await bench.until(shown)
    document = await one.document()
    assert document["service"] == "processor"
    assert set(document["shards"]) == {str(ref) for ref in REFS}
    assert document["latency"]["binance/Spot"]["exchangeToCommit"]["count"] == 600
    lines = (
        'feedmill_processor_rows_total{table="trades"} 600.0',
        "feedmill_processor_shards_owned 2.0",
        'feedmill_processor_lag_commits{shard="default.spot.0"} 0.0',
        'feedmill_processor_lag_seconds{shard="default.spot.1"} 0.0',
        'feedmill_processor_breaker_state{server="postgres"} 0.0',
    )

    async def told() -> bool:
        _, metrics = await asyncio.to_thread(one.ask, "/metrics")
        return all(f"\n{line}\n" in metrics for line in lines)

    await bench.until(told)
    # Before the end, which waits three seconds for the finisher: too short now and then for a busy machine.
    await bench.until_value("SELECT count(*) FROM candles WHERE interval = '5m'", 4)
    assert await one.end() == 0
    assert [await bench.distributor().client.exists(ref.lease("processor")) for ref in REFS] == [0, 0]


async def test_killed_again_and_again_and_started_again(bench: Bench, start: Starter) -> None:
    distributor = bench.distributor(REFS[0])

    async def load(first: int) -> None:
        for number in range(first, first + 300):
            await distributor.commit(trades=[trade(number)])
            await asyncio.sleep(0.002)

    for turn in range(3):
        one = await start()
        rows = await bench.value("SELECT count(*) FROM trades")
        # From now on: one load for all would be stored before the last has begun where the machine is slow.
        task = asyncio.create_task(load(turn * 300 + 1))

        async def more(seen: int = rows) -> bool:
            return bool(await bench.value("SELECT count(*) FROM trades") > seen)

        await bench.until(more)
        assert await one.end(signal.SIGKILL) == -signal.SIGKILL
        await task
    await start()
    await bench.until_stored(distributor)
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == list(range(1, 901))
    assert await bench.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 900


async def test_two_processes_share_and_one_takes_over(bench: Bench, start: Starter) -> None:
    one, two = await start("r0"), await start("r1")

    async def shared() -> bool:
        leases = [(await process.document())["leases"] for process in (one, two)]
        return [item["held"] for item in leases] == [1, 1]

    await bench.until(shared)
    for ref in REFS:
        await bench.distributor(ref).trades(1, 100)
    assert await one.end() == 0

    async def alone() -> bool:
        leases = (await two.document())["leases"]
        return bool(leases["held"] == 2 and leases["replicasAlive"] == 1)

    await bench.until(alone)
    for ref in REFS:
        await bench.distributor(ref).trades(101, 150)
        await bench.until_stored(bench.distributor(ref))
    assert await two.end() == 0
