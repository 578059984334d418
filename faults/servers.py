"""Faults of Redis and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import redis.asyncio as redis_asyncio

from faults.proxy import Mode, Proxy
from faults.world import SYMBOLS, FaultError, World, until
from feedmill.local.embedded import EmbeddedRedis
from feedmill.local.embedded.files import password, private_folder, write_private

if TYPE_CHECKING:
    from faults.row import Act, Scale

BETWEEN = (0.5, 2.0)
"""Seconds of flow between two strokes of one fault."""
TITLE = {"redis": "Redis", "postgres": "PostgreSQL"}


def client(world: World) -> Any:
    return redis_asyncio.Redis.from_url(world.redis.url)


def away(name: str, full: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        server = world.server(name)
        world.note(f"{TITLE[name]} stops")
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(scale.seconds(full))
        await asyncio.to_thread(server.start)
        world.note(f"{TITLE[name]} is back")

    return act


def redis_away_and_receiver_killed(full: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        world.note("Redis stops")
        await asyncio.to_thread(world.redis.stop)
        await asyncio.sleep(scale.seconds(full) / 2)
        await asyncio.gather(*(world.kill(service) for service in world.services("receiver")))
        await asyncio.sleep(scale.seconds(full) / 2)
        await asyncio.to_thread(world.redis.start)
        world.note("Redis is back")

    return act


def killed(name: str, times: int) -> Act:
    async def act(world: World, scale: Scale) -> None:
        server = world.server(name)
        for _ in range(times):
            world.note(f"kill -9 {TITLE[name]}")
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(world.dice.uniform(0.0, scale.seconds(3.0)))
            await asyncio.to_thread(server.start)
            await asyncio.sleep(world.dice.uniform(*BETWEEN))

    return act


def redis_cut(times: int) -> Act:
    """What was not fsynced is gone, as after a power cut: of streams, checkpoint and positions alike."""

    async def act(world: World, scale: Scale) -> None:
        for _ in range(times):
            await _cut(world)
            await asyncio.sleep(world.dice.uniform(*BETWEEN))

    return act


async def _cut(world: World) -> None:
    connection = client(world)
    try:
        # From here on nothing is fsynced, and so nothing confirmed to anybody but what is in the file now.
        await connection.config_set("appendfsync", "no")
    finally:
        await connection.aclose()
    part = max(world.redis.aof_dir.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)
    safe = part.stat().st_size
    await asyncio.sleep(world.dice.uniform(*BETWEEN))
    await asyncio.to_thread(world.redis.kill)
    size = part.stat().st_size
    keep = world.dice.randint(safe, size)
    os.truncate(part, keep)
    world.note(f"kill -9 Redis, {size - keep:,} bytes of its log are gone")
    await asyncio.to_thread(world.redis.start)


def redis_full(full: float) -> Act:
    """Half of what it uses already: it refuses everything that is not allowed to a full server."""

    async def act(world: World, scale: Scale) -> None:
        connection = client(world)
        try:
            limit = int((await connection.info("memory"))["used_memory"]) // 2
            await connection.config_set("maxmemory", limit)
            world.note(f"maxmemory {limit:,}")
            await asyncio.sleep(scale.seconds(full))
            errors = (await connection.info("errorstats")).get("errorstat_OOM", {"count": 0})
            world.note(f"{errors['count']} commands refused, stored trades are {await world.age():.1f} s old")
            await connection.config_set("maxmemory", 0)
        finally:
            await connection.aclose()

    return act


async def redis_flushed(world: World, _: Scale) -> None:
    connection = client(world)
    try:
        await connection.flushall()
        world.note("FLUSHALL")
    finally:
        await connection.aclose()


def redis_failover(lag: float) -> Act:
    """A second server follows through a link that stalls; then the first is killed, and the second takes its place."""

    async def act(world: World, scale: Scale) -> None:
        link = Proxy("127.0.0.1", world.redis.port)
        await link.start()
        home = world.folder / "redis-2"
        private_folder(home)
        secret = password(world.redis.data_dir)
        write_private(home / "password", secret + "\n")
        second = EmbeddedRedis(home, config={"replicaof": f"127.0.0.1 {link.port}", "masterauth": secret})
        await asyncio.to_thread(second.start)
        world.servers.append(second)
        connection: Any = redis_asyncio.Redis.from_url(second.url)
        try:

            async def synced() -> bool:
                return bool((await connection.info("replication"))["master_link_status"] == "up")

            await until(synced, 30.0, "replicated")
            await asyncio.sleep(1.0)
            link.set(Mode.STALL)
            await asyncio.sleep(lag)
            await asyncio.to_thread(world.redis.kill)
            world.note(f"the first Redis is killed, the second is {lag:g} s behind")
            await connection.replicaof("NO", "ONE")
        finally:
            await connection.aclose()
            await link.stop()
        world.redis = second
        world.proxies["redis"].target = ("127.0.0.1", second.port)
        world.proxies["redis"].drop()

    return act


def stalled(name: str, full: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        world.note(f"nothing goes through to {name}")
        world.proxies[name].set(Mode.STALL)
        await asyncio.sleep(scale.seconds(full))
        # A network that comes back has forgotten the connections.
        world.proxies[name].drop()
        world.proxies[name].set(Mode.OPEN)
        world.note("it does again")

    return act


def slowed(name: str, full: float) -> Act:
    async def act(world: World, scale: Scale) -> None:
        world.note(f"{name} is slow")
        world.proxies[name].set(Mode.SLOW)
        await asyncio.sleep(scale.seconds(full))
        world.proxies[name].set(Mode.OPEN)
        world.note("it is fast again")

    return act


async def _execute(world: World, *statements: str) -> None:
    connection = await asyncpg.connect(world.postgres.url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def postgres_read_only(full: float) -> Act:
    """As a client sees a server after a failover that made it a standby."""

    async def act(world: World, scale: Scale) -> None:
        reload = "SELECT pg_reload_conf()"
        await _execute(world, "ALTER SYSTEM SET default_transaction_read_only = on", reload)
        world.note("PostgreSQL is read-only")
        await asyncio.sleep(scale.seconds(full))
        undo = "SET default_transaction_read_only = off"
        await _execute(world, undo, "ALTER SYSTEM RESET default_transaction_read_only", reload)
        world.note("it takes writes again")

    return act


async def poison_row(world: World, _: Scale) -> None:
    symbol = SYMBOLS[world.setup.venues[0]][0]
    statement = (
        "SELECT instrument_id, trade_id FROM trades JOIN instruments i ON i.id = instrument_id WHERE symbol = $1"
        " ORDER BY time DESC, trade_id DESC LIMIT 1"
    )
    (row,) = await world.rows(statement, symbol)
    # Far enough ahead that it was not received yet.
    number = row["trade_id"] + max(2000, int(3 * world.setup.rate))
    await _execute(
        world, f"ALTER TABLE trades ADD CONSTRAINT poison CHECK (instrument_id <> {row[0]} OR trade_id <> {number})"
    )
    world.note(f"PostgreSQL refuses trade {number} of {symbol}")

    async def refused() -> bool:
        return bool((await world.rows("SELECT count(*) FROM dead_letters"))[0][0])

    await until(refused, 120.0, "a dead letter")


async def poison_redriven(world: World) -> None:
    """One dead letter, and nothing else was lost; then the constraint goes and the letter is driven again."""
    letters = [tuple(row) for row in await world.rows("SELECT reason, detail FROM dead_letters")]
    if len(letters) != 1:
        raise FaultError(f"{len(letters)} dead letters of one poison row: {letters[:3]}")
    await _execute(world, "ALTER TABLE trades DROP CONSTRAINT poison")
    command = [sys.executable, "-m", "feedmill.cli.main", "dlq", "redrive", "-c", str(world.manifest), "--all"]
    environment = os.environ | {"DATABASE_URL": world.postgres.url, "REDIS_URL": world.redis.url}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    world.note(f"feedmill dlq redrive: {(done.stdout + done.stderr).strip()}")
    if done.returncode:
        raise FaultError(f"feedmill dlq redrive failed: {done.stdout}{done.stderr}")


async def was_shed(world: World) -> None:
    """A limit that was not reached proves nothing."""
    shed = (await world.rows("SELECT count(*) FROM gaps WHERE cause = 'shed'"))[0][0]
    world.note(f"{shed} gap rows of what was shed")
    if not shed:
        raise FaultError("nothing was shed: the outage was too short, or the rate too low, for the limit to be reached")


def disk_full(full: float, mib: int) -> Act:
    """The folder of the spill becomes a disk of that size (needs root on Linux)."""

    async def act(world: World, scale: Scale) -> None:
        service = world.services("receiver")[0]
        folder = world.folder / "spill" / service.name
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
        done = await asyncio.to_thread(subprocess.run, mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FaultError(f"skipped: a small disk cannot be mounted here ({done.stderr.strip()})")
        world.mounts.append(folder)
        # Its files are opened on the new disk by the next process only.
        await world.kill(service)
        await world.catch_up(60.0)
        world.note(f"{mib} MiB of disk are left")
        await away("redis", full)(world, scale)
        if (left := service.pid) is None or service.restarts > 1:
            raise FaultError(f"the receiver did not live through it (pid {left}, {service.restarts} restarts)")

    return act
