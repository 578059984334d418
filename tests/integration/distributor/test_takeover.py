"""Real processes of ``feedmill run distributor`` on one shard: one works, another takes over when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from .stage import SHARD, Stage

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {storage: 1Gi, memory: 256Mi}}
  postgres: {managed: {storage: 1Gi}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT]}
  channels: [{name: Trades}]
"""


async def _process(stage: Stage, manifest: Path) -> asyncio.subprocess.Process:
    environment = os.environ | {"REDIS_URL": stage.server.url, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    arguments = ["run", "distributor", "-c", str(manifest), "--feed", "default/spot", "--shard", "0"]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feedmill.cli.main", *arguments, env=environment, stderr=asyncio.subprocess.DEVNULL
    )


async def test_the_other_takes_over_after_sigkill_and_an_orderly_end(stage: Stage, tmp_path: Path) -> None:
    manifest = tmp_path / "feed.yaml"
    manifest.write_text(MANIFEST)
    producer = stage.producer()
    await producer.begin()
    processes = [await _process(stage, manifest) for _ in range(2)]
    try:
        await producer.trades(1, 500)
        await stage.until_trades(500)
        connected = await stage.client.client_list()
        first = await _holder(stage, processes, connected)
        first.send_signal(signal.SIGKILL)
        await producer.trades(501, 1000)
        await first.wait()
        events = await stage.until_trades(1000)
        events.assert_chain()
        assert events.trades == list(range(1, 1001))
        (second,) = [process for process in processes if process is not first]
        third = await _process(stage, manifest)
        processes.append(third)
        await producer.trades(1001, 1100)
        second.send_signal(signal.SIGTERM)
        assert await second.wait() == 0
        await producer.trades(1101, 1500)
        events = await stage.until_trades(1500)
        events.assert_chain()
        assert events.trades == list(range(1, 1501))
        third.send_signal(signal.SIGTERM)
        assert await third.wait() == 0
        assert await stage.client.get(SHARD.lease("distributor")) is None
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _holder(
    stage: Stage, processes: list[asyncio.subprocess.Process], connected: list[dict[str, str]]
) -> asyncio.subprocess.Process:
    """The process that owns the commit connection."""
    (commit,) = [client for client in connected if client["name"].endswith("-commit")]
    port = int(commit["addr"].rpartition(":")[2])
    for process in processes:
        ports = {at.laddr.port for at in psutil.Process(process.pid).net_connections("tcp") if at.laddr}
        if port in ports:
            return process
    raise AssertionError("no process holds the commit connection")
