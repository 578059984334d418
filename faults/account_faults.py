"""Faults of accounts: of who listens to them, of their connections, of their keys."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from faults.world import FaultError, World, until

if TYPE_CHECKING:
    from faults.row import Act, Scale

ROLE = "accounts"
REFUSING = 10.0
"""Seconds for which a venue's REST refuses everybody."""
BOTH = 8.0
"""Seconds for which the old key of an account and its new one are taken."""
LATE = 5.0
"""Seconds between the end of an old key and the arrival of the new one."""


async def _listened(world: World) -> None:
    """Until each venue has a connection for each of its accounts."""

    async def all_are() -> bool:
        return all(
            found["private"]["listened"] == found["private"]["accounts"] for found in (await world.stats()).values()
        )

    await until(all_are, 120.0, "listened to again")


async def _accepted(world: World) -> int:
    return sum(int(found["connects"].get("accepted", 0)) for found in (await world.stats()).values())


# Members of the pool


def all_killed(times: int) -> Act:
    """Nobody listens until they are back: what happens meanwhile is known to the exchange only."""

    async def act(world: World, _: Scale) -> None:
        for _n in range(times):
            await asyncio.gather(*(world.kill(service) for service in world.services(ROLE)))
            await world.accounts_up_to_date(300.0)

    return act


def one_killed(times: int) -> Act:
    """Its accounts move to the other."""

    async def act(world: World, scale: Scale) -> None:
        for _n in range(times):
            await world.kill(world.dice.choice(world.services(ROLE)))
            await asyncio.sleep(world.dice.uniform(1.0, scale.seconds(8.0) + 1.0))

    return act


def one_paused(full: float) -> Act:
    """Longer than its lease: the other takes its accounts, and then both work on them for a moment."""

    async def act(world: World, scale: Scale) -> None:
        service = world.dice.choice(world.services(ROLE))
        service.signal(signal.SIGSTOP)
        world.note(f"SIGSTOP {service.name}")
        try:
            await asyncio.sleep(scale.seconds(full))
        finally:
            service.signal(signal.SIGCONT)
        world.note(f"SIGCONT {service.name}")

    return act


def server_away_all_killed(name: str, full: float) -> Act:
    """Whoever starts finds no Redis (no streams, no leases), or no PostgreSQL (no list, no secrets)."""

    async def act(world: World, scale: Scale) -> None:
        server = world.server(name)
        world.note(f"{name} stops")
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(scale.seconds(full) / 2)
        await asyncio.gather(*(world.kill(service) for service in world.services(ROLE)))
        await asyncio.sleep(scale.seconds(full) / 2)
        await asyncio.to_thread(server.start)
        world.note(f"{name} is back")

    return act


# Connections, sessions, limits


def struck(**fields: Any) -> Act:
    """Every connection that carries an account."""

    async def act(world: World, _: Scale) -> None:
        before = await _accepted(world)
        hit = await world.fault(channel="Account", **fields)
        world.note(f"{fields['kind']}: {hit} connections of accounts")
        if not hit:
            raise FaultError("no account had a connection")

        async def again() -> bool:
            return await _accepted(world) >= before + hit

        await until(again, 120.0, "connected again")
        await _listened(world)

    return act


async def session_expired(world: World, _: Scale) -> None:
    hit = await world.fault(kind="expire_session")
    world.note(f"{hit} listen keys, tokens and subscriptions end before their time")
    if not hit:
        raise FaultError("no session ended")
    await _listened(world)


async def rate_limited(world: World, scale: Scale) -> None:
    """The connections are lost as well, so that every account has to be asked for."""
    await world.fault(kind="rest_429", seconds=2)
    hit = await world.fault(kind="abort", channel="Account")
    world.note(f"{hit} connections reset, and every REST request is answered 429")

    async def refused() -> bool:
        return all(found["rest_status"].get("429") for found in (await world.stats()).values())

    await until(refused, 120.0, "refused by every exchange")
    await asyncio.sleep(scale.seconds(REFUSING))
    await world.fault(kind="clear")
    world.note("REST answers again")


def messages(kind: str, count: int, **fields: Any) -> Act:
    async def act(world: World, _: Scale) -> None:
        await world.fault(kind=kind, channel="Account", count=count, **fields)
        world.note(f"{kind}: {count} messages of each account")

        async def sent() -> bool:
            return all(found["faults"].get(kind, 0) >= count for found in (await world.stats()).values())

        await until(sent, 60.0, "sent")

    return act


# Keys


async def _key(world: World, venue: str, **fields: Any) -> None:
    rest = world.simulation.endpoints[venue].rest
    async with world.http.post(f"{rest}/_sim/accounts/key", json=fields) as answer:
        if answer.status != 200:
            raise FaultError(f"the simulator refuses the rotation: {await answer.text()}")


async def _uses(world: World, venue: str, account: str) -> tuple[int, int]:
    """(how often keys that ended were used, how often they were refused)."""
    rest = world.simulation.endpoints[venue].rest
    async with world.http.get(f"{rest}/_sim/accounts/keys", params={"account": account}) as answer:
        ended = [each for each in await answer.json() if each["ended"]]
    if not ended:
        raise FaultError(f"no key of {account} has ended")
    return sum(each["uses"] for each in ended), sum(each["refused"] for each in ended)


async def keys_rotated(world: World, _: Scale) -> None:
    """Of every account: once while both are taken, once with the old one ended before the new one is known."""
    for seconds in (BOTH, 0.0):
        for venue, account in world.accounts.names:
            await _key(world, venue, account=account, rotate=True, seconds=seconds)
        world.note("every account has a new key" + ("; the old one is taken for a while" if seconds else " only"))
        await asyncio.sleep(0.0 if seconds else LATE)
        for _venue, account in world.accounts.names:
            await world.accounts.take_newest(world.postgres.url, account)
        await asyncio.sleep(seconds)
        await world.accounts_up_to_date(120.0)
    before = [await _uses(world, *named) for named in world.accounts.names]
    await asyncio.sleep(LATE)
    after = [await _uses(world, *named) for named in world.accounts.names]
    if before != after:
        raise FaultError("an old key is still tried")
    world.note("no old key is tried any more")
