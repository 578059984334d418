"""What the demonstration waits for: feeds that flow, accounts that are listened to, everything gone through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from redis.exceptions import RedisError

from feedmill.local.demo.account_figures import Watch
from feedmill.local.demo.accounts import DemoAccount
from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager
from feedmill.local.positions import Positions, PositionsAway, ShardPosition
from feedmill.local.session import LocalSession
from feedmill.shared.breaker import BreakerOpen
from feedmill.shared.keys import account_ref

FLOW_TIMEOUT = 60.0
"""Seconds until every feed must flow, and then every account."""
SETTLE_TIMEOUT = 60.0


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
    """Until what was captured is dispatched, what was dispatched is stored, and of accounts nothing is asked for."""
    assert manager.redis is not None
    own = [account_ref(account.key) for account in accounts]
    positions = Positions(manager.redis, [*manager.shards, *own])
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while True:
                with contextlib.suppress(PositionsAway, RedisError, OSError, BreakerOpen):
                    # What was known before a gap is kept until all that it may have hidden has been asked for.
                    asking = await manager.redis.execute_all([("HEXISTS", ref.checkpoint, "base") for ref in own])
                    if asking == [0] * len(own) and all(map(_is_through, await positions.read())):
                        return
                await asyncio.sleep(0.02)
    except TimeoutError:
        say(f"not all has gone through after {SETTLE_TIMEOUT:g} s")


def _is_through(position: ShardPosition) -> bool:
    return position.raw_drained and position.events_drained
