"""Faults of our own processes."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from faults.servers import BETWEEN
from faults.world import World, until

if TYPE_CHECKING:
    from faults.row import Act, Scale


def killed(role: str, times: int) -> Act:
    async def act(world: World, _: Scale) -> None:
        for _n in range(times):
            service = world.dice.choice(world.services(role))
            await world.kill(service)
            await asyncio.sleep(world.dice.uniform(*BETWEEN))

    return act


def replicas_killed(full: int) -> Act:
    """One of two at a random moment, again and again, each time once both bring everything again."""

    async def act(world: World, scale: Scale) -> None:
        times = kills(full, scale)
        for number in range(times):
            await world.kill(world.dice.choice(world.services("receiver")))
            await until(world.flowing, 60.0, "flowing")
            await asyncio.sleep(world.dice.uniform(0.0, 1.0))
            if (number + 1) % 10 == 0:
                world.say(f"{number + 1} of {times} kills, {await world.open_gaps()} gaps open")

    return act


def starting_replicas_killed(full: int) -> Act:
    """One of two, and the other at a random moment of the first one's start: now and then nobody listens."""

    async def act(world: World, scale: Scale) -> None:
        for _ in range(kills(full, scale)):
            first, second = world.dice.sample(world.services("receiver"), 2)
            await world.kill(first)
            await asyncio.sleep(world.dice.uniform(0.0, 3.0))
            await world.kill(second)
            await until(world.flowing, 60.0, "flowing")
            await asyncio.sleep(world.dice.uniform(*BETWEEN))

    return act


def kills(full: int, scale: Scale) -> int:
    return max(2, round(full * scale.time))


def paused(role: str, full: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        services = world.services(role)
        for service in services:
            service.signal(signal.SIGSTOP)
        world.note(f"SIGSTOP {role}")
        try:
            await asyncio.sleep(scale.seconds(full))
        finally:
            for service in services:
                service.signal(signal.SIGCONT)
        world.note(f"SIGCONT {role}")

    return act
