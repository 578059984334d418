"""A simulated exchange with accounts, real servers, and a member of the pool as a process; each can be taken away.

The simulator's ledger tells what happened meanwhile; the database tells what became of it, and by which way it came.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.store import Name, NewAccount
from feedmill.cli.migrate import migrate_sync
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.shared.account_events import AccountFlag
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits
from feedmill.simulator.report import Accounts
from feedmill.simulator.verify import verify

SPOT, USDM, DERIBIT = VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
WAIT = 90.0
MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  postgres: {managed: {}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  accounts: {replicas: 1}
"""
Key = tuple[str, str, str]
"""(symbol, trade id, order id) of a fill."""


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(WAIT):
        while not await condition():
            await asyncio.sleep(0.05)


class Member:
    """``feedmill run accounts``."""

    def __init__(self, folder: Path, redis_url: str, database_url: str, kek: Path, replica: str = "r0") -> None:
        self.log = folder / f"member-{replica}.log"
        manifest = folder / "pipeline.yaml"
        manifest.write_text(MANIFEST)
        self._command = [
            sys.executable, "-m", "feedmill.cli.main", "run", "accounts", "--config", str(manifest), "--pipeline",
            "default/main", "--replica", replica, "--kek-file", str(kek), "--no-reload",
        ]  # fmt: skip
        self._environment = os.environ | {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    async def _end(self, number: int) -> int:
        process = self._process
        assert process is not None
        self._process = None
        process.send_signal(number)
        try:
            return await asyncio.to_thread(process.wait, 60)
        finally:
            process.kill()  # Only one that did not end lives on until here.

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """In order; it says so by its exit code."""
        if self._process is not None:
            assert await self._end(signal.SIGTERM) == 0, self.log.read_text()[-2000:]


class Stage:
    def __init__(
        self, name: str, sim: Simulator, ledger: Path, redis: EmbeddedRedis, postgres: EmbeddedPostgres, url: str,
        members: tuple[Member, Member],
    ) -> None:  # fmt: skip
        self.name, self.sim, self.redis, self.postgres = name, sim, redis, postgres
        self.member, self.second = members
        """The second one runs when a test starts it."""
        self.side: Any = sim.venues[name].private
        self._ledger = ledger
        self._url = url

    async def happen(self, count: int = 60) -> set[Key]:
        """So many actions, and more until there were some fills: these."""
        before = self.emitted()
        for _ in range(20):
            for _n in range(count):
                self.side.step(1)
                # Each at a time of its own: Binance tells two equal transfers of one ms as one.
                await asyncio.sleep(0.002)
            await self.sim.drained()
            new = self.emitted() - before
            if len(new) >= 5:
                return new
        raise AssertionError("the engine makes no fills")

    def emitted(self) -> set[Key]:
        path = self._ledger / f"{self.name.replace('/', '-')}.fills.tsv"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        found = [(row[1], row[2], row[3]) for row in (line.split("\t") for line in lines)]
        # A self-trade is two fills of two orders.
        assert len(set(found)) == len(found)
        return set(found)

    async def stored(self) -> dict[Key, list[int]]:
        """Fill -> flags of each row of it."""
        connection = await asyncpg.connect(self._url)
        try:
            rows = await connection.fetch(
                "SELECT symbol, trade_id, order_id, f.flags FROM fills f JOIN instruments i ON i.id = f.instrument_id"
            )
        finally:
            await connection.close()
        found: dict[Key, list[int]] = {}
        for row in rows:
            found.setdefault((row["symbol"], row["trade_id"], row["order_id"]), []).append(row["flags"])
        return found

    async def stored_once(self, fills: set[Key]) -> set[str]:
        """By which ways they came: ``stream`` (replay of what was heard), ``REST`` (reconciliation)."""
        found = await self.stored()
        assert {key: len(found.get(key, ())) for key in fills} == dict.fromkeys(fills, 1)
        return {"REST" if found[key][0] & AccountFlag.REST else "stream" for key in fills}

    async def report(self) -> Accounts:
        return (await verify(self._ledger, self._url)).venues[0].accounts

    async def equal(self) -> bool:
        """What is stored is the ledger, and no gap is open. Deribit's transfers come with its next reconciliation."""
        found = await self.report()
        flows = [flow for kind, flow in found.flows.items() if self.name != DERIBIT or kind != "transfers"]
        whole = all(flow.ok for flow in flows) and not found.half_filled
        return whole and not found.gaps_open and found.known == found.emitted == 2

    async def settled(self) -> None:
        try:
            await until(self.equal)
        except TimeoutError:
            report = await verify(self._ledger, self._url)
            raise AssertionError(
                f"{report.venues[0].notes}\n{report.venues[0].accounts}\n{await self._open_gaps()}\n"
                f"{self.member.log.read_text()[-8000:]}"
            ) from None

    async def _open_gaps(self) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self._url)
        try:
            return [dict(row) for row in await connection.fetch("SELECT * FROM gaps WHERE state = 'open'")]
        finally:
            await connection.close()

    async def gaps(self) -> set[str]:
        """Causes of all gaps of accounts so far."""
        connection = await asyncpg.connect(self._url)
        try:
            rows = await connection.fetch("SELECT DISTINCT cause FROM gaps WHERE channel = 'Account'")
        finally:
            await connection.close()
        return {row["cause"] for row in rows}

    async def listened(self) -> None:
        async def all_are() -> bool:
            stats = self.side.stats()
            return bool(stats["listened"] == stats["accounts"])

        await until(all_are)


async def _register(database_url: str, sim: Simulator, name: str, kek: Path) -> None:
    exchange, _, market = name.partition("/")
    stream, rest = sim.endpoints[name]
    ring = KeyFile(kek).ring()
    connection = await asyncpg.connect(database_url)
    side = sim.venues[name].private
    try:
        for account in side.accounts:
            key = next(key for key in side.keys.of(account) if key.kind == "hmac")
            await store.add(
                connection,
                ring,
                NewAccount(Name.parse(account), exchange, market, endpoints={"stream": stream, "rest": rest}),
                {"apiKey": SecretStr(key.id), "apiSecret": SecretStr(key.secret)},
                Who.here("test"),
            )
    finally:
        await connection.close()


@asynccontextmanager
async def staged(
    name: str, redis: EmbeddedRedis, postgres: EmbeddedPostgres, database_url: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Two accounts that were listened to for a while, and what is stored of them is the ledger."""
    await asyncio.to_thread(migrate_sync, database_url)
    kek = tmp_path / "kek"
    kek.touch(0o600)
    kek.write_text(f"test {base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    # A token of Deribit's that ended before its time is noticed when it is renewed: that should be soon.
    made = VenueConfig(name, limits=default_limits(name, token_life=40.0), rate=1, accounts=2, account_rate=0.0)
    ledger = tmp_path / "ledger"
    async with Simulator(SimulatorConfig((made,), ledger=ledger, id_base=1000)) as sim:
        await _register(database_url, sim, name, kek)
        member, second = (Member(tmp_path, redis.url, database_url, kek, replica) for replica in ("r0", "r1"))
        stage = Stage(name, sim, ledger, redis, postgres, database_url, (member, second))
        await stage.happen()
        member.start()
        try:
            await stage.listened()
            await stage.happen()
            await stage.settled()
            yield stage
        finally:
            try:
                await member.stop()
            finally:
                await second.stop()
