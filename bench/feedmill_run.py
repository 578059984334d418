"""Feedmill as it is run: the services as processes, started with ``feedmill run`` from a manifest."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import aiohttp
import asyncpg

from bench.frames import SYMBOLS
from bench.observe import Entry, Redis, event_trades, raw_frames
from bench.processes import BenchError, Child
from bench.stamps import BASE_ID
from bench.systems import Bed, System, last_trade, last_trade_native
from feedmill.shared.keys import ShardRef

SHARD = ShardRef("bench", "trades", 0)
READY_SECONDS = 60.0
MODES = ("Adaptive", "Latency", "Throughput")
MAX_AGE = {"Throughput": "30ms"}
"""``batching.maxAge`` a mode where it is not the default."""
STAGES = ("raw", "events", "rows", "processor")
"""How far a run goes: receiver; + distributor; + processor and maintenance; the same, but the processor starts when all
events wait for it."""


def manifest(port: int, mode: str, receiver: str = "", monitoring: str = "") -> str:
    """``receiver``: more fields of it; ``monitoring``: that of the pipeline."""
    age = f", maxAge: {MAX_AGE[mode]}" if mode in MAX_AGE else ""
    return f"""\
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main, namespace: {SHARD.namespace}}}
spec:
  redis: {{managed: {{}}}}
  postgres: {{managed: {{}}}}
  monitoring: {monitoring or "{}"}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: {SHARD.feed}, namespace: {SHARD.namespace}}}
spec:
  pipelineRef: {{name: main}}
  exchange:
    name: binance
    market: Spot
    endpoints: {{stream: "wss://127.0.0.1:{port}", rest: "https://127.0.0.1:{port}"}}
  instruments: {{symbols: [{", ".join(SYMBOLS)}]}}
  channels: [{{name: Trades}}]
  receiver:
    batching: {{mode: {mode}{age}}}
{receiver}"""


class Feedmill(System):
    """The services up to ``stage`` (raw, events, rows) with the receiver in ``mode``."""

    def __init__(
        self, stage: str, mode: str, receiver: str = "", *, monitoring: str = "", sources: Path | None = None
    ) -> None:
        """``receiver``, ``monitoring``: more fields of the manifest. ``sources``: the ``services/src`` of another
        checkout, whose services are run instead."""
        super().__init__()
        self.name = "feedmill"
        self.stage = stage
        self.mode = mode
        self._receiver = receiver
        self._monitoring = monitoring
        self._sources = sources
        self.observer = stage
        self.keys = (SHARD.raw if stage == "raw" else SHARD.events,)
        self.to_postgres = stage in ("rows", "processor")
        self.held_back = stage == "processor"
        self._redis: Redis | None = None
        self._postgres: asyncpg.Connection | None = None

    def _environment(self, bed: Bed) -> dict[str, str]:
        own = {} if self._sources is None else {"PYTHONPATH": str(self._sources)}
        return {"REDIS_URL": bed.stores.redis_url, "DATABASE_URL": bed.stores.database_url, **bed.trust, **own}

    async def start(self, bed: Bed) -> None:
        self._redis = Redis(bed.stores.redis_url)
        (bed.folder / "feed.yaml").write_text(manifest(bed.port, self.mode, self._receiver, self._monitoring))
        feed = ["--feed", f"{SHARD.namespace}/{SHARD.feed}", "--shard", "0"]
        pipeline = ["--pipeline", f"{SHARD.namespace}/main"]
        wanted: dict[str, list[str]] = {}
        if self.to_postgres:
            await self._migrate(bed)
            self._postgres = await asyncpg.connect(bed.stores.database_url)
            wanted["maintenance"] = pipeline
            if not self.held_back:
                wanted["processor"] = pipeline
        if self.stage != "raw":
            wanted["distributor"] = feed
        wanted["receiver"] = feed
        for role, arguments in wanted.items():
            self._run(role, arguments, bed)
        for role in wanted:
            await self._ready(role, bed.folder / f"{role}.port")

    async def add(self, role: str, arguments: list[str], bed: Bed) -> None:
        """One more service beside those of the stage."""
        self._run(role, arguments, bed)
        await self._ready(role, bed.folder / f"{role}.port")

    def _run(self, role: str, arguments: list[str], bed: Bed) -> None:
        port_file = bed.folder / f"{role}.port"
        port_file.unlink(missing_ok=True)
        self.children[role] = Child(
            role,
            [sys.executable, "-m", "feedmill.cli.main", "run", role, "--config", bed.folder / "feed.yaml", *arguments,
             "--port-file", port_file, "--log-level", "warning"],
            log=bed.folder / f"{role}.log",
            env=self._environment(bed),
            cwd=bed.folder,
        )  # fmt: skip

    async def release(self, bed: Bed) -> None:
        self.held_back = False
        self._run("processor", ["--pipeline", f"{SHARD.namespace}/main"], bed)

    async def progress(self) -> int:
        return (await self._newest_row(SYMBOLS[0]) - BASE_ID + 1) * len(SYMBOLS)

    async def _migrate(self, bed: Bed) -> None:
        with Child(
            "migrate", [sys.executable, "-m", "feedmill.cli.main", "migrate"],
            log=bed.folder / "migrate.log", env=self._environment(bed), cwd=bed.folder,
        ) as child:  # fmt: skip
            code = await asyncio.to_thread(child.process.wait, READY_SECONDS)
        if code != 0:
            raise BenchError(f"feedmill migrate ended with code {code}{child.tail()}")

    async def _ready(self, role: str, port_file: Path) -> None:
        """Until the service's own ``/readyz`` says so."""
        deadline = time.monotonic() + READY_SECONDS
        answer = "no port file yet"
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                self.check()
                if port_file.exists():
                    try:
                        async with session.get(f"http://127.0.0.1:{port_file.read_text().strip()}/readyz") as response:
                            answer = await response.text()
                            if response.status == 200:
                                return
                    except aiohttp.ClientError as error:
                        answer = str(error)
                await asyncio.sleep(0.05)
        raise BenchError(f"{role} was not ready within {READY_SECONDS:.0f} s: {answer}{self.children[role].tail()}")

    async def arrived(self, count: int) -> bool:
        if self._postgres is not None and not self.held_back:
            symbol, trade = last_trade(count)
            return await self._newest_row(symbol) >= trade
        return any(self._last_in(entry, count) for entry in self._newest())

    async def _newest_row(self, symbol: str) -> int:
        assert self._postgres is not None
        newest = await self._postgres.fetchval(
            "SELECT trade_id FROM trades WHERE instrument_id = (SELECT id FROM instruments WHERE symbol = $1)"
            " AND time >= current_date - 1 ORDER BY trade_id DESC LIMIT 1",
            symbol,
        )
        return BASE_ID - 1 if newest is None else int(newest)

    def _newest(self) -> list[Entry]:
        assert self._redis is not None
        entries: list[Entry] = self._redis.call("XREVRANGE", self.keys[0], "+", "-", "COUNT", 2)
        return entries

    def _last_in(self, entry: Entry, count: int) -> bool:
        if self.stage == "raw":
            return last_trade_native(count) in raw_frames(entry)
        return last_trade(count) in [(trade.symbol, trade.id) for trade in event_trades(entry)]

    async def counted(self) -> tuple[int, int]:
        """All trades and the different ones in the store, from the first entry or row to the last."""
        if self._postgres is not None:
            query = "SELECT count(*), count(DISTINCT (instrument_id, trade_id)) FROM trades WHERE trade_id >= $1"
            total, distinct = (await self._postgres.fetch(query, BASE_ID))[0]
            return int(total), int(distinct)
        assert self._redis is not None
        found: set[tuple[object, int]] = set()
        seen = 0
        at = "-"
        while entries := self._redis.call("XRANGE", self.keys[0], at, "+", "COUNT", 200):
            for entry in entries:
                trades: list[tuple[object, int]]
                if self.stage == "raw":
                    trades = list(raw_frames(entry))
                else:
                    trades = [(trade.symbol, trade.id) for trade in event_trades(entry)]
                seen += len(trades)
                found.update(trades)
            at = "(" + entries[-1][0].decode()
        return seen, len(found)

    async def stop(self) -> None:
        if self._postgres is not None:
            await self._postgres.close()
        await super().stop()
