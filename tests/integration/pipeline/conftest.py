"""The whole pipeline as real processes: simulated exchanges, Redis, PostgreSQL, services; judged by the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.local.manager import ServiceManager, redis_pool
from feedmill.local.notices import is_flowing
from feedmill.local.positions import Positions, PositionsAway, ShardPosition
from feedmill.local.process import ServiceProcess
from feedmill.local.servers import LocalServers
from feedmill.plan import plan
from feedmill.resources.load import load_files
from feedmill.simulator.report import Report, VenueReport
from feedmill.simulator.verify import verify

SYMBOLS = {
    "binance/Spot": ("BTC-USDT", "ETH-USDT", "SOL-USDT"),
    "binance/UsdM": ("BTC-USDT", "ETH-USDT"),
    "deribit/Derivatives": ("BTC-PERPETUAL", "ETH-PERPETUAL"),
}
CHANNELS = ("Trades", "Book", "Ticker", "Candles")

# Short waits where a user has long ones: the tests are about what happens, not about how long it takes.
_PIPELINE = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {storage: 2Gi, memory: 1Gi}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  postgres: {managed: {storage: 20Gi}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
"""
_FEED = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange:
    name: {exchange}
    market: {market}
    endpoints: {{stream: "{stream}", rest: "{rest}"}}
  instruments: {{symbols: [{symbols}]}}
  channels: [{channels}]
  receiver: {{replicas: {replicas}, reconnect: {{maxBackoff: {backoff}{lifetime}}}}}
  distributor: {{gapGrace: {grace}, imageInterval: 2s}}
"""
_CHANNEL = {"Book": "{name: Book, depth: 20, sampleInterval: 1s}", "Candles": "{name: Candles, interval: 1m}"}


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout: float = 240.0) -> Any:
    """Wait until ``condition`` holds; gives its value."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)


@dataclass
class Bed:
    """What runs. Services are named by their role and, where there are several, by the venue they work for."""

    folder: Path
    simulation: Simulation
    manager: ServiceManager
    positions: Positions
    database_url: str
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres
    http: aiohttp.ClientSession
    make_manager: Callable[[], ServiceManager]
    names: dict[str, str]
    """Venue -> name of its feed."""

    # what the exchanges do
    async def stats(self) -> dict[str, dict[str, Any]]:
        """Counts of every exchange; one that was too busy to answer is asked again."""

        async def all_there() -> dict[str, Any] | None:
            found = await self.simulation.stats()
            return None if None in found.values() else found

        found: dict[str, dict[str, Any]] = await until(all_there)
        return found

    async def emitted(self) -> int:
        return sum(map(emitted, (await self.stats()).values()))

    async def until_emitted(self, more: int, timeout: float = 120.0) -> None:
        """Until the exchanges have sent this many more messages."""
        goal = await self.emitted() + more

        async def reached() -> bool:
            return await self.emitted() >= goal

        await until(reached, timeout)

    async def fault(self, venue: str, **fields: Any) -> int:
        """Returns how many topics or connections it hit at once."""
        async with self.http.post(f"{self.simulation.endpoints[venue].rest}/_sim/fault", json=fields) as answer:
            document = await answer.json()
            assert answer.status == 200, document
            hit = document["hit"]
            assert isinstance(hit, int)
            return hit

    async def connects(self, venue: str) -> int:
        """Connections the exchange has accepted so far."""
        accepted = (await self.stats())[venue]["connects"]["accepted"]
        assert isinstance(accepted, int)
        return accepted

    async def until_connected(self, venue: str, before: int) -> None:
        """Until the exchange has accepted more than ``before`` connections and the feed flows."""

        async def again() -> bool:
            return await self.connects(venue) > before

        await until(again)
        await self.until_flowing()

    async def faults_done(self, venue: str, count: int) -> None:
        """Until the exchange has written this many faults into its ledger's counts."""

        async def done() -> bool:
            return sum((await self.stats())[venue]["faults"].values()) >= count

        await until(done)

    def fault_rows(self, venue: str) -> list[list[str]]:
        """(ns, kind, symbol, channel, detail) of each fault."""
        path = self.folder / "ledger" / f"{venue.replace('/', '-')}.faults.tsv"
        whole = path.read_text("utf-8").rpartition("\n")[0]  # The last line may be half written.
        return [line.split("\t") for line in whole.splitlines()]

    # what the services do
    def service(self, role: str, venue: str = "") -> ServiceProcess:
        wanted = [
            item
            for item in self.manager.status().services
            if item.role == role and (not venue or not item.feed or item.feed == f"default/{self.names[venue]}")
        ]
        assert len(wanted) == 1, f"{role} of {venue or 'all'}: {[item.name for item in wanted]}"
        return self.manager.service(wanted[0].name)

    async def health(self, role: str) -> list[dict[str, Any] | None]:
        """Health documents of all services of a role, as they say it now; None of one that does not answer."""
        names = [item.name for item in self.manager.status().services if item.role == role]
        ports = [port for name in names if (port := self.manager.service(name).port) is not None]
        found = await self.manager.prober.health(ports)
        return [found[port] for port in ports] + [None] * (len(names) - len(ports))

    async def flowing(self) -> bool:
        """Every connection of every receiver is open and subscribed to all it should be."""
        sections: list[dict[str, Any]] = []
        for document in await self.health("receiver"):
            if document is None or not document.get("connections"):
                return False
            sections += document["connections"].values()
        return all(is_flowing(item) and item.get("active") == item["topics"] for item in sections)

    async def until_flowing(self, timeout: float = 120.0) -> None:
        try:
            await until(self.flowing, timeout)
        except TimeoutError:
            pytest.fail(f"not all feeds flow: {await self.health('receiver')}\n{self.trouble()}")

    async def kill(self, role: str, venue: str = "") -> None:
        """SIGKILL one service; returns when its supervisor has started the next one."""
        service = self.service(role, venue)
        before = await until(lambda: service.pid)
        os.kill(before, signal.SIGKILL)
        await until(lambda: service.pid not in (None, before), timeout=60.0)

    async def restart(self) -> None:
        """Start the services again after ``manager.stop``."""
        self.manager = self.make_manager()
        await self.manager.start()
        await self.until_flowing()

    # judgement
    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def until_drained(self, stall: float = 90.0, timeout: float = 600.0) -> None:
        """Until everything captured has been stored. A slow machine may have much to catch up with: it is given up
        when nothing moves for ``stall`` seconds."""
        found: list[ShardPosition] = []
        moved = time.monotonic()

        async def drained() -> bool:
            nonlocal found, moved
            try:
                before, found = found, await self.positions.read()
            except PositionsAway:
                before = found
            if found != before:
                moved = time.monotonic()
            elif time.monotonic() - moved > stall:
                raise TimeoutError
            return bool(found) and all(item.captured and item.raw_drained and item.events_drained for item in found)

        try:
            await until(drained, timeout)
        except TimeoutError:
            pytest.fail("not drained: " + "\n".join(map(str, found)) + "\n" + self.trouble())

    async def settled(self, timeout: float = 90.0) -> Report:
        """End the flow and compare, until all is well or the time is up (holes are declared after a grace)."""
        await self.simulation.end_of_flow()
        await self.until_drained()
        report = await self.compare()
        try:
            async with asyncio.timeout(timeout):
                while not report.ok:
                    await asyncio.sleep(0.3)
                    report = await self.compare()
        except TimeoutError:
            await self.until_drained()
            report = await self.compare()
        return report

    async def repaired(self, timeout: float = 180.0) -> Report:
        """End the flow and compare, once every gap of trades is closed."""
        await self.settled()

        async def closed() -> bool:
            return not await self.rows("SELECT 1 FROM gaps WHERE channel = 'Trades' AND state = 'open'")

        try:
            await until(closed, timeout)
        except TimeoutError:
            found = await self.rows("SELECT id, cause, missing FROM gaps WHERE channel = 'Trades' AND state = 'open'")
            pytest.fail(f"not repaired: {found}\n{self.trouble()}")
        await self.until_drained()
        return await self.settled()

    async def compare(self) -> Report:
        return await verify(self.folder / "ledger", self.database_url)

    def explain(self, report: Report) -> str:
        """For an assertion's message."""
        lines = [f"{venue.venue}: {venue}" for venue in report.venues]
        return "\n".join([*lines, f"files in {self.folder}", self.trouble()])

    def trouble(self) -> str:
        """Warnings and errors of the services, the last of each."""
        lines: list[str] = []
        for path in sorted((self.folder / "logs").glob("*.log")):
            found = [line for line in path.read_text("utf-8", "replace").splitlines() if _is_trouble(line)]
            lines += [f"{path.stem}: {line[:600]}" for line in found[-6:]]
        return "\n".join(lines)

    @staticmethod
    def of(report: Report, venue: str) -> VenueReport:
        return next(item for item in report.venues if item.venue == venue)


def _is_trouble(line: str) -> bool:
    try:
        return json.loads(line).get("level") in ("warning", "error", "critical")
    except (ValueError, AttributeError):
        return True


def manifest(
    simulation: Simulation,
    venues: Sequence[str],
    channels: Sequence[str] = CHANNELS,
    backoff: str = "2s",
    lifetime: str = "",
    replicas: int = 1,
    grace: str = "1s",
    monitoring: str = "",
) -> str:
    """A pipeline and one feed a venue."""
    text = _PIPELINE + (monitoring and f"  monitoring: {monitoring}\n")
    for venue in venues:
        exchange, _, market = venue.partition("/")
        endpoint = simulation.endpoints[venue]
        text += _FEED.format(
            name=feed_name(venue), exchange=exchange, market=market, stream=endpoint.stream, rest=endpoint.rest,
            symbols=", ".join(SYMBOLS[venue]), backoff=backoff, replicas=replicas, grace=grace,
            lifetime=lifetime and f", lifetime: {lifetime}",
            channels=", ".join(_CHANNEL.get(name, f"{{name: {name}}}") for name in channels),
        )  # fmt: skip
    return text


def feed_name(venue: str) -> str:
    return venue.lower().replace("/", "-")


Start = Callable[..., Awaitable[Bed]]
HISTORY = "200000"
"""Trades that the venue still offers: those of a hole must be among them, however long all takes on a slow machine."""


@pytest.fixture
async def start_bed(
    tmp_path: Path, redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str
) -> AsyncIterator[Start]:
    """``await start_bed("binance/Spot", rate=1000)`` -> a :class:`Bed` that flows."""
    async with AsyncExitStack() as stack:

        async def start(
            *venues: str,
            rate: float = 1000.0,
            channels: Sequence[str] = CHANNELS,
            arguments: Sequence[str] = (),
            backoff: str = "2s",
            lifetime: str = "",
            replicas: int = 1,
            grace: str = "1s",
            monitoring: str = "",
            flowing: bool = True,
        ) -> Bed:
            """``rate``: messages a second of each venue. ``arguments``: more of ``feedmill simulate``; ``monitoring``:
            that of the pipeline."""
            for name in ("run", "logs"):
                (tmp_path / name).mkdir()
            asked = [part for venue in venues for part in ("--exchange", venue)]
            asked += ["--ledger", str(tmp_path / "ledger"), "--rate", f"{rate:g}", "--history", HISTORY, *arguments]
            simulation = Simulation(tmp_path / "run", tmp_path / "logs" / "simulator.log", asked)
            await simulation.start()
            stack.push_async_callback(simulation.stop)
            path = tmp_path / "feeds.yaml"
            path.write_text(manifest(simulation, venues, channels, backoff, lifetime, replicas, grace, monitoring))
            environ = {"REDIS_URL": redis_server.url, "DATABASE_URL": database_url}

            def make_manager() -> ServiceManager:
                manager = ServiceManager(
                    plan(load_files([path], local=True)),
                    config=[path],
                    data_dir=tmp_path,
                    servers=LocalServers(tmp_path, environ),
                )
                stack.push_async_callback(manager.close)
                return manager

            manager = make_manager()
            pool = redis_pool(redis_server.url)
            stack.push_async_callback(pool.close)
            positions = Positions(pool, manager.shards)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            bed = Bed(
                tmp_path, simulation, manager, positions, database_url, redis_server, postgres_server, http,
                make_manager, {venue: feed_name(venue) for venue in venues},
            )  # fmt: skip
            await manager.start()
            if flowing:
                await bed.until_flowing()
            return bed

        yield start


async def feedmill(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Start a command as a user would, but with no server's URL than those given here; its output is one stream."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feedmill.cli.main", *arguments, env=own | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> str:
    """Its output, once it has ended; it is stopped in order when that takes too long."""
    try:
        async with asyncio.timeout(800):  # Servers are made, a recording is played, all is stopped.
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return output.decode()


@dataclass
class Kit:
    """Helpers for tests, as importlib mode has no shared modules."""

    until: Any = until
    manifest: Any = manifest
    feedmill: Any = feedmill
    ended: Any = ended
    symbols: dict[str, tuple[str, ...]] = field(default_factory=lambda: SYMBOLS)


@pytest.fixture
def kit() -> Kit:
    return Kit()
