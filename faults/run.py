"""One fault from an empty folder to the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from faults import leaks
from faults.judge import Measured, Promise, breaches
from faults.order import Order
from faults.row import Fault, Scale
from faults.world import FaultError, Setup, World, made
from feedmill.local.embedded import EmbeddedError
from feedmill.local.errors import ManagerError

REPAIRED = 240.0
"""Seconds that a gap may take to be repaired: a request that died with a receiver is made again after half a minute."""
Say = Callable[[str], None]


async def run(
    fault: Fault, setup: Setup, scale: Scale, flow: float, folder: Path, say: Say
) -> tuple[Measured, list[str]]:
    """Answers what was measured and what of the promise is broken."""
    found = Measured(fault.name)
    promise = fault.promise(scale)
    began = time.monotonic()
    rate = 0.0 if fault.blast else setup.rate
    world: World | None = None
    try:
        say("starting")
        setup = replace(setup, rate=rate, **fault.setup)
        if fault.tight:
            setup = replace(setup, memory=f"{max(2, round(setup.rate / 1250))}Mi")
        found.accounts = setup.accounts * len(setup.venues)
        async with made(folder, setup) as made_world:
            world = made_world
            with ExitStack() as stack:
                order = Order(lambda: made_world.redis.url, world.manager.shards)
                if fault.ordered:
                    stack.enter_context(order)
                promise = await _strike(world, fault, scale, flow, found, promise, say)
            if fault.ordered:
                found.disorder = order.breaches()
                world.note(f"order of {order.checked:,} trades and quotes in the stream compared")
    except (FaultError, ManagerError, EmbeddedError, OSError, ExceptionGroup) as error:
        found.failed = f"{type(error).__name__}: {error}" if not isinstance(error, FaultError) else str(error)
    if world is not None:
        found.log, found.trouble = world.log, world.trouble()
        found.leaks = await asyncio.to_thread(leaks.of_run, folder)
    found.seconds = time.monotonic() - began
    return found, breaches(found, promise)


async def _strike(
    world: World, fault: Fault, scale: Scale, flow: float, found: Measured, promise: Promise, say: Say
) -> Promise:
    if not fault.blast:
        await world.catch_up(240.0)
        await asyncio.sleep(flow)
        found.before = world.watch.of_roles(world.watch.now)
    before = await world.connects()
    world.say = say
    say("fault")
    letters = await fault.act(world, scale)
    if letters is not None:
        promise = replace(promise, letters=letters)
    # Ten times what is promised: how long it took is worth more than that it was too long.
    patience = 60.0 + 10 * (promise.catch_up or 0.0)
    say("catching up")
    if fault.blast:
        ended = time.monotonic()
        await world.simulation.end_of_flow()
        await world.until_drained(patience)
        found.catch_up = time.monotonic() - ended
    else:
        found.catch_up = await world.catch_up(patience)
        await asyncio.sleep(flow)
    found.connects, found.connects_most = await world.connects() - before, promise.connects
    found.refused = await world.refused()
    await world.watch.look_at_lag()
    found.after = world.watch.of_roles(world.watch.now)
    say("comparing")
    if fault.finish is not None:
        await world.simulation.end_of_flow()
        await world.until_drained(patience)
        await fault.finish(world)
    found.report = await world.settled(REPAIRED)
    found.repaired = world.repaired
    found.open_gaps = await world.open_gaps()
    found.account_gaps, found.by_rest = await world.account_counts()
    found.peak, found.lag = world.watch.of_roles(world.watch.peak), world.watch.lag_ms()
    return promise
