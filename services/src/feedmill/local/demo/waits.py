"""What the demonstration waits for: feeds that flow, accounts that are listened to, everything gone through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import asyncpg

from feedmill.local.demo.account_figures import Watch
from feedmill.local.demo.accounts import DemoAccount
from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager
from feedmill.local.positions import Positions, PositionsAway
from feedmill.local.session import LocalSession
from feedmill.shared import postgres
from feedmill.shared.keys import account_ref

FLOW_TIMEOUT = 20.0
"""Seconds until every feed must flow, and then every account."""
SETTLE_TIMEOUT = 20.0


async def until_flowing(session: LocalSession, logs: Path) -> None:
    try:
        async with asyncio.timeout(FLOW_TIMEOUT):
            while True:
                figures = session.outcome.figures
                if figures and all(item.flowing for item in figures):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        waiting = "; ".join(f"{item.feed}: {item.state}" for item in session.outcome.figures if not item.flowing)
        raise ManagerError(f"not all feeds flow after {FLOW_TIMEOUT:g} s ({waiting}): see the logs in {logs}") from None


async def until_listening(watch: Watch, since_ns: Mapping[str, int], logs: Path) -> None:
    """Until each account is listened to, and what it missed is stored, up to ``since_ns``. Raises ManagerError."""
    missing = list(since_ns)
    try:
        async with asyncio.timeout(FLOW_TIMEOUT):
            while missing:
                until = {each.name: each.closed_ns for each in watch.seen.accounts if each.flowing}
                missing = [name for name, ns in since_ns.items() if until.get(name, -1) <= ns]
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise ManagerError(
            f"not all accounts are listened to after {FLOW_TIMEOUT:g} s ({', '.join(missing)}): see the logs in {logs}"
        ) from None


async def until_replayed(simulation: Simulation) -> None:
    """Until nothing more has come for a while (a recording of half a minute, at its own pace)."""
    loop = asyncio.get_running_loop()
    last, moved = -1, loop.time()
    while loop.time() - moved < 3.0:
        stats = await simulation.stats()
        now = sum(emitted(found) for found in stats.values() if found is not None)
        if now != last:
            last, moved = now, loop.time()
        await asyncio.sleep(0.2)


async def until_settled(manager: ServiceManager, accounts: Sequence[DemoAccount], say: Callable[[str], None]) -> None:
    """Until what was captured is dispatched, and what was dispatched is stored."""
    assert manager.redis is not None
    feeds = Positions(manager.redis, manager.shards)
    own = Positions(manager.redis, [account_ref(account.key) for account in accounts])
    connection = await postgres.connect(manager.servers.database_url, name="feedmill-demo")
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while True:
                if await _settled(feeds, own, connection):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        say(f"not all has gone through after {SETTLE_TIMEOUT:g} s")
    finally:
        await postgres.close(connection)


async def _settled(feeds: Positions, own: Positions, connection: asyncpg.Connection) -> bool:
    with contextlib.suppress(PositionsAway):
        if not all(item.raw_drained and item.events_drained for item in await feeds.read()):
            return False
        found = await own.read()
        # How far accounts are stored only the database says.
        rows = await connection.fetch("SELECT shard, stream_id FROM applied")
        stored = {row["shard"]: row["stream_id"] for row in rows}
        return all(item.raw_drained and item.emitted == stored.get(str(item.shard), "") for item in found)
    return False
