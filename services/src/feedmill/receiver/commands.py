"""Reads what distributors ask for, from the tip of the commands stream at start."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from feedmill.receiver import metrics
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.control import Command, decode_command
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect

BLOCK_MS = 2000
REMEMBERED = 4096


class CommandFilter:
    """Which commands to carry out: each id once, none older than ``max_age`` seconds. Pure."""

    def __init__(self, max_age: float) -> None:
        self._max_age_ns = int(max_age * SECOND)
        self._seen: OrderedDict[str, None] = OrderedDict()

    def judge(self, command: Command, now: int) -> str:
        """``do``, ``doubled`` or ``stale``."""
        if command.id in self._seen:
            return "doubled"
        self._seen[command.id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return "stale" if now - command.issued_ns > self._max_age_ns else "do"


class CommandReader:
    """``handle(command)`` is called for each command to carry out; it must not block.

    Behind the same breaker as appends: nothing is tried while it is not closed. Its own outcomes are not counted, since
    a server that answers reads but refuses writes is away for a receiver. On a bare wire: redis-py's blocking reads can
    swallow a cancellation on Python 3.11 (its ``asyncio.wait_for``), and then the process would not stop.
    """

    def __init__(
        self,
        url: RedisUrl,
        shard: ShardRef,
        breaker: Breaker,
        handle: Callable[[Command], None],
        *,
        max_age: float = 30.0,
        log: Any,
    ) -> None:
        self._url = url
        self._key = shard.commands
        self._breaker = breaker
        self._handle = handle
        self._filter = CommandFilter(max_age)
        self._log = log
        self.position: str | None = None
        """Id of the last entry read; None before the tip is known."""

    async def run(self) -> None:
        """Read until cancelled."""
        backoff = Backoff(0.25, 5.0)
        while True:
            await self._breaker.wait_closed()
            try:
                wire = await connect(self._url, name="feedmill-receiver-commands")
                try:
                    while True:
                        await self._read(wire)
                        backoff.reset()
                finally:
                    wire.abort()
            except (OSError, TimeoutError, WireError) as error:
                self._log.warning("commands.unreadable", error=type(error).__name__)
                await asyncio.sleep(backoff.next())

    async def _read(self, wire: Wire) -> None:
        async with asyncio.timeout(BLOCK_MS / 1000 + 5.0):
            if self.position is None:
                tip = await wire.call("XREVRANGE", self._key, "+", "-", "COUNT", 1)
                self.position = tip[0][0].decode() if tip else "0-0"
            reply = await wire.call("XREAD", "COUNT", 100, "BLOCK", BLOCK_MS, "STREAMS", self._key, self.position)
        for _, entries in reply or ():
            for entry, fields in entries:
                self.position = entry.decode()
                self._take(dict(zip(fields[::2], fields[1::2], strict=True)).get(b"c", b""))

    def _take(self, payload: bytes) -> None:
        try:
            command = decode_command(payload)
        except msgspec.DecodeError:
            metrics.commands.labels("?", "unreadable").inc()
            self._log.warning("command.unreadable", size=len(payload))
            return
        what = self._filter.judge(command, now_ns())
        metrics.commands.labels(command.kind, what).inc()
        if what == "do":
            self._handle(command)
