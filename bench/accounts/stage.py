"""A pipeline with a pool of account receivers on real servers, accounts of a simulated exchange, and its ledger."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
import redis.asyncio as redis_asyncio
from pydantic import SecretStr

from bench.processes import ROOT, python_path
from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.store import Name, NewAccount
from feedmill.cli.migrate import upgrade
from feedmill.local.demo.simulation import Endpoint, Simulation
from feedmill.simulator.report import Report, VenueReport
from feedmill.simulator.verify import verify

WHO = Who("the test", "here")
DERIBIT = "deribit/Derivatives"
STOP = 60.0
"""Seconds for an orderly end."""
ANSWER = 60.0
"""Seconds for the exchange to tell its counts."""

_PIPELINE = """apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {urlSecretRef: {name: servers, key: redis}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  postgres: {urlSecretRef: {name: servers, key: postgres}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  accounts: {replicas: 2}
"""


async def until(condition: Callable[[], Any], timeout: float, what: str, every: float = 0.1) -> Any:
    """Wait until ``condition`` (a function, or one that answers an awaitable) holds; gives its value."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(every)
    except TimeoutError:
        raise TimeoutError(f"{what}: not within {timeout:g} s") from None


def replace_file(path: Path, text: str) -> None:
    """As a mounted Secret changes: at once."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def kek_line(name: str) -> str:
    """A key-encryption key, as its file has it."""
    return f"{name} {base64.b64encode(secrets.token_bytes(32)).decode()}\n"


def agree(found: VenueReport) -> bool:
    """Whether all of the accounts is stored as it should be. Deribit's transfers come with the next reconciliation."""
    accounts = found.accounts
    flows = [each for kind, each in accounts.flows.items() if (kind, found.venue) != ("transfers", DERIBIT)]
    return not accounts.half_filled and not accounts.gaps_open and all(each.ok for each in flows)


class Member:
    """One process of ``feedmill run accounts``."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str], program: str) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._port_file = folder / f"{name}.port"
        self._command = [sys.executable, "-m", program, "run", "accounts", "--replica", name, *arguments]
        self._command += ["--port-file", str(self._port_file)]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_URL", "DATABASE_URL", "FEEDMILL_KEK"))}
        self._port_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command, env=kept | {"PYTHONPATH": python_path()}, cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def rss(self) -> float:
        """MiB."""
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    @property
    def cpu(self) -> float:
        """Seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Its exit code."""
        process = self.process
        if process is None:
            return 0
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP):
                    await process.wait()
            except TimeoutError:
                process.kill()
        return await process.wait()

    async def get(self, http: aiohttp.ClientSession, path: str) -> tuple[int, str]:
        """(0, "") where it does not answer."""
        try:
            async with http.get(f"http://127.0.0.1:{int(self._port_file.read_text())}{path}") as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, ValueError):
            return 0, ""


class Stage:
    """``begin`` it, ``end`` it. The servers are the caller's."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.secrets = folder / "secrets"
        self.kek = folder / "kek"
        self.keys_file = folder / "keys.json"
        self.ledger = folder / "ledger"
        self.members: dict[str, Member] = {}
        self.simulation: Simulation
        self.http: aiohttp.ClientSession

    async def begin(
        self, venue: str, accounts: int, rate: float, redis_url: str, postgres_url: str, *more: str
    ) -> None:
        """``more``: arguments of the simulator. ``postgres_url``: of the pool; the stage has its own."""
        self.venue = venue
        (self.secrets / "servers").mkdir(parents=True)
        self.serve(redis=redis_url, postgres=postgres_url)
        replace_file(self.kek, kek_line("first"))
        (self.folder / "resources.yaml").write_text(_PIPELINE)
        asked = ["--exchange", venue, "--ledger", str(self.ledger), "--rate", "1", "--keys", str(self.keys_file)]
        asked += ["--accounts", str(accounts), "--account-rate", f"{rate:g}", *more]
        self.simulation = Simulation(self.folder, self.folder / "simulator.log", asked)
        await self.simulation.start()
        await upgrade(self.database_url)
        self.http = aiohttp.ClientSession()
        self.sql = await asyncpg.connect(self.database_url)

    def serve(self, **urls: str) -> None:
        """Change the Secret with the servers' URLs."""
        for name, url in urls.items():
            replace_file(self.secrets / "servers" / name, url + "\n")

    async def end(self) -> None:
        await asyncio.gather(*(member.stop() for member in self.members.values()))
        await self.simulation.stop()
        await self.sql.close()
        await self.http.close()

    # -- accounts

    @property
    def endpoint(self) -> Endpoint:
        return self.simulation.endpoints[self.venue]

    def keys(self, kind: str = "hmac") -> dict[str, dict[str, SecretStr]]:
        """The newest secrets of each account, by its name."""
        found = json.loads(self.keys_file.read_text())[self.venue]["accounts"]
        return {
            entry["account"]: {
                name: SecretStr(entry[name]) for name in ("apiKey", "apiSecret", "privateKey") if name in entry
            }
            for entry in found
            if entry["type"] == kind
        }

    async def add_accounts(self, kind: str = "hmac") -> None:
        """All of them, to the credential store."""
        ring = KeyFile(self.kek).ring()
        exchange, _, market = self.venue.partition("/")
        where = {"stream": self.endpoint.stream, "rest": self.endpoint.rest}
        for name, found in self.keys(kind).items():
            new = NewAccount(Name(store.NAMESPACE, name), exchange, market, endpoints=where)
            await store.add(self.sql, ring, new, found, WHO)

    # -- members

    async def member(self, name: str, program: str = "feedmill.cli.main", *more: str) -> Member:
        """Start one."""
        arguments = ["--config", str(self.folder / "resources.yaml"), "--pipeline", "default/main", "--secrets-dir",
                     str(self.secrets), "--kek-file", str(self.kek), *more]  # fmt: skip
        made = self.members[name] = Member(name, self.folder, arguments, program)
        await made.start()
        return made

    async def health(self, member: Member) -> dict[str, Any]:
        _, text = await member.get(self.http, "/health")
        found = json.loads(text) if text else {}
        assert isinstance(found, dict)
        return found

    async def ready(self, member: Member) -> bool:
        return (await member.get(self.http, "/readyz"))[0] == 200

    async def states(self, key: str) -> int:
        """Of all members together: accounts that are ``key`` (listening, reconciling, refused, held ...)."""
        found = [await self.health(member) for member in self.members.values() if member.alive]
        return sum(int(each.get("accounts", {}).get(key, 0)) for each in found)

    async def forget_budgets(self) -> None:
        """What others have spent behind this address: of a limit that was another one."""
        client = redis_asyncio.Redis.from_url((self.secrets / "servers" / "redis").read_text().strip())
        async for key in client.scan_iter("fm:{budget.*"):
            await client.delete(key)
        await client.aclose()

    # -- what is seen from outside

    async def stats(self) -> dict[str, Any]:
        """Asked again where the exchange is too busy to answer in time. Raises TimeoutError."""

        async def told() -> dict[str, Any] | None:
            return (await self.simulation.stats())[self.venue]

        found: dict[str, Any] = await until(told, ANSWER, "the simulator answers")
        return found

    async def listened(self) -> int:
        """Accounts that somebody is subscribed to, as the exchange has it."""
        return int((await self.stats())["private"]["listened"])

    async def post(self, path: str, body: Any = None, **query: str) -> Any:
        """To the simulator's admin."""
        async with self.http.post(f"{self.endpoint.rest}/_sim/{path}", json=body, params=query) as answer:
            found = await answer.json()
            assert answer.status == 200, found
            return found

    async def uses(self, account: str) -> list[dict[str, Any]]:
        """Of each key of the account, oldest first."""
        async with self.http.get(f"{self.endpoint.rest}/_sim/accounts/keys", params={"account": account}) as answer:
            found = await answer.json()
            assert isinstance(found, list)
            return found

    async def gaps(self, since_ns: int = 0) -> tuple[int, int]:
        """Gaps of accounts detected since: all, and those that are open."""
        row = await self.sql.fetchrow(
            "SELECT count(*), count(*) FILTER (WHERE state = 'open') FROM gaps "
            "WHERE channel = 'Account' AND detected_ns >= $1",
            since_ns,
        )
        assert row is not None
        return row[0], row[1]

    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await self.sql.fetch(statement, *values)
        return found

    async def verified(self, timeout: float) -> Report:
        """End the flow, and compare with the ledger until all is stored or the time is over."""
        await self.simulation.end_of_flow()
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            report = await verify(self.ledger, self.database_url)
            if all(map(agree, report.venues)) or asyncio.get_running_loop().time() > deadline:
                return report
            await asyncio.sleep(0.5)

    def said(self) -> str:
        """All that the members logged."""
        return "".join(member.log_file.read_text("utf-8", "replace") for member in self.members.values())

    def trouble(self) -> str:
        """The last warnings and errors of each member."""
        lines: list[str] = []
        for member in self.members.values():
            if member.log_file.exists():
                said = member.log_file.read_text("utf-8", "replace").splitlines()
                lines += [f"{member.name}: {line[:600]}" for line in said if '"level": "info"' not in line][-8:]
        return "\n".join(lines)
