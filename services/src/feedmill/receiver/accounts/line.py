"""One private connection: carries out what its state machine says. Thin: socket, REST calls, time, nothing of a venue.

Subscriptions cost REST weight. Where a connection carries many accounts they are made one after the other, each when
its weight was granted: a thousand accounts do not use up the budget, and no deadline runs before its request is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from pydantic import SecretStr
from yarl import URL

from feedmill.exchanges.account_base import Credentials, Mend, Rejection
from feedmill.exchanges.account_session import Action, Call, Close, Connect, Lost, PrivateConnection, Ready, Send
from feedmill.receiver.accounts.sink import Sink
from feedmill.receiver.causes import explain
from feedmill.shared.budget import Budget
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.http_body import read_body

CONNECT_TIMEOUT = 15.0
REST_TIMEOUT = 15.0
MAX_MESSAGE = 16 * 1024 * 1024
MAX_BODY = 1024 * 1024
MAX_OUTBOX = 4096
SUBSCRIBE_WEIGHT = 2
"""Taken from the budget before an account of many is asked for."""


class Line:
    """One life. ``run`` returns why it ended; accounts that were listened to are told as lost by then."""

    def __init__(
        self,
        connection: PrivateConnection,
        http: aiohttp.ClientSession,
        sink: Sink,
        weight: Budget,
        *,
        silence: float,
        ssl_context: ssl.SSLContext | None,
        on_lost: Callable[[str, Rejection | None], None],
        on_ready: Callable[[str], None],
        log: Any,
    ) -> None:
        self.connection = connection
        self._http = http
        self._sink = sink
        self._weight = weight
        self._silence = silence
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._log = log
        self.pending: deque[tuple[str, Credentials]] = deque()
        """Accounts to be asked for once the connection is open."""
        self.ready: set[str] = set()
        self._more = asyncio.Event()
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()
        self._outbox: asyncio.Queue[Send] = asyncio.Queue(MAX_OUTBOX)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._over: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self._last_frame = monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def over(self) -> bool:
        return self._over.done()

    @property
    def room(self) -> int:
        """How many accounts more it takes."""
        if self.over or self.connection.full:
            return 0
        return self.connection.capacity - len(self.connection.wanted) - len(self.pending)

    @property
    def accounts(self) -> set[str]:
        return {*self.connection.wanted, *(name for name, _ in self.pending)}

    def want(self, account: str, credentials: Credentials) -> None:
        """One account more; there must be room."""
        if self.connection.capacity == 1:
            self._do(self.connection.want(account, credentials, monotonic()))
            return
        self.pending.append((account, credentials))
        self._more.set()

    async def run(self) -> Close:
        """Until it has ended. Cancelled: every account is told as lost all the same."""
        try:
            self._spawn(self._send(), "send")
            self._spawn(self._tick(), "tick")
            self._spawn(self._subscribe(), "subscribe")
            self._do(self.connection.start(monotonic()))
            return await asyncio.shield(self._over)
        finally:
            self.finish(Close(""))
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._socket is not None:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(self._socket.close(), 1.0)

    def drop(self, account: str, actions: Iterable[Action]) -> None:
        """Listen to one account no longer; ``actions``: what its connection says to that."""
        self.pending = deque(each for each in self.pending if each[0] != account)
        self._do(actions)

    def finish(self, close: Close) -> None:
        if self._over.done():
            return
        self._over.set_result(close)
        for account in sorted(self.ready):
            self._sink.lost(account, close.cause or "shutdown", close.why)
        self.ready.clear()

    # -- actions

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Connect):
                self._spawn(self._connect(action.url), "connect")
            elif isinstance(action, Send):
                try:
                    self._outbox.put_nowait(action)
                except asyncio.QueueFull:
                    self.finish(Close("unanswered"))
            elif isinstance(action, Call):
                self._spawn(self._call(action), "call")
            elif isinstance(action, Ready):
                self.ready.add(action.account)
                self._sink.ready(action.account)
                self._on_ready(action.account)
            elif isinstance(action, Lost):
                self._account_lost(action)
            else:
                self.finish(action)
        self._changed.set()

    def _account_lost(self, lost: Lost) -> None:
        if lost.account in self.ready:
            self.ready.discard(lost.account)
            self._sink.lost(lost.account, lost.cause or "shutdown", lost.why)
        if lost.cause:
            self._on_lost(lost.account, lost.why)

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._guard(work), name=f"account-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            # No text of it: it may hold what was sent.
            self._log.error("account.line_failed", error=type(error).__name__)
            self.finish(Close("error"))

    # -- the socket

    async def _connect(self, url: SecretStr) -> None:
        text = url.get_secret_value()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                self._socket = await self._http.ws_connect(
                    URL(text, encoded=True), autoping=False, autoclose=True, max_msg_size=MAX_MESSAGE, ssl=self._ssl
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status = error.status if isinstance(error, aiohttp.WSServerHandshakeError) else 0
            cause = f"HTTP {status}" if status else explain(text, error).cause
            wait = 60.0 if status in (418, 429) else None
            self.finish(Close("error", Rejection(Mend.RETRY, status, f"no connection: {cause}", wait)))
            return
        self._last_frame = monotonic()
        self._do(self.connection.opened(monotonic()))
        self._opened.set()
        await self._read(self._socket)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            self._last_frame = monotonic()
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                data = message.data
                self._received(data.encode() if isinstance(data, str) else data)
                if self.over:
                    return
        self.finish(Close("closed"))

    def _received(self, payload: bytes) -> None:
        at = now_ns()
        got = self.connection.frame(payload, monotonic())
        if got.record:
            self._sink.frame(got.account, at, payload)
        self._do(got.actions)

    async def _send(self) -> None:
        await self._opened.wait()
        assert self._socket is not None
        while True:
            action = await self._outbox.get()
            try:
                await self._socket.send_str(action.payload.decode())
            except (aiohttp.ClientError, OSError):
                self.finish(Close("closed"))
                return

    async def _subscribe(self) -> None:
        await self._opened.wait()
        while True:
            while self.pending:
                await self._weight.take(SUBSCRIBE_WEIGHT)
                if self.pending:  # It may have been dropped meanwhile.
                    account, credentials = self.pending.popleft()
                    self._do(self.connection.want(account, credentials, monotonic()))
            self._more.clear()
            await self._more.wait()

    async def _tick(self) -> None:
        while True:
            now = monotonic()
            if self._opened.is_set() and now - self._last_frame > self._silence:
                self.finish(Close("silent"))
                return
            self._do(self.connection.tick(now))
            left = min(self.connection.due - monotonic(), max(1.0, self._silence / 4))
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, left)):
                    await self._changed.wait()

    # -- REST

    async def _call(self, call: Call) -> None:
        await self._weight.take(call.weight)
        request = call.request
        status, body = 0, b""
        headers: dict[str, str] = {}
        try:
            async with (
                asyncio.timeout(REST_TIMEOUT),
                self._http.request(
                    request.method, URL(request.url.get_secret_value(), encoded=True), headers=request.headers,
                    data=request.body or None, ssl=self._ssl, allow_redirects=False,
                ) as answer,
            ):  # fmt: skip
                status, headers = answer.status, dict(answer.headers)
                body = await read_body(answer, MAX_BODY)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._log.warning("account.rest_failed", error=type(error).__name__)
        self._do(self.connection.answered(call.number, status, headers, body, monotonic()))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
