"""Passwords of Redis (ACL users) and of PostgreSQL (roles) rotate while the pool of account receivers runs."""

from __future__ import annotations

import secrets
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio
from bench.accounts.stage import until
from redis.exceptions import AuthenticationError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
LOST = 60.0


async def test_the_redis_password_rotates(start_pool: Any, redis_server: Any) -> None:
    admin = redis_asyncio.Redis.from_url(redis_server.url)
    passwords = [secrets.token_urlsafe(16) for _ in range(3)]
    await admin.execute_command("ACL", "SETUSER", "services", "on", f">{passwords[0]}", "~*", "&*", "+@all")

    def url(password: str) -> str:
        return f"redis://services:{password}@{redis_server.host}:{redis_server.port}/0"

    async def ours() -> dict[int, str]:
        clients = await admin.client_list()
        return {int(item["id"]): item["name"] for item in clients if item["user"] == "services"}

    async def refused(password: str) -> None:
        with pytest.raises(AuthenticationError):
            async with redis_asyncio.Redis.from_url(url(password)) as client:
                await client.ping()

    bed = await start_pool(redis_url=url(passwords[0]))
    await bed.step(60)
    gaps = await bed.gaps()
    # What does not work is not taken up.
    bed.serve(redis=url(passwords[1]))
    await bed.health_is(lambda found: found["secrets"]["redis"]["state"] == "refused", "the wrong one is refused")
    await bed.step(30)
    before = await ours()
    # Both work for a while; every connection is made anew; the old one may go.
    await admin.execute_command("ACL", "SETUSER", "services", f">{passwords[1]}")
    await bed.health_is(
        lambda found: found["secrets"]["redis"]["changedAt"] and found["secrets"]["redis"]["state"] == "current",
        "the new one is taken up",
    )

    async def anew() -> bool:
        now = await ours()
        wanted = {name for name in before.values() if name != "feedmill-prove"}
        return not before.keys() & now.keys() and wanted <= set(now.values())

    await until(anew, LOST, "every connection is made anew")
    await admin.execute_command("ACL", "SETUSER", "services", f"<{passwords[0]}")
    await refused(passwords[0])
    for _ in range(5):  # A Redis that answers late on a busy machine costs a connection too, once in a while.
        # A proof of a password is a connection for a moment.
        kept = {number for number, name in (await ours()).items() if name != "feedmill-prove"}
        await bed.step(60)
        await bed.at_rest()
        if kept <= (await ours()).keys():
            break
    else:
        pytest.fail("nobody had to come back")
    assert await bed.gaps() == gaps, "nothing was missed by it"

    # The old one stops before the new one is there: what happens meanwhile waits, or is asked for.
    await admin.execute_command("ACL", "SETUSER", "services", f">{passwords[2]}", f"<{passwords[1]}")
    await admin.execute_command("CLIENT", "KILL", "USER", "services")
    await bed.health_is(lambda found: not found["redis"]["reachable"], "Redis is away")
    await bed.step(60)
    bed.serve(redis=url(passwords[2]))
    await bed.health_is(lambda found: found["redis"]["reachable"], "Redis is back")
    await refused(passwords[1])
    await bed.step(30)
    await bed.equal()
    await admin.aclose()
    assert not any(password in bed.said() for password in passwords)


async def test_the_postgres_password_rotates(start_pool: Any, database_url: str) -> None:
    role = f"pool_{secrets.token_hex(4)}"
    passwords = [secrets.token_urlsafe(16) for _ in range(3)]
    admin = await asyncpg.connect(database_url)

    def url(password: str) -> str:
        return database_url.replace(database_url[len("postgresql://") : database_url.index("@")], f"{role}:{password}")

    async def ours() -> set[int]:
        rows = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE usename = $1", role)
        return {row[0] for row in rows}

    async def refused(password: str) -> None:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url(password))

    await admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{passwords[0]}'")
    try:
        bed = await start_pool(postgres_url=url(passwords[0]))
        await bed.step(60)
        gaps = await bed.gaps()
        bed.serve(postgres=url(passwords[1]))
        await bed.health_is(
            lambda found: found["secrets"]["postgres"]["state"] == "refused", "the wrong one is refused"
        )
        before = await ours()
        assert before
        # A role has one password: from here on the old one is refused, and the connections there are go on.
        await admin.execute(f"ALTER ROLE {role} PASSWORD '{passwords[1]}'")
        await refused(passwords[0])
        await bed.step(60)
        await bed.health_is(
            lambda found: (
                found["secrets"]["postgres"]["changedAt"] and found["secrets"]["postgres"]["state"] == "current"
            ),
            "the new one is taken up",
        )
        await bed.step(30)

        async def anew() -> bool:
            now = await ours()
            return bool(now) and not now & before

        await until(anew, LOST, "every connection is made anew")
        await bed.step(30)
        await bed.at_rest()

        # All are cut before the new one is known: listening goes on, storing waits.
        await admin.execute(f"ALTER ROLE {role} PASSWORD '{passwords[2]}'")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        await bed.health_is(lambda found: found["postgres"]["reachable"] is False, "PostgreSQL is away")
        assert await bed.listened() == len(bed.keys())
        await bed.step(60)
        bed.serve(postgres=url(passwords[2]))
        await bed.health_is(lambda found: found["postgres"]["reachable"], "PostgreSQL is back")
        await bed.step(30)
        await bed.equal()
        assert await bed.gaps() == gaps, "nothing was missed by it"
        await refused(passwords[1])
        assert not any(password in bed.said() for password in passwords)
        for member in bed.members.values():
            assert await member.stop() == 0
    finally:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        await admin.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()
