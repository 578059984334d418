"""Trades of lost commits are asked for by REST: only the processor still knows that they are missing.

After a wiped Redis the distributor began anew with the first trade it saw, so the numbers before that are told by the
processor's own rows (see ``losses``). It asks for the first page of them; its answer goes through the raw stream like
any trade, and shows the distributor what lies between, which it then asks for itself. A row whose numbers do not come
is asked for a few times, ever more seldom, and stays open.

After a restore from a backup (see ``restored``) the distributor may know the numbers, have emitted them and take any
answer for known: it is told that they are missing, and asks for them itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from feedmill.exchanges.base import ChannelName
from feedmill.processor import losses_sql as sql
from feedmill.processor import measures
from feedmill.processor.settings import ShardSettings
from feedmill.processor.statements import OWN, RESTORED
from feedmill.shared import postgres
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.clock import MS, monotonic, now_ns
from feedmill.shared.control import Command, Missing, SessionEnd, encode
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, encode_batch
from feedmill.shared.lease import AWAY, Link, sleep_or
from feedmill.shared.redis.wire import Script

AT_ONCE = 8
"""Rows asked for in one round."""
ATTEMPTS = 6
WAIT = 20.0
"""Seconds until a row of which nothing came is asked for again; doubled each time."""
ASK = Script("""#!lua flags=allow-oom
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', '1000', '*', 'c', ARGV[1])
""")
TELL = Script("""#!lua flags=allow-oom
return redis.call('XADD', KEYS[1], '*', 'b', ARGV[1])
""")
SESSION = "restore"
"""Replica of the sessions that tell what a restored database lacks."""
MAX_RANGES = 1000
"""Of one row told at a time: the rest once these have come."""


@dataclass(slots=True)
class Asked:
    """A row that was asked for, from this number on."""

    low: int
    times: int = 0
    again: float = 0.0


class Repairer:
    """One per processor process, for the shards it owns."""

    def __init__(
        self,
        database_url: postgres.Url,
        link: Link,
        shards: Callable[[], Sequence[ShardSettings]],
        *,
        database: Breaker,
        every: float,
        timeout: float,
        log: Any,
    ) -> None:
        """``shards``: those owned now that have lost commits; ``every``: seconds between two looks."""
        self._database_url = database_url
        self._link = link
        self._shards = shards
        self._breaker = database
        self._every = every
        self._timeout = timeout
        self._log = log
        self._asked: dict[str, Asked] = {}
        """By row. Those that are closed are forgotten."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look for rows until ``stop``; servers that are away are asked the next time. A fault here must not stop the
        storing of trades."""
        while not stop.is_set():
            await sleep_or(stop, self._every)
            if stop.is_set():
                return
            try:
                await self.look()
            except (BreakerOpen, *AWAY):
                continue
            except Exception as error:
                if postgres.is_retryable(error):
                    self._log.info("repair.interrupted", error=postgres.describe(error))
                else:
                    self._log.exception("repair.fault")

    async def look(self) -> None:
        """Ask for what is due. Raises what the servers' clients raise, and BreakerOpen."""
        shards = {str(shard.ref): shard for shard in self._shards() if shard.trades_page}
        if not shards:
            return
        # The breaker is about PostgreSQL alone: neither a look that asks nobody nor a Redis that is away says anything.
        rows = await self._breaker.call(self._rows, list(shards))
        self._asked = {row["id"]: self._asked[row["id"]] for row in rows if row["id"] in self._asked}
        due = [row for row in rows if self._is_due(row)]
        for row in [row for row in due if row["revision"] < RESTORED][:AT_ONCE]:
            await self._ask(shards[row["shard"]], row)
        for name, shard in shards.items():
            if lacking := [row for row in due if row["shard"] == name and row["revision"] >= RESTORED]:
                await self._tell(shard, lacking)

    async def _rows(self, shards: list[str]) -> list[asyncpg.Record]:
        connection = await postgres.connect(
            self._database_url, name="feedmill processor repair", command_timeout=self._timeout
        )
        try:
            return await connection.fetch(sql.TO_REPAIR, shards, OWN, ChannelName.TRADES.value)
        finally:
            await postgres.close(connection)

    def _is_due(self, row: asyncpg.Record) -> bool:
        asked = self._asked.setdefault(row["id"], Asked(row["low"]))
        if asked.low != row["low"]:  # Some of it came.
            self._asked[row["id"]] = asked = Asked(row["low"], again=monotonic() + WAIT)
        return asked.times < ATTEMPTS and monotonic() >= asked.again

    async def _ask(self, shard: ShardSettings, row: asyncpg.Record) -> None:
        low, high, symbol = row["low"], row["high"], row["symbol"]
        command = Command(
            id=secrets.token_hex(8), kind="trades", symbol=symbol, native=shard.natives.get(symbol, symbol),
            channel=ChannelName.TRADES.value, issued_ns=now_ns(), reason="lost commits", from_id=low,
            to_id=min(high, low + shard.trades_page - 1), from_ns=row["from_ns"] or 0, to_ns=row["to_ns"] or 0,
        )  # fmt: skip
        await self._link.run(ASK, shard.ref.commands, encode(command))
        self._was_asked(row, low, command.to_id)

    async def _tell(self, shard: ShardSettings, rows: Sequence[asyncpg.Record]) -> None:
        """Tell the distributor what is missing, in a session of its own that ends with it."""
        records: list[bytes] = []
        for row in rows:
            ranges = [(each.lower, each.upper - 1) for each in row["missing"]]
            missing = Missing(row["symbol"], ranges[:MAX_RANGES], row["from_ns"] or 0, row["to_ns"] or 0)
            records.append(encode(missing))
        records.append(encode(SessionEnd()))
        at_ns = now_ns()
        session = f"{SESSION}-{at_ns // MS:012x}{secrets.token_hex(3)}"
        run = Run(int(RunKind.CONTROL), 0, [at_ns] * len(records), records)
        await self._link.run(TELL, shard.ref.raw, encode_batch(RawBatch(VERSION, session, 1, [run])))
        for row in rows:
            self._was_asked(row, row["low"], row["high"])

    def _was_asked(self, row: asyncpg.Record, low: int, high: int) -> None:
        asked = self._asked[row["id"]]
        asked.times += 1
        asked.again = monotonic() + WAIT * 2.0 ** (asked.times - 1)
        self._log.info("repair.asked", gap=row["id"], from_id=low, to_id=high, time=asked.times)
        if asked.times == ATTEMPTS:
            measures.given_up.inc()
            self._log.warning(
                "gap.not_offered", gap=row["id"], effect="unless it comes still, the gap stays open",
                remedy="the venue no longer gives these trades: load them from an archive, or accept the gap",
            )  # fmt: skip
