"""Reads what distributors ask for, from the tip of the commands stream at start.

A REST request is made by one replica: who claims the command in Redis first. A resubscription concerns each of them.
"""

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
from feedmill.shared.redis.wire import Script, Wire, WireError, connect

BLOCK_MS = 2000
CLAIM_MS = 120_000
"""How long a claim is remembered: longer than a command is worth carrying out."""
STAND_BACK = 0.25
"""Seconds that one whose last request failed leaves a command to the others."""
BY_ONE = frozenset({"book_snapshot", "trades", "instruments"})
CLAIM = Script(
    """#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
)
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
        replica: str = "",
        max_age: float = 30.0,
        well: Callable[[], bool] = lambda: True,
        log: Any,
    ) -> None:
        """``well``: whether this replica's requests come through."""
        self._url = url
        self._shard = shard
        self._replica = replica
        self._well = well
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
                await self._take(wire, dict(zip(fields[::2], fields[1::2], strict=True)).get(b"c", b""))

    async def _take(self, wire: Wire, payload: bytes) -> None:
        try:
            command = decode_command(payload)
        except msgspec.DecodeError:
            metrics.commands.labels("?", "unreadable").inc()
            self._log.warning("command.unreadable", size=len(payload))
            return
        what = self._filter.judge(command, now_ns())
        if what == "do" and command.kind in BY_ONE and not await self._claim(wire, command):
            what = "left"
        metrics.commands.labels(command.kind, what).inc()
        if what == "do":
            self._handle(command)

    async def _claim(self, wire: Wire, command: Command) -> bool:
        """Whether it is for this replica to carry out."""
        if not self._well():
            await asyncio.sleep(STAND_BACK)
        async with asyncio.timeout(5.0):
            key = self._shard.key(f"commands:claimed:{command.id}")
            return bool(await wire.run(CLAIM, [key], self._replica, CLAIM_MS))
