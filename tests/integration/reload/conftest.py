"""The services as processes that follow their files: a mounted folder, Secrets, a simulated exchange, real servers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from feedmill.cli.migrate import upgrade
from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.local.manager import redis_pool
from feedmill.local.positions import Positions, PositionsAway, ShardPosition
from feedmill.resources.confighash import config_hash
from feedmill.shared.keys import ShardRef
from feedmill.simulator.report import Report
from feedmill.simulator.verify import verify

FILE = "resources.yaml"
ALL = ("Trades", "Book", "Ticker", "Candles")
_CHANNEL = {"Book": "{name: Book, depth: 20, sampleInterval: 1s}", "Candles": "{name: Candles, interval: 1m}"}


async def until(condition: Callable[[], Any], timeout: float = 180.0) -> Any:
    """Wait until ``condition`` (a function, or one that answers an awaitable) holds; gives its value."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.05)


def nothing_wrong(report: Report, *kinds: str) -> bool:
    """What there is, is right, and of these kinds (trades, tickers) the last ones emitted are stored. Holes do not
    count."""
    return bool(report.venues) and all(
        venue.books.ok
        and venue.candles.ok
        and not any(
            flow.doubled or flow.phantom or flow.wrong or flow.gaps_wrong for flow in (venue.trades, venue.tickers)
        )
        and not any(getattr(venue, kind).lost_after_last or not getattr(venue, kind).stored for kind in kinds)
        for venue in report.venues
    )


@dataclass
class Wanted:
    """What the manifests say."""

    venue: str
    symbols: list[str]
    channels: list[str] = field(default_factory=lambda: list(ALL))
    name: str = "one"
    receiver: str = "{reconnect: {maxBackoff: 2s}}"
    distributor: str = "{gapGrace: 1s, imageInterval: 2s}"
    log_level: str = "Info"
    stream: str = ""
    """Another address than the simulator's own."""
    select: str = ""
    """Instead of the symbols."""

    def text(self, simulation: Simulation) -> str:
        exchange, _, market = self.venue.partition("/")
        endpoint = simulation.endpoints[self.venue]
        instruments = f"select: {self.select}" if self.select else f"symbols: [{', '.join(self.symbols)}]"
        channels = ", ".join(_CHANNEL.get(name, f"{{name: {name}}}") for name in self.channels)
        return f"""---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: {self.name}}}
spec:
  pipelineRef: {{name: main}}
  exchange:
    name: {exchange}
    market: {market}
    endpoints: {{stream: "{self.stream or endpoint.stream}", rest: "{endpoint.rest}"}}
  instruments: {{{instruments}}}
  channels: [{channels}]
  receiver: {self.receiver}
  distributor: {self.distributor}
  logLevel: {self.log_level}
"""


PIPELINE = """apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {urlSecretRef: {name: servers, key: redis}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  postgres: {urlSecretRef: {name: servers, key: postgres}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
"""


class Mount:
    """A folder as the kubelet mounts it: ``key -> ..data/key``, ``..data -> ..N``, changed by one rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, str] = {}
        self._number = 0
        folder.mkdir(parents=True)

    def write(self, **files: str) -> None:
        """Change these keys (``_`` for ``.`` in names)."""
        self.files |= {name.replace("_", "."): text for name, text in files.items()}
        before, self._number = self._number, self._number + 1
        real = self.folder / f"..{self._number}"
        real.mkdir()
        for name, text in self.files.items():
            (real / name).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(real.name)
        link.replace(self.folder / "..data")
        for name in self.files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if before:
            old = self.folder / f"..{before}"
            for path in old.iterdir():
                path.unlink()
            old.rmdir()


class Service:
    """One process of ``feedmill run``."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str]) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._port_file = folder / f"{name}.port"
        self._arguments = [*arguments, "--port-file", str(self._port_file)]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_URL", "DATABASE_URL"))}
        self._port_file.unlink(missing_ok=True)  # Of a former life: somebody else may have that port by now.
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feedmill.cli.main", "run", *self._arguments,
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def port(self) -> int | None:
        try:
            return int(self._port_file.read_text())
        except (OSError, ValueError):
            return None

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of this event, in order."""
        found = []
        for line in self.log_file.read_text("utf-8", "replace").splitlines():
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if document.get("event") == event:
                found.append(document)
        return found

    async def stop(self) -> int:
        process = self.process
        if process is None:
            return 0
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode


@dataclass
class Bed:
    folder: Path
    simulation: Simulation
    config: Mount
    secrets: Mount
    feeds: list[Wanted]
    database_url: str
    redis: EmbeddedRedis
    http: aiohttp.ClientSession
    positions: Positions
    services: dict[str, Service] = field(default_factory=dict)
    pipeline: str = PIPELINE

    # what the user does
    @property
    def text(self) -> str:
        return self.pipeline + "".join(feed.text(self.simulation) for feed in self.feeds)

    def write(self, text: str | None = None) -> str:
        """Change the mounted manifests; answers their hash."""
        text = self.text if text is None else text
        self.config.write(resources_yaml=text)
        return config_hash({FILE: text})

    async def take_up(self, *names: str) -> str:
        """Change them and wait until these services (default: all) say that they work by them."""
        wanted = self.write()

        async def done() -> bool:
            found = [await self.health(name) for name in names or self.services]
            return all(item is not None and item["config"]["hash"] == wanted for item in found)

        try:
            await until(done)
        except TimeoutError:
            found = {name: (await self.health(name) or {}).get("config") for name in self.services}
            pytest.fail(f"not taken up: {found}\n{self.trouble()}")
        return wanted

    async def start(self, name: str, *arguments: str) -> Service:
        files = ["--config", str(self.config.folder / FILE), "--secrets-dir", str(self.secrets.folder.parent)]
        service = self.services[name] = Service(name, self.folder, [*arguments, *files])
        await service.start()
        return service

    # what is seen
    async def health(self, name: str) -> dict[str, Any] | None:
        port = self.services[name].port
        try:
            async with self.http.get(f"http://127.0.0.1:{port}/health") as answer:
                document = await answer.json()
                assert isinstance(document, dict)
                return document
        except (aiohttp.ClientError, OSError):
            return None

    async def metric(self, name: str, line: str) -> float:
        """Value of one sample of ``/metrics``."""
        async with self.http.get(f"http://127.0.0.1:{self.services[name].port}/metrics") as answer:
            for each in (await answer.text()).splitlines():
                if each.startswith(f"{line} "):
                    return float(each.rpartition(" ")[2])
        raise AssertionError(f"{name} has no sample {line}")

    async def flowing(self) -> bool:
        """Every receiver's connections are open with all their topics active and nothing else."""
        for name in self.services:
            if name.startswith("receiver"):
                document = await self.health(name)
                if document is None or not document["connections"]:
                    return False
                for item in document["connections"].values():
                    if item["state"] != "open" or item.get("active") != item["topics"]:
                        return False
        return True

    async def until_flowing(self) -> None:
        try:
            await until(self.flowing)
        except TimeoutError:
            pytest.fail(f"not flowing: {[await self.health(name) for name in self.services]}\n{self.trouble()}")

    async def _all_stats(self) -> dict[str, dict[str, Any]]:
        """Of every venue: a simulator that is busy for a moment is asked again."""

        async def answered() -> dict[str, dict[str, Any]] | None:
            found = {venue: each for venue, each in (await self.simulation.stats()).items() if each is not None}
            return found if found.keys() == self.simulation.endpoints.keys() else None

        found: dict[str, dict[str, Any]] = await until(answered)
        return found

    async def stats(self, venue: str) -> dict[str, Any]:
        return (await self._all_stats())[venue]

    async def until_emitted(self, more: int) -> None:
        async def count() -> int:
            return sum(emitted(found) for found in (await self._all_stats()).values())

        goal = await count() + more

        async def reached() -> bool:
            return await count() >= goal

        await until(reached)

    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def where(self) -> list[ShardPosition]:
        """How far the shards are: a Redis that is busy for a moment is asked again."""

        async def read() -> list[ShardPosition] | None:
            try:
                return await self.positions.read()
            except PositionsAway:
                return None

        found: list[ShardPosition] = await until(read)
        return found

    async def until_past(self) -> None:
        """Everything that is captured by now is stored."""

        def place(text: str) -> tuple[int, ...]:
            return tuple(int(part) for part in text.split("-")) if text else (0, 0)

        captured = [place(item.captured) for item in await self.where()]

        async def dispatched() -> bool:
            return all(place(item.dispatched) >= at for item, at in zip(await self.where(), captured, strict=True))

        await until(dispatched)
        emitted_to = [place(item.emitted) for item in await self.where()]

        async def stored() -> bool:
            return all(place(item.stored) >= at for item, at in zip(await self.where(), emitted_to, strict=True))

        await until(stored)

    async def settled(self, done: Callable[[Report], Any] = lambda report: report.ok) -> Report:
        """End the flow, wait until all is stored, and compare with the ledger until it is as it should be: ``done``,
        where something is missing on purpose (a function, or one that answers an awaitable)."""
        await self.simulation.end_of_flow()

        async def drained() -> bool:
            found = await self.where()
            return all(item.captured and item.raw_drained and item.events_drained for item in found)

        async def is_done() -> bool:
            answer = done(report)
            return bool(await answer if asyncio.iscoroutine(answer) else answer)

        try:
            await until(drained, 90)
        except TimeoutError:
            pytest.fail(f"not drained: {await self.where()}\n{self.trouble()}")
        report = await verify(self.folder / "ledger", self.database_url)
        try:
            async with asyncio.timeout(90):  # A killed session counts as silent after 30.
                while not await is_done():
                    await asyncio.sleep(0.3)
                    report = await verify(self.folder / "ledger", self.database_url)
        except TimeoutError:
            pass
        return report

    def ledger(self, venue: str, kind: str) -> dict[str, list[int]]:
        """Symbol -> numbers emitted, in order."""
        found: dict[str, list[int]] = {}
        path = self.folder / "ledger" / f"{venue.replace('/', '-')}.{kind}.tsv"
        for line in path.read_text("utf-8").splitlines():
            symbol, number = line.split("\t")[:2]
            found.setdefault(symbol, []).append(int(number))
        return found

    async def stored(self, kind: str) -> dict[str, list[int]]:
        """Symbol -> numbers stored, ascending."""
        column = {"trades": "trade_id", "tickers": "seq"}[kind]
        rows = await self.rows(
            f"SELECT i.symbol, t.{column} FROM {kind} t JOIN instruments i ON i.id = t.instrument_id ORDER BY 1, 2"
        )
        found: dict[str, list[int]] = {}
        for symbol, number in rows:
            found.setdefault(symbol, []).append(number)
        return found

    def explain(self, report: Report) -> str:
        return "\n".join([*(f"{venue.venue}: {venue}" for venue in report.venues), str(self.folder), self.trouble()])

    def trouble(self) -> str:
        """The last warnings and errors of each service."""
        lines: list[str] = []
        for service in self.services.values():
            if service.log_file.exists():
                said = service.log_file.read_text("utf-8", "replace").splitlines()
                found = [line for line in said if '"level": "info"' not in line]
                lines += [f"{service.name}: {line[:600]}" for line in found[-8:]]
        return "\n".join(lines)


Start = Callable[..., Awaitable[Bed]]


@pytest.fixture
async def start_bed(
    tmp_path: Path, redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str
) -> AsyncIterator[Start]:
    """``await start_bed(Wanted("binance/Spot", ["BTC-USDT"]))`` -> a :class:`Bed` that flows."""
    async with AsyncExitStack() as stack:

        async def start(*feeds: Wanted, rate: float = 800.0, redis_url: str = "", postgres_url: str = "") -> Bed:
            venues = dict.fromkeys(feed.venue for feed in feeds)
            (tmp_path / "run").mkdir()
            asked = [part for venue in venues for part in ("--exchange", venue)]
            asked += ["--ledger", str(tmp_path / "ledger"), "--rate", f"{rate:g}"]
            simulation = Simulation(tmp_path / "run", tmp_path / "simulator.log", asked)
            await simulation.start()
            stack.push_async_callback(simulation.stop)
            await upgrade(database_url)
            pool = redis_pool(redis_server.url)
            stack.push_async_callback(pool.close)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            bed = Bed(
                tmp_path, simulation, Mount(tmp_path / "config"), Mount(tmp_path / "secrets" / "servers"), list(feeds),
                database_url, redis_server, http,
                Positions(pool, [ShardRef("default", feed.name, 0) for feed in feeds]),
            )  # fmt: skip
            bed.write()
            bed.secrets.write(redis=redis_url or redis_server.url, postgres=postgres_url or database_url)

            async def stop() -> None:
                await asyncio.gather(*(service.stop() for service in bed.services.values()))

            stack.push_async_callback(stop)
            await bed.start("processor", "processor", "--pipeline", "default/main")
            for feed in feeds:
                await bed.start(
                    f"distributor-{feed.name}", "distributor", "--feed", f"default/{feed.name}", "--shard", "0"
                )
                await bed.start(f"receiver-{feed.name}", "receiver", "--feed", f"default/{feed.name}", "--shard", "0")
            for name in bed.services:
                await until(partial(bed.health, name))  # A slow one may not listen yet while the others work.
            await bed.until_flowing()
            return bed

        yield start


@dataclass
class Kit:
    """Helpers for tests, as importlib mode has no shared modules."""

    until: Any = until
    Wanted: Any = Wanted
    nothing_wrong: Any = nothing_wrong


@pytest.fixture
def kit() -> Kit:
    return Kit()
