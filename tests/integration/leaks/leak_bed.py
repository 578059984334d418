"""Everything that handles secrets, as processes with planted ones: real servers, the simulator here, the services."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets as random
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import redis.asyncio as redis_asyncio
from aiohttp import web
from faults.leaks import Scanner, Secret
from typer.testing import CliRunner

from feedmill.cli.main import app
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.shared import log
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits
from feedmill.simulator.accounts import keys as keys_module
from feedmill.simulator.accounts.keys import ApiKey
from feedmill.simulator.accounts.listen_keys import ListenKeys
from feedmill.simulator.accounts.spot_stream import SpotSide
from feedmill.simulator.connection import Connection
from feedmill.simulator.deribit_auth import Token, Tokens
from feedmill.simulator.deribit_server import DeribitVenue

SPOT, USDM, DERIBIT = VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
USER = "leaktest"
WEIGHT = {"weight_window": 1e9, "weight": 100_000}
MAX_SIGNATURES = 60
"""Looked for, of all that were made: the first and then one in so many."""

PIPELINE = """apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  logLevel: Debug
  redis: {urlSecretRef: {name: servers, key: redis}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  postgres: {urlSecretRef: {name: servers, key: postgres}, circuitBreaker: {failureThreshold: 5, resetTimeout: 1s}}
  accounts: {keyEncryptionSecretRef: {name: kek, key: kek}}
"""
TELLS = """  notifications:
    telegram: {{botTokenSecretRef: {{name: telegram, key: token}}, chatId: "7", baseUrl: "{url}", minimumSeverity: Info,
               accountEvents: [Fills, Orders, Transfers], perMinute: 60}}
"""
FEED = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: feed}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: binance, market: Spot, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  instruments: {{symbols: [BTC-USDT, ETH-USDT]}}
  channels: [{{name: Trades}}, {{name: Ticker}}]
  receiver: {{reconnect: {{maxBackoff: 2s}}}}
  logLevel: Debug
"""
ACCOUNT = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: {exchange}, market: {market}, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  credentialsSecretRef: {{name: {name}}}
"""


async def until(condition: Callable[[], Any], what: str, timeout: float = 300.0) -> Any:
    """Wait until ``condition`` (a function, or one that answers an awaitable) holds; gives its value."""
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
        pytest.fail(f"not {what} within {timeout:g} s")


class Overheard:
    """Secrets that come to be while it runs, and a venue whose errors repeat what it was sent."""

    def __init__(self, patch: pytest.MonkeyPatch, plant: Callable[[str, str], None]) -> None:
        self.echo = False
        self.unknown = False
        """Whether the errors have a code that nobody knows, so that only the venue's words tell what it is."""
        self.echoed = {"rest": 0, "socket": 0}
        self.signatures: list[str] = []
        self._plant = plant
        self._record_signatures(patch)
        make_key, make_token = ListenKeys.make, Tokens._make

        def listen_key(keys: ListenKeys, *arguments: Any) -> str:
            text = make_key(keys, *arguments)
            plant("listen key", text)
            return text

        def token(tokens: Tokens, *arguments: Any) -> Token:
            made = make_token(tokens, *arguments)
            plant("access token", made.access)
            plant("refresh token", made.refresh)
            return made

        patch.setattr(ListenKeys, "make", listen_key)
        patch.setattr(Tokens, "_make", token)
        self._repeat_on_sockets(patch)
        application = web.Application
        patch.setattr(web, "Application", lambda **options: application(
            **{**options, "middlewares": [self._repeat, *options["middlewares"]]}
        ))  # fmt: skip

    def _record_signatures(self, patch: pytest.MonkeyPatch) -> None:
        from feedmill.simulator import deribit_auth

        for name in ("hmac_ok", "ed25519_ok"):
            check = getattr(keys_module, name)

            def checked(key: Any, payload: str, given: str, check: Any = check) -> bool:
                self.signatures.append(given)
                return bool(check(key, payload, given))

            patch.setattr(keys_module, name, checked)
        made = deribit_auth._hmac

        def signed(secret: str, text: str) -> str:
            signature = made(secret, text)
            self.signatures.append(signature)
            return signature

        patch.setattr(deribit_auth, "_hmac", signed)

    def plant_signatures(self) -> None:
        step = max(1, len(self.signatures) // MAX_SIGNATURES)
        for signature in self.signatures[::step]:
            self._plant("signature of a query", signature)

    def _said(self, error: dict[str, Any], said: str) -> None:
        name = next((name for name in ("msg", "description") if name in error), "message")
        error[name] = f"{said} was refused: {error.get(name)}"
        if self.unknown:
            error["code"] = -98765

    @web.middleware
    async def _repeat(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        if not self.echo or answer.status < 400 or not isinstance(answer, web.Response) or "_sim" in request.path:
            return answer
        sent = [request.headers.get(name, "") for name in ("X-MBX-APIKEY", "Authorization")]
        said = " ".join((*sent, request.method, request.path_qs, (await request.read()).decode()))
        try:
            body = json.loads(answer.text or "")
        except ValueError:
            body = {"code": -1, "msg": ""}
        self._said(body.get("error") or body, said)
        self.echoed["rest"] += 1
        return web.json_response(body, status=answer.status)

    def _repeat_on_sockets(self, patch: pytest.MonkeyPatch) -> None:
        for owner in (SpotSide, DeribitVenue):
            heard = owner.on_message

            def remember(self_: Any, connection: Connection, text: str, heard: Any = heard) -> None:
                connection.state["said"] = text
                heard(self_, connection, text)

            patch.setattr(owner, "on_message", remember)
        send = Connection.send

        def repeat(connection: Connection, payload: str) -> None:
            if self.echo and '"error"' in payload and "said" in connection.state:
                body = json.loads(payload)
                if isinstance(body.get("error"), dict):
                    self._said(body["error"], connection.state["said"])
                    self.echoed["socket"] += 1
                    payload = json.dumps(body)
            send(connection, payload)

        patch.setattr(Connection, "send", repeat)


class Chat:
    """Stands for Telegram: takes messages, or refuses them; then :class:`Overheard` repeats the address, with token."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refuses = False
        self.refused = 0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(middlewares=[])
        app.router.add_post("/bot{token}/{method}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if self.refuses:
            self.refused += 1
            return web.json_response({"ok": False, "error_code": 502, "description": "Bad Gateway"}, status=502)
        if request.match_info["method"] == "sendMessage":
            self.texts.append((await request.json())["text"])
        return web.json_response({"ok": True, "result": {"message_id": len(self.texts), "username": "bot"}})


@dataclass
class Bed:
    folder: Path
    scanner: Scanner
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres
    sim: Simulator
    overheard: Overheard
    http: aiohttp.ClientSession
    passwords: dict[str, str]
    chat: Chat
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    # where the secrets may be
    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def work(self) -> Path:
        """All else that is written is in here."""
        return self.folder / "work"

    @property
    def manifest(self) -> Path:
        return self.work / "manifest.yaml"

    def plant(self, kind: str, value: str) -> None:
        self.scanner.plant(Secret(kind, value))

    def secret(self, name: str, **files: str) -> Path:
        """A Secret as a folder; all of its keys at once."""
        folder = self.secrets / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in files.items():
            (folder / f".{key}").write_text(value)
            (folder / f".{key}").replace(folder / key)
        return folder

    def key(self, account: str, kind: str = "hmac") -> ApiKey:
        """The newest one of the account."""
        for venue in self.sim.venues.values():
            found = [key for key in venue.private.keys.of(account) if key.kind == kind]
            if found:
                return found[-1]
        raise KeyError(account)

    def files_of(self, account: str, kind: str = "hmac") -> dict[str, str]:
        """Its secrets, planted."""
        written = self.key(account, kind).written()
        exchange = "Deribit client" if account.startswith("deribit") else f"Binance {kind} key"
        self.plant(f"{exchange} id", written["apiKey"])
        secret = "apiSecret" if "apiSecret" in written else "privateKey"
        self.plant(f"{exchange} secret", written[secret])
        return {"apiKey": written["apiKey"], secret: written[secret]}

    # processes
    def environment(self) -> dict[str, str]:
        ours = ("REDIS_URL", "DATABASE_URL", "FEEDMILL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | {
            "DATABASE_URL_FILE": str(self.secrets / "servers" / "postgres"),
            "FEEDMILL_KEK_FILE": str(self.secrets / "kek" / "kek"),
        }

    async def command(self, *arguments: str, given: str = "", code: int | None = 0,
                      environ: Mapping[str, str] | None = None) -> str:  # fmt: skip
        """A run of ``feedmill``: its output is looked at, and its process while it runs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "feedmill.cli.main", *arguments, env=self.environment() | dict(environ or {}),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=self.work,
        )  # fmt: skip
        self._look_at(process.pid, f"feedmill {arguments[0]}", ours=environ is None)
        out, err = await process.communicate(given.encode())
        name = " ".join(arguments[:2])
        self.scanner.look(f"output of feedmill {name}", out)
        self.scanner.look(f"errors of feedmill {name}", err)
        if code is not None:
            assert process.returncode == code, f"{name}: {out.decode()}{err.decode()}"
        return out.decode() + err.decode()

    async def told(self, *arguments: str, given: str = "", code: int | None = 0,
                   environ: Mapping[str, str] | None = None) -> str:  # fmt: skip
        """The same in this process, which is quicker; it knows no more secrets than a new one would."""
        known, log._secrets = log._secrets, []
        try:
            result = await asyncio.to_thread(
                CliRunner().invoke, app, list(arguments), input=given, env=self.environment() | dict(environ or {})
            )
        finally:
            log._secrets = known
        name = " ".join(arguments[:2])
        self.scanner.look(f"output of feedmill {name}", result.output)
        if result.exc_info is not None and not isinstance(result.exception, SystemExit):
            self.scanner.look(f"traceback of feedmill {name}", "".join(traceback.format_exception(*result.exc_info)))
        if code is not None:
            assert result.exit_code == code, f"{name}: {result.output}"
        return result.output

    async def start(self, name: str, *arguments: str) -> None:
        with (self.work / f"{name}.log").open("ab") as written:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feedmill.cli.main", "run", *arguments, "-c", str(self.manifest),
                "--secrets-dir", str(self.secrets), "--port-file", str(self.work / f"{name}.port"),
                env={n: v for n, v in self.environment().items() if not n.startswith(("DATABASE", "FEEDMILL"))},
                stdout=written, stderr=written, cwd=self.work,
            )  # fmt: skip

    async def stop(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
        for process in self.processes.values():
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    # looking
    def _look_at(self, pid: int, name: str, *, ours: bool = True) -> None:
        try:
            self.scanner.look(f"arguments of {name}", Path(f"/proc/{pid}/cmdline").read_bytes())
            if ours:
                self.scanner.look(f"environment of {name}", Path(f"/proc/{pid}/environ").read_bytes())
        except OSError:
            pass  # It has ended.

    async def look_at_services(self) -> None:
        for name, process in self.processes.items():
            if process.returncode is not None:
                pytest.fail(f"{name} ended with {process.returncode}: {self.log_of(name)[-3000:]}")
            self._look_at(process.pid, name)
            for page in ("healthz", "readyz", "health", "metrics"):
                # One that has just begun listens once it has read its manifests.
                text = await until(partial(self.page, name, page), f"{name} answers {page}")
                self.scanner.look(f"/{page} of {name}", text)
            # It has set this by now: it does so before it listens.
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            [core] = [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")]
            assert core == ["0", "0"], name

    async def page(self, name: str, page: str) -> str:
        try:
            port = int((self.work / f"{name}.port").read_text())
            async with self.http.get(f"http://127.0.0.1:{port}/{page}") as answer:
                return await answer.text()
        except (OSError, ValueError, aiohttp.ClientError):
            return ""

    def log_of(self, name: str) -> str:
        return (self.work / f"{name}.log").read_text("utf-8", "replace")

    async def look_at_redis(self) -> None:
        """Every key and value, what clients call themselves, and what the server counts."""
        client: Any = redis_asyncio.from_url(self.redis.url)
        read: dict[bytes, Callable[[Any], Any]] = {
            b"string": client.get, b"hash": client.hgetall, b"stream": client.xrange, b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"list": lambda key: client.lrange(key, 0, -1),
        }  # fmt: skip
        try:
            keys = [key async for key in client.scan_iter(count=1000)]
            assert keys
            for key in keys:
                self.scanner.look("keys of Redis", key)
                kind = await client.type(key)
                if kind == b"none":
                    continue  # It has expired since; what comes under its name again may be of any kind.
                for value in _flat(await read[kind](key)):
                    self.scanner.look(f"values of Redis: {kind.decode()}", value)
            for asked in ("CLIENT LIST", "INFO everything", "SLOWLOG GET 1000"):
                self.scanner.look(f"Redis: {asked}", repr(await client.execute_command(*asked.split())))
        finally:
            await client.aclose()

    async def look_at_postgres(self) -> None:
        """Every row of every table (of sealed secrets too: what is sealed cannot be found), and what sessions do."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in tables:
                for (row,) in await connection.fetch(f'SELECT t::text FROM "{table}" t'):
                    self.scanner.look(f"table {table}", row)
            for view in ("pg_stat_activity", "pg_settings", "pg_prepared_statements"):
                for (row,) in await connection.fetch(f"SELECT t::text FROM {view} t"):
                    self.scanner.look(view, row)
        finally:
            await connection.close()

    async def rows(self, statement: str) -> list[Any]:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    async def fills(self) -> dict[str, int]:
        """Account -> how many are stored."""
        found = await self.rows("SELECT a.name, count(f.trade_id) AS n FROM accounts a LEFT JOIN fills f "
                                "ON f.account_id = a.id WHERE a.enabled GROUP BY 1")  # fmt: skip
        return {row["name"]: row["n"] for row in found}

    async def more_fills(self, names: set[str]) -> None:
        """Each of these accounts has some that it has not now."""
        before = await self.fills()

        async def more() -> bool:
            now = await self.fills()
            return all(now.get(name, 0) > before.get(name, 0) for name in names)

        try:
            await until(more, f"stored more fills of {sorted(names)}")
        except BaseException:
            print(await self.page("accounts", "health"))
            raise


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        return [each for pair in value.items() for part in pair for each in _flat(part)]
    if isinstance(value, (list, tuple, set)):
        return [each for part in value for each in _flat(part)]
    return [str(value).encode()]


@asynccontextmanager
async def bed(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    scanner = Scanner()
    passwords = {name: f"Planted-{name}-{random.token_urlsafe(18)}" for name in ("redis", "postgres")}
    overheard = Overheard(patch, lambda kind, value: scanner.plant(Secret(kind, value)))
    for name, password in passwords.items():
        scanner.plant(Secret(f"{name} password", password))
    work = folder / "work"
    work.mkdir()
    # Servers know hashes only, so that their files can be looked at too.
    hashed = sha256(passwords["redis"].encode()).hexdigest()
    redis = EmbeddedRedis(work / "redis", config={"user": f"{USER} on #{hashed} ~* &* +@all"})
    postgres = EmbeddedPostgres(work / "postgres", fsync=False)
    venues = tuple(
        VenueConfig(
            name, rate=50, accounts=2, account_rate=20,
            # Deribit's sessions that are ended before their time are noticed at the next renewal.
            limits=default_limits(name, **({"token_life": 15.0} if name == DERIBIT else WEIGHT)),
        )
        for name in VENUES
    )  # fmt: skip
    config = SimulatorConfig(venues, ledger=work / "ledger", seed=random.randbelow(1 << 30))
    await asyncio.gather(asyncio.to_thread(redis.start), asyncio.to_thread(postgres.start))
    try:
        async with Simulator(config) as sim, aiohttp.ClientSession() as http:
            made = Bed(folder, scanner, redis, postgres, sim, overheard, http, passwords, Chat())
            await made.chat.start()
            try:
                await _prepare(made)
                yield made
            finally:
                await made.stop()
                await made.chat.stop()
    finally:
        await asyncio.gather(asyncio.to_thread(redis.stop), asyncio.to_thread(postgres.stop))


async def _prepare(made: Bed) -> None:
    connection = await asyncpg.connect(made.postgres.url)
    try:
        secret = made.passwords["postgres"]
        # What the client hashes, the server's log and statistics never see.
        verifier = _scram(secret)
        await connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{verifier}' IN ROLE feedmill")
        await connection.execute(f"ALTER ROLE {USER} SET role = 'feedmill'")
    finally:
        await connection.close()
    kek = base64.b64encode(random.token_bytes(32)).decode()
    made.plant("KEK", kek)
    made.secret("kek", kek=f"first {kek}\n")
    token = f"7312345678:Planted_{random.token_urlsafe(18)}"
    made.plant("bot token", token)
    made.secret("telegram", token=token)
    made.secret(
        "servers",
        redis=f"redis://{USER}:{made.passwords['redis']}@127.0.0.1:{made.redis.port}/0",
        postgres=f"postgresql://{USER}:{made.passwords['postgres']}@127.0.0.1:{made.postgres.port}/feedmill",
    )


def _scram(password: str) -> str:
    """As PostgreSQL keeps a password."""
    import hashlib
    import hmac

    salt, rounds = random.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    told = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${rounds}:{told[0]}${told[1]}:{told[2]}"
