"""Passwords rotate under load: the new one is proven, taken up, and nothing of ours is left that used the old one."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def equal(bed: Any) -> None:
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        for flow in (venue.trades, venue.tickers):
            assert flow.emitted == flow.stored > 0, bed.explain(report)
            assert (flow.gap_rows, flow.doubled) == (0, 0), bed.explain(report)
        assert venue.dead_letters == 0


async def states(bed: Any, server: str) -> list[dict[str, Any]]:
    """What those services say of its URL that use the server."""
    found = []
    for name in bed.services:
        document = await bed.health(name)
        assert document is not None, name
        if server in document["secrets"]:
            found.append(document["secrets"][server])
    assert found
    return found


async def test_the_redis_password_rotates(start_bed: Any, kit: Any, redis_server: Any) -> None:
    admin = redis_asyncio.Redis.from_url(redis_server.url)
    passwords = [secrets.token_urlsafe(16) for _ in range(3)]
    await admin.execute_command("ACL", "SETUSER", "services", "on", f">{passwords[0]}", "~*", "&*", "+@all")

    def url(password: str) -> str:
        return f"redis://services:{password}@{redis_server.host}:{redis_server.port}/0"

    async def ours() -> dict[int, str]:
        clients = await admin.client_list()
        # Not those that prove a URL, or are being made and have no name yet.
        named = [item for item in clients if item["user"] == "services" and item["name"] not in ("", "feedmill-prove")]
        return {int(item["id"]): item["name"] for item in named}

    feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT"])
    bed = await start_bed(feed, redis_url=url(passwords[0]))
    await bed.until_emitted(2000)
    # What does not work is not taken up.
    bed.secrets.write(redis=url(passwords[1]))

    async def refused() -> bool:
        """By the server: one that was too slow to answer is asked again, and its error is another one until then."""
        return all(
            item["state"] == "refused" and "WRONGPASS" in item["error"] and item["changedAt"] is None
            for item in await states(bed, "redis")
        )

    await kit.until(refused)
    await bed.until_emitted(500)
    await kit.until(refused)
    before = await ours()
    # It begins to work: taken up, every connection made anew, and then the old one may go.
    await admin.execute_command("ACL", "SETUSER", "services", f">{passwords[1]}")

    async def taken_up() -> bool:
        return all(item["changedAt"] and item["state"] == "current" for item in await states(bed, "redis"))

    await kit.until(taken_up)

    async def anew() -> bool:
        now = await ours()
        return not before.keys() & now.keys() and set(now.values()) >= set(before.values())

    await kit.until(anew)
    await admin.execute_command("ACL", "SETUSER", "services", f"<{passwords[0]}")
    for _ in range(5):  # A Redis that answers late on a busy machine costs a connection too, once in a while.
        kept = await ours()
        await bed.until_emitted(1500)
        if kept.keys() <= (await ours()).keys():
            break
    else:
        pytest.fail("nobody had to come back")

    # The old one stops before the new one is there: everything waits until the Secret has it.
    await admin.execute_command("ACL", "SETUSER", "services", f">{passwords[2]}", f"<{passwords[1]}")
    await admin.execute_command("CLIENT", "KILL", "USER", "services")

    async def away() -> bool:
        document = await bed.health("receiver-one")
        return bool(document["redis"]["state"] != "up" and document["session"]["heldBytes"] > 0)

    await kit.until(away)
    await bed.until_emitted(1000)
    bed.secrets.write(redis=url(passwords[2]))
    await kit.until(ours)
    await bed.until_emitted(1500)
    await equal(bed)
    await admin.aclose()
    said = "".join(service.log_file.read_text() for service in bed.services.values())
    assert not any(password in said for password in passwords)
    assert all(service.process.returncode is None for service in bed.services.values())


async def test_the_postgres_password_rotates(start_bed: Any, kit: Any, postgres_server: Any, database_url: str) -> None:
    role = f"services_{secrets.token_hex(4)}"
    passwords = [secrets.token_urlsafe(16) for _ in range(3)]
    admin = await asyncpg.connect(database_url)

    def url(password: str) -> str:
        return database_url.replace(database_url[len("postgresql://") : database_url.index("@")], f"{role}:{password}")

    async def ours() -> set[int]:
        rows = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE usename = $1", role)
        return {row[0] for row in rows}

    # The server asks for a password by scram-sha-256; a superuser, since the schema is another's.
    await admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{passwords[0]}'")
    try:
        feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT"])
        bed = await start_bed(feed, postgres_url=url(passwords[0]))
        maintenance = await bed.start("maintenance", "maintenance", "--pipeline", "default/main")
        await kit.until(lambda: maintenance.logged("maintenance.done"))
        await bed.until_emitted(2000)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url(passwords[1]))
        bed.secrets.write(postgres=url(passwords[1]))

        async def refused() -> bool:
            return all(item["state"] == "refused" for item in await states(bed, "postgres"))

        await kit.until(refused)
        await kit.until(ours)
        before = await ours()
        # A role has one password: from here on the old one is refused, and the connections there are go on.
        await admin.execute(f"ALTER ROLE {role} PASSWORD '{passwords[1]}'")

        async def taken_up() -> bool:
            return all(item["changedAt"] and item["state"] == "current" for item in await states(bed, "postgres"))

        await kit.until(taken_up)

        async def anew() -> bool:
            now = await ours()
            return bool(now) and not now & before

        await kit.until(anew)
        await bed.until_emitted(1500)
        # The old one stops before the new one is there.
        await admin.execute(f"ALTER ROLE {role} PASSWORD '{passwords[2]}'")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)

        async def away() -> bool:
            return (await bed.health("processor"))["postgres"]["reachable"] is False

        await kit.until(away)
        await bed.until_emitted(1000)
        bed.secrets.write(postgres=url(passwords[2]))

        async def back() -> bool:
            return (await bed.health("processor"))["postgres"]["reachable"] is True

        await kit.until(back)
        await bed.until_emitted(1000)
        await equal(bed)
        said = "".join(service.log_file.read_text() for service in bed.services.values())
        assert not any(password in said for password in passwords)
        assert all(service.process.returncode is None for service in bed.services.values())
        await asyncio.gather(*(service.stop() for service in bed.services.values()))
    finally:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        await admin.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()
