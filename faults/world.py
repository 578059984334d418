"""What runs during one fault: the simulator, real servers, the services of local mode, and who watches them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from faults.accounts import Accounts, up_to_date
from faults.proxy import Proxy
from faults.watch import Watch
from feedmill.local.backups import backup_workloads
from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.local.embedded.files import private_folder
from feedmill.local.embedded.server import EmbeddedServer, descendants
from feedmill.local.manager import ServiceManager, redis_pool
from feedmill.local.notices import is_flowing
from feedmill.local.positions import Positions, PositionsAway
from feedmill.local.process import ServiceProcess
from feedmill.local.servers import LocalServers
from feedmill.plan import plan
from feedmill.resources.load import load_files
from feedmill.simulator.report import Report
from feedmill.simulator.verify import verify

SYMBOLS = {
    "binance/Spot": ("BTC-USDT", "ETH-USDT", "SOL-USDT"),
    "binance/UsdM": ("BTC-USDT", "ETH-USDT"),
    "deribit/Derivatives": ("BTC-PERPETUAL", "ETH-PERPETUAL"),
}
FRESH = 1.5
"""Seconds: trades younger than this are up to date."""
TOKEN_LIFE = 60.0
"""Seconds that Deribit's tokens live here: a quarter of an hour is more than a fault lasts."""
HISTORY = 500_000
"""Trades that the simulated REST API still has: exchanges offer much more than an outage's."""

_PIPELINE = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main}}
spec:
  redis: {{managed: {{storage: 2Gi, memory: 1Gi}}, circuitBreaker: {{failureThreshold: 5, resetTimeout: 5s}}}}
  postgres: {{managed: {{storage: 20Gi}}, circuitBreaker: {{failureThreshold: 5, resetTimeout: 5s}}}}
  processor: {{replicas: {processors}}}
{accounts}"""
_ACCOUNTS = "  accounts: {{replicas: {members}}}\n"
_FEED = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: {exchange}, market: {market}, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  instruments: {{symbols: [{symbols}]}}
  channels: [{{name: Trades}}, {{name: Ticker}}, {{name: Book, depth: 20, sampleInterval: 1s}},
             {{name: Candles, interval: 1m}}]
  receiver:
    replicas: {replicas}
    memory: {memory}
    spill: {{size: {spill}}}
    reconnect: {{maxBackoff: 5s, silenceTimeout: {silence}{lifetime}}}
"""


class FaultError(RuntimeError):
    """The run cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How one world is built."""

    rate: float
    """Messages a second of all venues together; 0 = as fast as they are read."""
    seed: int
    venues: tuple[str, ...] = ("binance/Spot",)
    replicas: int = 1
    processors: int = 1
    accounts: int = 0
    """At each exchange."""
    account_rate: float = 10.0
    """Actions a second of all accounts of an exchange; each is one to five events."""
    members: int = 2
    """Of the pool that listens to accounts, where there are any."""
    memory: str = "64Mi"
    """The receivers' budget."""
    spill: str = "1Gi"
    silence: str = "20s"
    lifetime: str = ""
    """Of the connections, before they are replaced; empty = as the exchanges have it."""
    redis: dict[str, str] | None = None
    """More lines of redis.conf."""
    restart_cap: float = 30.0
    """Seconds that a service which ended waits at most until it is started again."""
    proxied: bool = False
    """Services reach Redis, PostgreSQL and the exchanges through proxies."""
    more: Callable[[World], str] | None = None
    """More lines of the pipeline's spec, and resources after it; the simulator runs by then."""
    secrets: Path | None = None
    """Folder of the Secrets that the manifest names."""
    follow: bool = False
    """Services follow changes of the manifest."""
    history: int = HISTORY
    """Trades of an instrument that its REST API still has."""
    environ: Callable[[World], Awaitable[dict[str, str]]] | None = None
    """What tells the services where Redis and PostgreSQL are, when it is not their own URLs."""


def feed_name(venue: str) -> str:
    return venue.lower().replace("/", "-")


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout: float, what: str) -> Any:
    """Wait until it holds; gives its value. Raises FaultError."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise FaultError(f"not {what} within {timeout:g} s") from None


class World:
    """Made by :func:`made`."""

    def __init__(self, folder: Path, setup: Setup, simulation: Simulation) -> None:
        self.folder = folder
        self.setup = setup
        self.simulation = simulation
        self.dice = random.Random(setup.seed)
        self.accounts = Accounts(folder)
        self.redis = EmbeddedRedis(folder / "redis", config=setup.redis)
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.proxies: dict[str, Proxy] = {}
        """redis, postgres, exchange (the stream of the first venue)."""
        self.manager: ServiceManager
        self.watch: Watch
        self.http: aiohttp.ClientSession
        self.servers: list[EmbeddedServer] = []
        """More than the first ones, to be stopped at the end."""
        self.mounts: list[Path] = []
        self.passwords: dict[str, str] = {}
        """Of the services at Redis and PostgreSQL, where these rotate."""
        self.changed = ""
        """When the services last took one up."""
        self.log: list[str] = []
        """What was done, with its time."""
        self.say: Callable[[str], None] = lambda _: None
        """Progress, for people."""
        self.repaired = 0.0
        """Seconds from the end of the flow until all was well."""
        self._began = asyncio.get_running_loop().time()

    def note(self, text: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time() - self._began:6.1f} s  {text}")

    @property
    def manifest(self) -> Path:
        return self.folder / "feeds.yaml"

    def server(self, name: str) -> EmbeddedServer:
        """``redis`` or ``postgres``: the one that serves now."""
        return self.redis if name == "redis" else self.postgres

    def signal_server(self, name: str, number: int) -> None:
        """To Redis or PostgreSQL with all its helper processes."""
        server = self.server(name)
        if server.pid is not None:
            for pid in (server.pid, *descendants(server.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    # the exchanges
    async def stats(self) -> dict[str, dict[str, Any]]:
        async def answered() -> dict[str, Any] | None:
            found = await self.simulation.stats()
            return None if None in found.values() else found

        found: dict[str, dict[str, Any]] = await until(answered, 60.0, "answered by the simulator")
        return found

    async def emitted(self) -> int:
        return sum(map(emitted, (await self.stats()).values()))

    async def refused(self) -> int:
        """Connects that an exchange refused."""
        every = [found["connects"] for found in (await self.stats()).values()]
        return sum(sum(found.values()) - found.get("accepted", 0) for found in every)

    async def connects(self) -> int:
        """Connections that the exchanges have seen, refused ones included."""
        return sum(sum(found["connects"].values()) for found in (await self.stats()).values())

    async def fault(self, exchange: str = "", **fields: Any) -> int:
        """On every exchange, or those whose names begin so; answers how many topics or connections it hit at once."""
        hits = 0
        for name, endpoint in self.simulation.endpoints.items():
            if not name.startswith(exchange):
                continue
            async with self.http.post(f"{endpoint.rest}/_sim/fault", json=fields) as answer:
                document = await answer.json()
                if answer.status != 200:
                    raise FaultError(f"the simulator refuses {fields}: {document}")
                hits += document["hit"]
        return hits

    # the services
    def services(self, role: str) -> list[ServiceProcess]:
        return [self.manager.service(item.name) for item in self.manager.status().services if item.role == role]

    async def kill(self, service: ServiceProcess) -> None:
        """SIGKILL; returns when its supervisor has started the next one."""
        before = await until(lambda: service.pid, 60.0, f"{service.name} running")
        self.note(f"kill -9 {service.name}")
        os.kill(before, signal.SIGKILL)
        await until(lambda: service.pid not in (None, before), 60.0, f"{service.name} started again")

    async def flowing(self) -> bool:
        ports = [service.port for service in self.services("receiver")]
        documents = await self.manager.prober.health([port for port in ports if port is not None])
        if len(documents) != len(ports):
            return False
        sections: list[dict[str, Any]] = []
        for document in documents.values():
            if document is None or not document.get("connections"):
                return False
            sections += document["connections"].values()
        return all(is_flowing(item) and item.get("active") == item["topics"] for item in sections)

    # what is stored
    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.postgres.url, timeout=10.0)
        try:
            return list(await connection.fetch(statement, *values, timeout=60.0))
        finally:
            await connection.close(timeout=5.0)

    async def open_gaps(self) -> int:
        return int((await self.rows("SELECT count(*) FROM gaps WHERE state = 'open'"))[0][0])

    async def account_counts(self) -> tuple[int, int]:
        """(gaps of accounts, fills that REST told)."""
        (row,) = await self.rows(
            "SELECT (SELECT count(*) FROM gaps WHERE channel = 'Account'),"
            " (SELECT count(*) FROM fills WHERE flags & 2 <> 0)"
        )
        return int(row[0]), int(row[1])

    async def age(self) -> float:
        """Seconds since the newest stored trade of the instrument that is furthest behind; inf = cannot be told."""
        try:
            rows = await self.rows(
                "SELECT extract(epoch FROM now() - (SELECT time FROM trades t WHERE t.instrument_id = i.id"
                " ORDER BY time DESC LIMIT 1))::float AS age FROM instruments i"
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return float("inf")
        ages = [row["age"] for row in rows]
        wanted = sum(len(SYMBOLS[venue]) for venue in self.setup.venues)
        known = [age for age in ages if age is not None]
        return max(known) if len(known) >= wanted else float("inf")

    async def _accounts_fresh(self, since_ns: int) -> bool:
        if not self.accounts.names:
            return True
        try:
            connection = await asyncpg.connect(self.postgres.url, timeout=10.0)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        try:
            state = await self.accounts.state(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        finally:
            await connection.close(timeout=5.0)
        return up_to_date(state, len(self.accounts.names), since_ns)

    async def accounts_up_to_date(self, timeout: float) -> None:
        """Until every account is reconciled and something is stored that happened since. Raises FaultError."""
        since = time.time_ns()
        await until(lambda: self._accounts_fresh(since), timeout, "up to date with every account")

    async def catch_up(self, timeout: float) -> float:
        """Seconds until what is stored is up to date and every feed flows. Raises FaultError."""
        began, since = asyncio.get_running_loop().time(), time.time_ns()

        async def there() -> bool:
            return await self.age() < FRESH and await self.flowing() and await self._accounts_fresh(since)

        await until(there, timeout, f"caught up (trades {await self.age():.0f} s old)")
        return asyncio.get_running_loop().time() - began

    async def until_drained(self, timeout: float) -> None:
        """Until all that was captured is stored."""
        pool = redis_pool(self.redis.url)
        positions = Positions(pool, self.manager.shards)

        async def drained() -> bool:
            try:
                found = await positions.read()
            except PositionsAway:
                return False
            return all(item.captured and item.raw_drained and item.events_drained for item in found)

        try:
            await until(drained, timeout, "drained")
        finally:
            await pool.close()

    async def settled(self, timeout: float) -> Report:
        """End the flow and compare, again and again until all is well (and repaired), or the time is up."""
        loop = asyncio.get_running_loop()
        await self.simulation.end_of_flow()
        if self.accounts.names:
            # Its stream tells no transfers: they come with the next reconciliation, which may be an hour away.
            await self.fault("deribit", kind="abort", channel="Account")
        began = loop.time()
        with contextlib.suppress(FaultError):
            await self.until_drained(timeout)
        end = loop.time() + timeout
        while True:
            report = await verify(self.folder / "ledger", self.postgres.url)
            repaired = all(not (venue.trades.in_gaps or venue.accounts.gaps_open) for venue in report.venues)
            if (report.ok and repaired) or loop.time() > end:
                self.repaired = loop.time() - began
                return report
            await asyncio.sleep(1.0)

    def trouble(self) -> list[str]:
        """Errors of the services, the last of each."""
        lines: list[str] = []
        for path in sorted((self.folder / "logs").glob("*.log")):
            found = [line for line in path.read_text("utf-8", "replace").splitlines() if _is_error(line)]
            lines += [f"{path.stem}: {line[:400]}" for line in found[-2:]]
        return lines

    def manifest_text(self) -> str:
        setup = self.setup
        accounts = _ACCOUNTS.format(members=setup.members) if setup.accounts else ""
        text = _PIPELINE.format(processors=setup.processors, accounts=accounts)
        text += setup.more(self) if setup.more is not None else ""
        for at, venue in enumerate(setup.venues):
            exchange, _, market = venue.partition("/")
            endpoint = self.simulation.endpoints[venue]
            stream = endpoint.stream
            if at == 0 and "exchange" in self.proxies:
                port = stream.rpartition(":")[2].partition("/")[0]
                stream = stream.replace(f":{port}", f":{self.proxies['exchange'].port}", 1)
            text += _FEED.format(
                name=feed_name(venue), exchange=exchange, market=market, stream=stream, rest=endpoint.rest,
                symbols=", ".join(SYMBOLS[venue]), replicas=setup.replicas, memory=setup.memory, spill=setup.spill,
                silence=setup.silence, lifetime=setup.lifetime and f", lifetime: {setup.lifetime}",
            )  # fmt: skip
        return text


def _is_error(line: str) -> bool:
    try:
        return json.loads(line).get("level") in ("error", "critical")
    except (ValueError, AttributeError):
        return bool(line.strip())


def _arguments(setup: Setup, folder: Path) -> Sequence[str]:
    asked = [part for venue in setup.venues for part in ("--exchange", venue)]
    asked += ["--ledger", str(folder / "ledger"), "--rate", f"{setup.rate / len(setup.venues):g}"]
    asked += ["--seed", str(setup.seed), "--history", str(setup.history)]
    if setup.accounts:
        asked += ["--accounts", str(setup.accounts), "--account-rate", f"{setup.account_rate:g}"]
        # A token that ended before its time is noticed when it is renewed.
        asked += ["--keys", str(Accounts(folder).keys_file), "--limit", f"token_life={TOKEN_LIFE:g}"]
    # Unsent bytes of a client that was stopped are kept, as an exchange far away (and the network) would for a while.
    return [*asked, "--limit", f"buffer_bytes={64 << 20}"]


async def _put_away(world: World) -> None:
    for server in world.servers:
        await asyncio.to_thread(server.stop)
    for folder in world.mounts:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(folder)], check=False)


@contextlib.asynccontextmanager
async def made(folder: Path, setup: Setup) -> AsyncIterator[World]:
    """A world that flows; everything is stopped at the end."""
    async with AsyncExitStack() as stack:
        for name in ("run", "logs"):
            private_folder(folder / name)
        simulation = Simulation(folder / "run", folder / "logs" / "simulator.log", _arguments(setup, folder))
        await simulation.start()
        stack.push_async_callback(simulation.stop)
        world = World(folder, setup, simulation)
        for server in (world.redis, world.postgres):
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        redis_url, database_url = world.redis.url, world.postgres.url
        if setup.proxied:
            stream_port = int(simulation.endpoints[setup.venues[0]].stream.rpartition(":")[2].partition("/")[0])
            ports = {"redis": world.redis.port, "postgres": world.postgres.port, "exchange": stream_port}
            for name, port in ports.items():
                proxy = world.proxies[name] = Proxy("127.0.0.1", port)
                await proxy.start()
                stack.push_async_callback(proxy.stop)
            redis_url = redis_url.replace(f":{world.redis.port}/", f":{world.proxies['redis'].port}/")
            database_url = database_url.replace(f":{world.postgres.port}/", f":{world.proxies['postgres'].port}/")
        environ = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
        if setup.environ is not None:
            environ = await setup.environ(world)
        stack.push_async_callback(_put_away, world)
        world.manifest.write_text(world.manifest_text())
        resources = load_files([world.manifest], local=True)
        extra = ["--reload"] if setup.follow else []
        world.manager = ServiceManager(
            [*plan(resources), *backup_workloads(resources, setup.secrets)[0]],
            config=[world.manifest],
            data_dir=folder,
            servers=LocalServers(folder, environ),
            restart_cap=setup.restart_cap,
            extra_args=extra if setup.secrets is None else ["--secrets-dir", str(setup.secrets), *extra],
            kek_file=world.accounts.kek_file if setup.accounts else None,
        )
        stack.push_async_callback(world.manager.close)
        world.http = await stack.enter_async_context(aiohttp.ClientSession())

        async def with_accounts() -> None:
            if setup.accounts:
                await world.accounts.register(world.postgres.url)

        await world.manager.start(before_services=with_accounts)
        await until(world.flowing, 240.0, "flowing")
        world.watch = Watch(world.manager, world.http)
        await stack.enter_async_context(world.watch)
        yield world
