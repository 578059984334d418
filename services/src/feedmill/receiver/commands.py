"""Reads what distributors ask for.

A REST request is made by one replica: who claims the command in Redis first. A claim holds while its session lives:
when sessions begin or end, the distributor issues what has no answer yet once more and names those that live. A
receiver that starts reads what was asked for shortly before, so that nobody's command waits for its answer in vain. A
resubscription concerns each replica, on the connections it has when it is asked for.
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
CLAIM_MS = 240_000
"""How long a claim is remembered: longer than a command is worth carrying out."""
STAND_BACK = 0.25
"""Seconds that one whose last request failed leaves a command to the others."""
BY_ONE = frozenset({"book_snapshot", "trades", "instruments"})
CLAIM = Script(
    """#!lua flags=allow-oom
local holder = redis.call('GET', KEYS[1])
if holder and not (holder == ARGV[1] and ARGV[3] ~= '') then
  if ARGV[4] == '' or holder == ARGV[1] then
    return 0
  end
  for place = 5, #ARGV do
    if holder == ARGV[place] then
      return 0
    end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)
"""KEYS claim; ARGV session, ms, not empty = this session's own claim may be one whose answer did not come, empty = any
claim holds, the sessions that live. -> 1 = it is this session's now."""
REMEMBERED = 4096


class CommandFilter:
    """Which commands to carry out: each issue of an id once, none older than ``max_age`` seconds, and of what concerns
    connections none from before ``since_ns``. Pure."""

    def __init__(self, max_age: float, since_ns: int = 0) -> None:
        self._max_age_ns = int(max_age * SECOND)
        self._since_ns = since_ns
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()

    def judge(self, command: Command, now: int) -> str:
        """``do``, ``doubled`` or ``stale``."""
        key = (command.id, command.issued_ns)
        if key in self._seen:
            return "doubled"
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if command.kind not in BY_ONE and command.issued_ns < self._since_ns:
            return "stale"
        return "stale" if now - command.issued_ns > self._max_age_ns else "do"

    def forget(self, command: Command) -> None:
        """It was not carried out, and comes again."""
        self._seen.pop((command.id, command.issued_ns), None)


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
        session: Callable[[], str] = lambda: "",
        max_age: float = 30.0,
        well: Callable[[], bool] = lambda: True,
        log: Any,
    ) -> None:
        """``session``: this process's, now; ``well``: whether its requests come through."""
        self._url = url
        self._shard = shard
        self._session = session
        self._well = well
        self._key = shard.commands
        self._breaker = breaker
        self._handle = handle
        self._max_age = max_age
        self._filter = CommandFilter(max_age, now_ns())
        self._log = log
        self._doubtful = ""
        """The command whose claim got no answer: the server may have it."""
        self.position: str | None = None
        """Id of the last entry that was taken; None before it is known where to begin."""

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
                seconds, _ = await wire.call("TIME")
                self.position = f"{max(0, int((int(seconds) - self._max_age) * 1000))}-0"
            reply = await wire.call("XREAD", "COUNT", 100, "BLOCK", BLOCK_MS, "STREAMS", self._key, self.position)
        for _, entries in reply or ():
            for entry, fields in entries:
                await self._take(wire, dict(zip(fields[::2], fields[1::2], strict=True)).get(b"c", b""))
                self.position = entry.decode()

    async def _take(self, wire: Wire, payload: bytes) -> None:
        try:
            command = decode_command(payload)
        except msgspec.DecodeError:
            metrics.commands.labels("?", "unreadable").inc()
            self._log.warning("command.unreadable", size=len(payload), effect="it is left out")
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
        key = self._shard.key(f"commands:claimed:{command.id}")
        living = ("",) if command.living is None else ("again", *command.living)
        doubtful = command.id if self._doubtful == command.id else ""
        try:
            async with asyncio.timeout(5.0):
                won = bool(await wire.run(CLAIM, [key], self._session(), CLAIM_MS, doubtful, *living))
        except (OSError, TimeoutError, WireError):
            self._doubtful = command.id
            self._filter.forget(command)
            raise
        self._doubtful = ""
        return won
