"""Faults of the exchanges, done by the simulator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from faults.world import World, until

if TYPE_CHECKING:
    from faults.row import Act, Scale


def struck(**fields: Any) -> Act:
    """A fault of the connections that stand; it ends with the next connection."""

    async def act(world: World, _: Scale) -> None:
        before = await world.connects()
        hit = await world.fault(**fields)
        world.note(f"{fields['kind']}: {hit} connections")

        async def again() -> bool:
            return await world.connects() > before

        await until(again, 120.0, "connected again")

    return act


def storm(count: int) -> Act:
    """Each new connection is closed as soon as it is subscribed, that many times."""

    async def act(world: World, _: Scale) -> None:
        before = await world.connects()
        await world.fault(kind="close", every="subscribe", count=count)
        await world.fault(kind="close")
        world.note(f"close, and after each of the next {count} subscribes")

        async def over() -> bool:
            return await world.connects() > before + count

        await until(over, 180.0, f"connected {count + 1} times")

    return act


def renewals(count: int) -> Act:
    """Receivers replace connections by themselves, that many of each venue."""

    async def act(world: World, _: Scale) -> None:
        async def accepted() -> dict[str, int]:
            return {venue: int(found["connects"].get("accepted", 0)) for venue, found in (await world.stats()).items()}

        before = await accepted()

        async def renewed() -> bool:
            now = await accepted()
            return all(now[venue] >= before[venue] + count for venue in before)

        await until(renewed, 120.0, f"renewed {count} times")
        world.note(f"{count} connections of each venue renewed")

    return act


def dropped(count: int) -> Act:
    """What numbers show. A quote left out is seen by nobody."""

    async def act(world: World, _: Scale) -> None:
        for channel in ("Trades", "Book"):
            await world.fault(kind="drop", channel=channel, count=count)
        world.note(f"{count} messages of each instrument left out, of trades and of book changes")
        await asyncio.sleep(3.0)

    return act


def repeated(kind: str, count: int) -> Act:
    async def act(world: World, _: Scale) -> None:
        for channel in ("Trades", "Ticker", "Book"):
            await world.fault(kind=kind, channel=channel, count=count)
        world.note(f"{kind}: {count} messages of each topic")
        await asyncio.sleep(3.0)

    return act


def bad_bytes(count: int) -> Act:
    async def act(world: World, _: Scale) -> int:
        letters = 0
        for variant in ("cut", "json", "utf8"):
            for channel in ("Trades", "Ticker"):
                hit = await world.fault(kind="bad_bytes", channel=channel, variant=variant, count=count)
                letters += hit * count
        world.note(f"{letters} messages that cannot be read")

        async def done() -> bool:
            sent = sum(int(found["faults"].get("bad_bytes", 0)) for found in (await world.stats()).values())
            return sent >= letters

        await until(done, 60.0, "sent")
        return letters

    return act


def burst(seconds: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        goal = seconds * scale.rate

        async def sent() -> bool:
            return await world.emitted() >= goal

        await until(sent, 120.0, f"emitted {goal:,.0f} messages")
        world.note(f"{goal:,.0f} messages as fast as they are read")

    return act
