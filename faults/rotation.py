"""Passwords of Redis and PostgreSQL that rotate: no restart, no message lost, and the old one is of no use."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis.asyncio as redis_asyncio
from redis.exceptions import AuthenticationError

from faults.servers import client
from faults.world import FaultError, World, until
from feedmill.local.embedded.files import write_private

WHO = "services"
"""The user of Redis, and the role of PostgreSQL, that the services log in as."""

_OURS = f"FROM pg_stat_activity WHERE usename = '{WHO}'"


def _files(world: World) -> dict[str, Any]:
    return {"redis": world.folder / "redis-url", "postgres": world.folder / "database-url"}


def _url(own: str, password: str) -> str:
    """``own`` for another user."""
    parts = urlsplit(own)
    return urlunsplit(parts._replace(netloc=f"{WHO}:{password}@{parts.hostname}:{parts.port}"))


def _write(world: World, server: str, password: str) -> None:
    """As a mounted Secret changes: at once."""
    path = _files(world)[server]
    own = world.redis.url if server == "redis" else world.postgres.url
    write_private(path.with_suffix(".new"), _url(own, password) + "\n")
    path.with_suffix(".new").replace(path)


async def begin(world: World) -> dict[str, str]:
    """A user and a role of the services' own; their URLs are in files."""
    first = secrets.token_urlsafe(16)
    connection = client(world)
    try:
        await connection.execute_command("ACL", "SETUSER", WHO, "on", f">{first}", "~*", "&*", "+@all")
    finally:
        await connection.aclose()
    # A superuser, since it makes the schema.
    await _administer(world, f"CREATE ROLE {WHO} LOGIN SUPERUSER PASSWORD '{first}'")
    world.passwords = {"redis": first, "postgres": first}
    for server in world.passwords:
        _write(world, server, first)
    paths = _files(world)
    return {"REDIS_URL_FILE": str(paths["redis"]), "DATABASE_URL_FILE": str(paths["postgres"])}


SETUP = {"environ": begin}


async def _administer(world: World, statement: str) -> list[Any]:
    connection = await asyncpg.connect(world.postgres.url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def _taken_up(world: World, server: str, times: int) -> None:
    """Until each service that uses the server has taken up ``times`` new URLs."""
    users = {"redis": ("receiver", "distributor", "processor", "maintenance"), "postgres": ("processor", "maintenance")}
    ports = [service.port for role in users[server] for service in world.services(role)]

    async def all_have() -> bool:
        documents = await world.manager.prober.health([port for port in ports if port is not None])
        states = [(document or {}).get("secrets", {}).get(server, {}) for document in documents.values()]
        seen = [state.get("changedAt") for state in states if state.get("state") == "current"]
        if len(seen) == len(ports) and all(seen) and (times == 1 or min(seen) > world.changed):
            world.changed = max(seen)
            return True
        return False

    await until(all_have, 60.0, f"taken up the new password of {server}")


async def _restarts(world: World) -> int:
    return sum(item.restarts for item in world.manager.status().services)


async def of_redis(world: World, _: Any) -> None:
    """Once with both valid for a while; once the old one stops before the services know the new one."""
    before = await _restarts(world)
    admin = client(world)
    try:

        async def ours() -> set[int]:
            return {int(item["id"]) for item in await admin.client_list() if item["user"] == WHO}

        old, second, third = world.passwords["redis"], *(secrets.token_urlsafe(16) for _ in range(2))
        connections = await ours()
        await admin.execute_command("ACL", "SETUSER", WHO, f">{second}")
        _write(world, "redis", second)
        await _taken_up(world, "redis", 1)
        await until(lambda: _none(ours, connections), 30.0, "rid of every connection of the old password")
        await admin.execute_command("ACL", "SETUSER", WHO, f"<{old}")
        await _refused_by_redis(world, old)
        world.note("the first rotation: both were valid for a while")

        await admin.execute_command("ACL", "SETUSER", WHO, f">{third}", f"<{second}")
        await admin.execute_command("CLIENT", "KILL", "USER", WHO)
        await asyncio.sleep(3.0)
        _write(world, "redis", third)
        await _taken_up(world, "redis", 2)
        await _refused_by_redis(world, second)
        world.note("the second one: the old one stopped 3 s before the new one was known")
    finally:
        await admin.aclose()
    if await _restarts(world) != before:
        raise FaultError("a service was restarted")


async def of_postgres(world: World, _: Any) -> None:
    """A role has one password, so connections that are there go on; then they are cut before the new one is known."""
    before = await _restarts(world)
    old, second, third = world.passwords["postgres"], *(secrets.token_urlsafe(16) for _ in range(2))

    async def ours() -> set[int]:
        return {row[0] for row in await _administer(world, f"SELECT pid {_OURS}")}

    connections = await ours()
    await _administer(world, f"ALTER ROLE {WHO} PASSWORD '{second}'")
    _write(world, "postgres", second)
    await _taken_up(world, "postgres", 1)
    await until(lambda: _none(ours, connections), 60.0, "rid of every connection of the old password")
    await _refused_by_postgres(world, old)
    world.note("the first rotation: connections went on until the new one was known")

    await _administer(world, f"ALTER ROLE {WHO} PASSWORD '{third}'")
    await _administer(world, f"SELECT pg_terminate_backend(pid) {_OURS}")
    await asyncio.sleep(3.0)
    _write(world, "postgres", third)
    await _taken_up(world, "postgres", 2)
    await _refused_by_postgres(world, second)
    world.note("the second one: all were cut 3 s before the new one was known")
    if await _restarts(world) != before:
        raise FaultError("a service was restarted")


async def _none(now: Any, before: set[int]) -> bool:
    return not before & await now()


async def _refused_by_redis(world: World, password: str) -> None:
    connection: Any = redis_asyncio.Redis.from_url(_url(world.redis.url, password))
    try:
        await connection.ping()
    except AuthenticationError:
        return
    finally:
        await connection.aclose()
    raise FaultError("Redis takes the old password")


async def _refused_by_postgres(world: World, password: str) -> None:
    try:
        connection = await asyncpg.connect(_url(world.postgres.url, password))
    except asyncpg.InvalidPasswordError:
        return
    await connection.close()
    raise FaultError("PostgreSQL takes the old password")
