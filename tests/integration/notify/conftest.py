"""A Telegram of our own over real HTTP, and a pipeline's database with an outbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from feedmill.cli.migrate import migrate_sync
from feedmill.general.notify.outbox_sql import REGISTER
from feedmill.shared.clock import now_ns

TOKEN = "7312345678:AAH-fake_token-for-tests_0123456789abcd"
CHAT = -1001234
SPECIAL = "_*[]()~`>#+-=|{}.!\\"


class BadMarkdown(ValueError):
    """As the Bot API says it."""


def shown(text: str) -> str:
    """What a chat shows of MarkdownV2 with bold and escapes, which is all that we use. Raises BadMarkdown."""
    found, at, bold = [], 0, False
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
            found.append(text[at : at + 1])
        elif char == "*":
            bold = not bold
        elif char in SPECIAL:
            raise BadMarkdown(f"Bad Request: can't parse entities: Character '{char}' is reserved")
        else:
            found.append(char)
        at += 1
    if bold:
        raise BadMarkdown("Bad Request: can't parse entities: Can't find end of Bold entity")
    return "".join(found)


@dataclass(slots=True)
class Received:
    """One message that is in the chat."""

    text: str
    at: float
    silent: bool
    chat: int


@dataclass
class FakeTelegram:
    """``.url``; ``.messages``: what is in chats. Faults: ``fails`` are used up one a request, before anything else."""

    token: str = TOKEN
    chat: int = CHAT
    per_minute: int = 60
    messages: list[Received] = field(default_factory=list)
    requests: list[tuple[float, str]] = field(default_factory=list)
    """(time, method) of each, whatever came of it."""
    fails: list[str] = field(default_factory=list)
    """error | limit:SECONDS | lose (taken, not answered) | bad | echo:STATUS | blocked | moved:ID | hang | html."""
    updates: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    _held: socket.socket | None = None
    """Keeps the port while nobody listens: a server that another test begins then would get it."""
    broken: list[str] = field(default_factory=list)
    """What real Telegram would not have put up with: requests during a rest it asked for, or with a wrong body."""
    _rest_until: float = 0.0
    _runner: web.AppRunner | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/bot{token}/{method}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        if self._held is None:
            self._held = socket.socket()
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._held.bind(("127.0.0.1", 0))
            self.port = self._held.getsockname()[1]
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, reuse_port=True)
        await site.start()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def close(self) -> None:
        """Once and for all."""
        await self.stop()
        if self._held is not None:
            self._held.close()

    async def until(self, done: Callable[[Sequence[Received]], bool], timeout: float = 240.0) -> None:
        """Wait until the messages are as wanted."""
        try:
            async with asyncio.timeout(timeout):
                while not done(self.messages):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"not as wanted: {[each.text for each in self.messages]}") from None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        now, method = time.monotonic(), request.match_info["method"]
        self.requests.append((now, method))
        self._arrived.set()
        if request.match_info["token"] != self.token:
            return _error(401, "Unauthorized")
        body = await request.json() if request.can_read_body else {}
        if now < self._rest_until:
            self.broken.append(f"{method} {self._rest_until - now:.1f} s before the rest was over")
        fault = self.fails.pop(0) if self.fails else ""
        name, _, detail = fault.partition(":")
        if name == "error":
            return _error(500, "Internal Server Error")
        if name == "html":
            return web.Response(status=200, text="<html>a captive portal</html>", content_type="text/html")
        if name == "bad":
            return _error(400, "Bad Request: message text is empty")
        if name == "echo":
            return _error(int(detail), f"Bad Gateway: POST {request.url} was refused")
        if name == "blocked":
            return _error(403, "Forbidden: bot was blocked by the user")
        if name == "hang":
            await asyncio.sleep(3600)
        if name == "limit":
            self._rest_until = now + float(detail)
            return _error(429, f"Too Many Requests: retry after {detail}", retry_after=int(detail))
        if name == "moved":
            self.chat = int(detail)
            text = "Bad Request: group chat was upgraded to a supergroup chat"
            return _error(400, text, migrate_to_chat_id=int(detail))
        if method == "getMe":
            return _ok({"id": 1, "is_bot": True, "username": "feedmill_test_bot", "first_name": "Feedmill"})
        if method == "getUpdates":
            return _ok(self.updates)
        if str(body.get("chat_id")) != str(self.chat):
            return _error(400, "Bad Request: chat not found")
        if method == "getChat":
            return _ok({"id": self.chat, "type": "supergroup", "title": "Feeds *alerts*"})
        if method != "sendMessage":
            return _error(404, "Not Found")
        return self._send(request, body, now, lose=name == "lose")

    def _send(self, request: web.Request, body: dict[str, Any], now: float, *, lose: bool) -> web.Response:
        in_the_minute = [each.at for each in self.messages if each.at > now - 60.0 and each.chat == self.chat]
        if len(in_the_minute) >= self.per_minute:
            self.broken.append(f"more than {self.per_minute} messages a minute")
            return _error(429, "Too Many Requests: retry after 5", retry_after=5)
        text = str(body.get("text", ""))
        try:
            seen = shown(text) if body.get("parse_mode") == "MarkdownV2" else text
        except BadMarkdown as error:
            self.broken.append(str(error))
            return _error(400, str(error))
        if not 1 <= len(seen.encode("utf-16-le")) // 2 <= 4096:
            self.broken.append("message is too long")
            return _error(400, "Bad Request: message is too long")
        self.messages.append(Received(seen, now, bool(body.get("disable_notification")), self.chat))
        self._arrived.set()
        if lose:
            assert request.transport is not None
            request.transport.abort()
        return _ok({"message_id": len(self.messages), "chat": {"id": self.chat}, "text": seen})


def _ok(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def _error(status: int, description: str, **parameters: int) -> web.Response:
    document: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    if parameters:
        document["parameters"] = parameters
    return web.json_response(document, status=status)


@pytest.fixture
async def telegram() -> AsyncIterator[FakeTelegram]:
    made = FakeTelegram()
    await made.start()
    yield made
    await made.close()


MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  notifications: {telegram: TELEGRAM}
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
LETTER = """
INSERT INTO dead_letters (shard, session, batch, idx, conn, receive_ns, reason, detail, code_version, payload)
VALUES ('default.spot.0', 's', $1, 0, 1, $2, $3, $4, '1', '')
"""
WORK = ("Backup", "Drill", "Restore")
KINDS = (
    *("Fill", "Order", "Transfer", "DeadLetters", "DataLost"),
    *(f"{what}{end}" for what in WORK for end in ("Failed", "Done")),
)


def _put(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass
class Desk:
    """A migrated database, a manifest and a folder of Secrets."""

    database_url: str
    folder: Path

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def manifest(self) -> Path:
        return self.folder / "feed.yaml"

    def write(self, telegram: FakeTelegram, **telegram_spec: Any) -> None:
        """The manifest, with this Telegram, and its token."""
        spec = {
            "botTokenSecretRef": {"name": "telegram", "key": "token"},
            "chatId": str(telegram.chat),
            "baseUrl": telegram.url,
            "perMinute": 60,
            "minimumSeverity": "Info",
            "accountEvents": ["Fills", "Orders", "Transfers"],
            **telegram_spec,
        }
        (self.secrets / "telegram").mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a manifest whose Secret was empty at that moment is refused until it changes again.
        _put(self.secrets / "telegram" / "token", telegram.token)
        _put(self.manifest, MANIFEST.replace("TELEGRAM", json.dumps(spec)))

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def register(self, *kinds: str, pipeline: str = "default/main") -> None:
        """As a notifier that wants these kinds does."""
        async with self.session() as connection:
            feeds = json.dumps(["default/spot"])
            await connection.execute(REGISTER, pipeline, json.dumps(kinds or KINDS), feeds, now_ns() - 10**9)

    async def rows(self) -> list[dict[str, Any]]:
        async with self.session() as connection:
            found = await connection.fetch("SELECT * FROM notifications ORDER BY id")
        return [dict(row) | {"body": json.loads(row["body"])} for row in found]

    async def until(self, statement: str, wanted: Any) -> None:
        """Wait until a query gives that value."""
        found: Any = None
        try:
            async with asyncio.timeout(240.0), self.session() as connection:
                while (found := await connection.fetchval(statement)) != wanted:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{statement}: {found!r}, not {wanted!r}") from None

    async def letters(self, count: int, first: int = 0, reason: str = "") -> None:
        """Dead letters, each in a transaction and under a reason of its own: one notice each."""
        async with self.session() as connection:
            for number in range(first, first + count):
                named = reason or f"reason_{number:04d}"
                await connection.execute(LETTER, number, now_ns(), named, "what_came *was* [odd]")


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> Desk:
    await asyncio.to_thread(migrate_sync, database_url)
    return Desk(database_url, tmp_path)


class Process:
    """The notifier. ``.log``: what it wrote."""

    def __init__(self, desk: Desk, *more: str) -> None:
        self.desk = desk
        self.more = more
        self.log = b""
        self.process: asyncio.subprocess.Process | None = None
        self.reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        command = (
            *(sys.executable, "-m", "feedmill.cli.main", "run", "notify", "-c", str(self.desk.manifest)),
            *("--pipeline", "default/main", "--secrets-dir", str(self.desk.secrets), "--log-level", "debug"),
            *("--port-file", str(self.desk.folder / "notify.port"), *self.more),
        )
        self.process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "DATABASE_URL": self.desk.database_url}, stderr=asyncio.subprocess.PIPE
        )
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65536):
            self.log += chunk

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        assert self.reader is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 120)
        await self.reader
        return code

    async def page(self, name: str) -> str:
        port = int((self.desk.folder / "notify.port").read_text())
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/{name}") as answer:
            return await answer.text()

    async def health(self) -> dict[str, Any]:
        return dict(json.loads(await self.page("health")))

    async def until_state(self, *states: str) -> dict[str, Any]:
        """Wait until sending is in one of these states."""
        async with asyncio.timeout(240.0):
            while True:
                with contextlib.suppress(OSError, ValueError, aiohttp.ClientError):
                    section = (await self.health())["notify"]
                    if section.get("state") in states:
                        return dict(section)
                await asyncio.sleep(0.05)


@pytest.fixture
async def notifier(desk: Desk, telegram: FakeTelegram) -> AsyncIterator[Process]:
    desk.write(telegram)
    made = Process(desk)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.end(signal.SIGKILL)
