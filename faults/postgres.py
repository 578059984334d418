"""Faults of PostgreSQL beyond its being away: a failover, no connections left, a lock of somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import asyncpg

from faults.world import FaultError, World, until
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.local.embedded.files import private_folder

if TYPE_CHECKING:
    from faults.row import Act, Scale


def full_up(full: float) -> Act:
    """Every connection there is belongs to somebody else; those of the services are ended again and again."""

    async def act(world: World, scale: Scale) -> None:
        held: list[Any] = []
        loop = asyncio.get_running_loop()
        try:
            held.append(await asyncpg.connect(world.postgres.url))
            end = loop.time() + scale.seconds(full)
            world.note("others take all connections")
            while loop.time() < end:
                mine = [connection.get_server_pid() for connection in held]
                await held[0].execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND NOT pid = ANY($1::int[])",
                    mine,
                )
                with contextlib.suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        held.append(await asyncpg.connect(world.postgres.url))
                await asyncio.sleep(0.1)
            world.note(f"{len(held)} connections were held")
        finally:
            await asyncio.gather(*(connection.close() for connection in held), return_exceptions=True)

    return act


def locked(full: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        connection = await asyncpg.connect(world.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE trades IN EXCLUSIVE MODE")
                world.note("the table of trades is locked")
                await asyncio.sleep(scale.seconds(full))
            world.note("it is free again")
        finally:
            await connection.close()

    return act


def failover(read_only: float) -> Act:
    """To a real standby (streaming, synchronous) that takes no writes before it is promoted."""

    async def act(world: World, scale: Scale) -> None:
        second = await _standby(world)
        admin = await asyncpg.connect(world.postgres.url)
        try:
            # What was committed is on the standby: with asynchronous replication the last commits would be gone.
            await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await admin.execute("SELECT pg_reload_conf()")

            async def synchronous() -> bool:
                return bool(await admin.fetchval("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"))

            await until(synchronous, 30.0, "replicated")
            await asyncio.sleep(2.0)
        finally:
            await admin.close()
        await asyncio.to_thread(world.postgres.kill)
        world.note("the first PostgreSQL is killed, the standby takes its place read-only")
        proxy = world.proxies["postgres"]
        proxy.target = ("127.0.0.1", second.port)
        proxy.drop()
        world.postgres = second
        await asyncio.sleep(scale.seconds(read_only))
        admin = await asyncpg.connect(second.url)
        try:
            await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await admin.execute("SELECT pg_promote(true, 30)")
            world.note("the standby is promoted")
        finally:
            await admin.close()

    return act


async def _standby(world: World) -> EmbeddedPostgres:
    first = world.postgres
    home = world.folder / "postgres-2"
    private_folder(home)
    shutil.copy2(first.data_dir / "password", home / "password")
    command = [str(first.bin_dir / "pg_basebackup"), "-D", str(home / "pgdata"), "-R", "-X", "stream", "-c", "fast"]
    command += ["-d", first.url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise FaultError(f"pg_basebackup: {done.stderr}")
    for path in ((home / "pgdata"), *(home / "pgdata").rglob("*")):
        shutil.chown(path, first.cluster.stat().st_uid, first.cluster.stat().st_gid)
    second = EmbeddedPostgres(home)
    await asyncio.to_thread(second.start)
    world.servers.append(second)
    return second
