"""A world with everything that can be observed: feed, accounts, notifier, backups; and a Prometheus that watches it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from faults.world import Setup, World, feed_name, made

from clusterkit.prometheus import Prometheus, compressed
from feedmill.local.api import ApiServer
from feedmill.local.embedded.files import write_private
from feedmill.local.process import ServiceProcess
from feedmill_operator.build.monitoring import ALERTS, rule

FACTOR = 60
"""Minutes of a rule are seconds here."""
SLOWER = {"FeedmillPodRestarting": 10}
"""Of rules that tell of what takes as long here as anywhere: the start of a process."""
TOKEN = "7312345678:AAH-fake_token-for-tests_0123456789abcd"
VENUE, QUIET = "binance/Spot", "deribit/Derivatives"
"""Whose connections are cut and stopped, and whose are left alone: a silence shows beside what was usual before."""
WRONG, BEHIND = "wrong", "behind"
"""Accounts of VENUE beside those of the store, reached by the same way as the feed; the key of the one is refused."""

_SPEC = """\
  notifications:
    telegram: {{botTokenSecretRef: {{name: telegram, key: token}}, chatId: "-1001", baseUrl: "{telegram}"}}
  backup:
    schedule: "* * * * *"
    destination: {{folder: {{path: "{backups}"}}}}
    encryption: {{keySecretRef: {{name: backup-key, key: key}}}}
    continuous: {{enabled: true, spool: {{size: 64Mi}}}}
    verify: {{schedule: "*/2 * * * *"}}
"""
_ACCOUNT = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: {exchange}, market: {market}, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  credentialsSecretRef: {{name: {name}}}
"""


class Chat:
    """Takes every message, while it is on."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._runner: web.AppRunner | None = None
        # Keeps the port while nobody listens: a server that is begun then would get it.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post(f"/bot{TOKEN}/{{method}}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, reuse_port=True)
        await site.start()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def close(self) -> None:
        await self.stop()
        self._held.close()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        self.texts.append(str(body.get("text", "")))
        return web.json_response({"ok": True, "result": {"message_id": len(self.texts)}})


class Observed:
    """``world`` flows, ``prometheus`` watches it, ``chat`` is told."""

    def __init__(self, world: World, prometheus: Prometheus, chat: Chat, secrets: Path, backups: Path) -> None:
        self.world = world
        self.prometheus = prometheus
        self.chat = chat
        self.secrets = secrets
        self.backups = backups

    # services
    def receiver(self) -> ServiceProcess:
        """Of VENUE."""
        (found,) = [service for service in self.world.services("receiver") if feed_name(VENUE) in service.name]
        return found

    @contextlib.contextmanager
    def stopped(self, services: Sequence[ServiceProcess]) -> Iterator[None]:
        """None of these processes does anything, as where a node hangs."""
        pids = [service.pid for service in services if service.pid is not None]
        assert len(pids) == len(services)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # commands
    async def command(self, *words: str) -> tuple[int, str]:
        """``feedmill`` with the world's manifest, Secrets and database; (exit code, what it wrote)."""
        given = ["-c", str(self.world.manifest), "--pipeline", "default/main", "--secrets-dir", str(self.secrets)]
        environ = os.environ | {"DATABASE_URL": self.world.postgres.url, "REDIS_URL": self.world.redis.url}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "feedmill.cli.main", *words, *given, env=environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        written, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, written.decode("utf-8", "replace")

    async def well(self, *words: str) -> None:
        """The same; it must succeed."""
        code, written = await self.command(*words)
        assert code == 0, written

    # accounts
    def give_key(self) -> None:
        """A key that the exchange knows, to the account whose own it refuses."""
        _write_key(self.secrets / WRONG, *_known_key(self.world, 0))


def _known_key(world: World, number: int) -> tuple[str, str]:
    """Of the exchange's first or second account: it listens to one only once a connection."""
    found = json.loads(world.accounts.keys_file.read_text("utf-8"))[VENUE]["accounts"]
    entry = [each for each in found if "apiSecret" in each][number]
    return entry["apiKey"], entry["apiSecret"]


def _write_key(folder: Path, key: str, secret: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / "apiKey", key)
    write_private(folder / "apiSecret", secret)


@contextlib.asynccontextmanager
async def observed(folder: Path) -> AsyncIterator[Observed]:
    """Everything flows; all is ended afterwards."""
    secrets, backups = folder / "secrets", folder / "backups"
    for name in ("telegram", "backup-key"):
        (secrets / name).mkdir(parents=True)
    write_private(secrets / "telegram" / "token", TOKEN)
    write_private(secrets / "backup-key" / "key", f"k1 {base64.b64encode(os.urandom(32)).decode()}\n")
    _write_key(secrets / WRONG, "a" * 64, "b" * 64)
    backups.write_text("a file where the folder should be")
    chat = Chat()
    await chat.start()

    def more(world: World) -> str:
        exchange, _, market = VENUE.partition("/")
        rest = world.simulation.endpoints[VENUE].rest
        _write_key(secrets / BEHIND, *_known_key(world, 1))
        text = _SPEC.format(telegram=f"http://127.0.0.1:{chat.port}", backups=backups)
        stream = f"ws://127.0.0.1:{world.proxies['exchange'].port}"
        for name in (WRONG, BEHIND):
            text += _ACCOUNT.format(name=name, exchange=exchange, market=market, stream=stream, rest=rest)
        return text

    setup = Setup(
        rate=600.0, seed=7, venues=(VENUE, QUIET), accounts=2, account_rate=2.0, members=1, memory="2Mi", spill="1Mi",
        proxied=True, restart_cap=0.2, history=200, more=more,
        secrets=secrets, follow=True,
    )  # fmt: skip
    try:
        async with made(folder / "world", setup) as world:
            api = ApiServer(world.manager, port=0)
            await api.start()
            try:
                scrape = {
                    "job_name": "feedmill",
                    "http_sd_configs": [{"url": f"{api.url}/targets", "refresh_interval": "1s"}],
                }
                shards = [(feed_name(venue), 0) for venue in (VENUE, QUIET)]
                rules = [
                    compressed(rule(alert, "default", "main", shards), SLOWER.get(alert.name, FACTOR))
                    for alert in ALERTS
                ]
                async with Prometheus(folder / "prometheus", scrape, rules) as prometheus:
                    yield Observed(world, prometheus, chat, secrets, backups)
            finally:
                await api.stop()
    finally:
        await chat.close()


async def set_memory(world: World, share: float | None) -> None:
    """Let Redis be used to this share of its memory; None = as it was."""
    import redis.asyncio as redis_asyncio

    client: Any = redis_asyncio.Redis.from_url(world.redis.url)
    try:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", int(used / share) if share is not None else 1 << 30)
    finally:
        await client.aclose()
