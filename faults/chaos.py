"""The random mode: kills, pauses, partitions and corruption in random order, some at once, by a seed.

The schedule depends on the seed alone; when exactly a step meets which message does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults.judge import Measured, Promise, breaches
from faults.proxy import Mode
from faults.world import FaultError, Setup, World, made, until
from feedmill.local.embedded import EmbeddedError
from feedmill.local.errors import ManagerError

REPLICAS = 2
TARGETS: dict[str, tuple[str, ...]] = {
    "redis": ("kill", "pause", "cut", "stall", "slow"),
    "postgres": ("kill", "pause", "cut", "stall", "slow"),
    "receiver": ("kill", "pause"),
    "distributor": ("kill", "pause"),
    "processor": ("kill", "pause"),
    "exchange": ("close", "abort", "silence", "half_open", "cut", "stall", "drop", "double", "swap", "bad_bytes"),
}
ACCOUNT_TARGETS: dict[str, tuple[str, ...]] = {
    "accounts": ("kill", "pause"),
    "private": ("close", "abort", "half_open", "expire_session", "rest_429", "double"),
}
"""More of them where accounts are listened to: members of the pool, and what accounts have of the exchange."""
LONGEST = 15.0
"""Seconds that a fault lasts at most."""
QUIET = 1.0
"""Seconds that a target is left alone after a fault at least."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault."""

    at: float
    """Seconds from the begin."""
    target: str
    what: str
    hold: float
    """Seconds until it is healed, for those that last."""
    which: int
    """Of several processes, connections or variants."""

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.what} {self.target} for {self.hold:.1f} s (#{self.which})"


def schedule(seed: int, seconds: float, *, accounts: bool = False) -> list[Step]:
    """Pure. No target has two faults at once; different ones may."""
    dice = random.Random(seed)
    targets = TARGETS | (ACCOUNT_TARGETS if accounts else {})
    free = dict.fromkeys(targets, 0.0)
    steps: list[Step] = []
    at = 0.0
    while True:
        at += dice.uniform(0.5, 8.0)
        if at >= seconds:
            return steps
        hold = min(dice.uniform(0.1, LONGEST), seconds - at)
        which = dice.randrange(1 << 16)
        ready = sorted(target for target, until_ in free.items() if until_ <= at)
        if not ready:
            continue
        target = dice.choice(ready)
        steps.append(Step(at, target, dice.choice(targets[target]), hold, which))
        free[target] = at + hold + QUIET


async def run(
    steps: Sequence[Step], setup: Setup, folder: Path, say: Callable[[str], None]
) -> tuple[Measured, list[str]]:
    found = Measured(f"random-{setup.seed}")
    began = time.monotonic()
    world: World | None = None
    # Connections: what hits an exchange or a receiver makes one anew, once or (two at once) twice for each replica.
    hits = sum(step.target in ("exchange", "receiver", "redis") for step in steps)
    promise = Promise(connects=None if setup.accounts else 10 + 3 * REPLICAS * hits)
    found.accounts = setup.accounts * len(setup.venues)
    try:
        async with made(folder, replace(setup, proxied=True, replicas=REPLICAS)) as world:
            await world.catch_up(60.0)
            before = await world.connects()
            await _all(world, steps, say)
            say("catching up")
            found.catch_up = await world.catch_up(300.0)
            await asyncio.sleep(5.0)
            # The last fault may show only now: of a loss at the very end of the flow no later trade would tell.
            await world.catch_up(300.0)
            found.connects, found.connects_most = await world.connects() - before, promise.connects
            await world.watch.look_at_lag()
            say("comparing")
            found.report = await world.settled(120.0)
            found.repaired = world.repaired
            found.open_gaps = await world.open_gaps()
            found.account_gaps, found.by_rest = await world.account_counts()
            found.peak, found.lag = world.watch.of_roles(world.watch.peak), world.watch.lag_ms()
            sent = sum(stats["faults"].get("bad_bytes", 0) for stats in (await world.stats()).values())
            letters = max((venue.dead_letters for venue in found.report.venues), default=0)
            # A bad message is sent to whoever listens: to two receivers, to one, to none.
            promise = replace(promise, letters=min(letters, REPLICAS * sent))
    except (FaultError, ManagerError, EmbeddedError, OSError, ExceptionGroup) as error:
        found.failed = f"{type(error).__name__}: {error}"
    if world is not None:
        found.log, found.trouble = world.log, world.trouble()
    found.seconds = time.monotonic() - began
    return found, breaches(found, promise)


async def _all(world: World, steps: Sequence[Step], say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for step in steps:
            await asyncio.sleep(max(0.0, began + step.at - loop.time()))
            say(str(step))
            world.note(str(step).strip())
            group.create_task(_do(world, step))


async def _do(world: World, step: Step) -> None:
    if step.target in ("redis", "postgres"):
        await _server(world, step)
    elif step.target == "exchange":
        await _exchange(world, step)
    elif step.target == "private":
        await _private(world, step)
    else:
        await _service(world, step)


async def _server(world: World, step: Step) -> None:
    server = world.server(step.target)
    if step.what == "kill":
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(step.hold)
        await asyncio.to_thread(server.start)
    elif step.what == "pause":
        await _pause(lambda number: world.signal_server(step.target, number), step.hold)
    else:
        await _proxy(world, step)


async def _proxy(world: World, step: Step) -> None:
    proxy = world.proxies[step.target]
    proxy.set(Mode(step.what))
    await asyncio.sleep(step.hold)
    if step.what == "stall":
        proxy.drop()
    proxy.set(Mode.OPEN)


async def _pause(send: Callable[[int], object], hold: float) -> None:
    send(signal.SIGSTOP)
    try:
        await asyncio.sleep(hold)
    finally:
        send(signal.SIGCONT)


async def _service(world: World, step: Step) -> None:
    services = world.services(step.target)
    service = services[step.which % len(services)]
    await until(lambda: service.pid, 120.0, f"{service.name} running")
    if step.what == "kill":
        service.signal(signal.SIGKILL)
    else:
        await _pause(service.signal, step.hold)


async def _exchange(world: World, step: Step) -> None:
    if step.what == "stall":
        await _proxy(world, step)
        return
    faults: dict[str, Callable[[], Awaitable[int]]] = {
        "drop": lambda: world.fault(kind="drop", channel=("Trades", "Book")[step.which % 2], count=3),
        "double": lambda: world.fault(kind="double", count=5),
        "swap": lambda: world.fault(kind="swap", channel=("Trades", "Ticker", "Book")[step.which % 3], count=5),
        "bad_bytes": lambda: world.fault(
            kind="bad_bytes", channel=("Trades", "Ticker")[step.which % 2],
            variant=("cut", "json", "utf8")[step.which % 3], count=3,
        ),
    }  # fmt: skip
    with contextlib.suppress(OSError):
        await faults.get(step.what, lambda: world.fault(kind=step.what, count=1 + step.which % REPLICAS))()


async def _private(world: World, step: Step) -> None:
    with contextlib.suppress(OSError):
        if step.what == "rest_429":
            await world.fault(kind="rest_429", count=1 + step.which % 10, seconds=1)
        elif step.what == "expire_session":
            await world.fault(kind="expire_session")
        else:
            await world.fault(kind=step.what, channel="Account", count=1 + step.which % 5)
