"""Faults of our own processes."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from faults.servers import BETWEEN
from faults.world import World, until

if TYPE_CHECKING:
    from faults.catalogue import Act, Scale


def killed(role: str, times: int) -> Act:
    async def act(world: World, _: Scale) -> None:
        for _n in range(times):
            service = world.dice.choice(world.services(role))
            await world.kill(service)
            await asyncio.sleep(world.dice.uniform(*BETWEEN))

    return act


def replicas_killed(times: int) -> Act:
    """Either in turn, each time once both bring everything again."""

    async def act(world: World, _: Scale) -> None:
        for number in range(times):
            receivers = world.services("receiver")
            await world.kill(receivers[number % len(receivers)])
            await until(world.flowing, 60.0, "flowing")
            await asyncio.sleep(world.dice.uniform(*BETWEEN))

    return act


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
