"""Redis behind Sentinel: three sentinels, a replica, and an address that follows what they announce.

Feedmill's clients know one address. What moves it to the new primary (a Service, HAProxy) is a proxy here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import redis.asyncio as redis_asyncio
from redis.exceptions import RedisError

from faults.proxy import Mode, Proxy
from faults.world import World, until
from feedmill.local.embedded import EmbeddedRedis
from feedmill.local.embedded.files import password, private_folder, write_private

if TYPE_CHECKING:
    from faults.row import Act, Scale

NAME = "feedmill"
QUORUM = 2
DOWN_AFTER = 1000
"""Milliseconds of silence after which a sentinel takes the primary for gone."""
RETURNS = 2.0
"""Seconds after the failover that the former primary comes back."""


class Sentinel(EmbeddedRedis):
    """One sentinel; it writes its own configuration, so it is started once."""

    what: ClassVar[str] = "Sentinel"

    def __init__(self, data_dir: Path, lines: Sequence[str]) -> None:
        super().__init__(data_dir)
        self._lines = lines

    def _config_text(self) -> str:
        head = [f"bind {self.host}", f"port {self.port}", f'dir "{self.data_dir}"', f"requirepass {self._password}"]
        return "".join(f"{line}\n" for line in (*head, *self._lines))

    def _command(self) -> list[str]:
        return [*super()._command(), "--sentinel"]


async def _second(world: World) -> EmbeddedRedis:
    home = world.folder / "redis-2"
    private_folder(home)
    secret = password(world.redis.data_dir)
    write_private(home / "password", secret + "\n")
    world.redis.config["masterauth"] = secret  # For its return as a replica.
    second = EmbeddedRedis(home, config={"replicaof": f"127.0.0.1 {world.redis.port}", "masterauth": secret})
    await asyncio.to_thread(second.start)
    world.servers.append(second)
    return second


async def _sentinels(world: World) -> list[Sentinel]:
    secret = password(world.redis.data_dir)
    lines = (
        f"sentinel monitor {NAME} 127.0.0.1 {world.redis.port} {QUORUM}",
        f"sentinel auth-pass {NAME} {secret}",
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
        f"sentinel failover-timeout {NAME} 20000",
        f"sentinel sentinel-pass {secret}",
    )
    made: list[Sentinel] = []
    for number in range(3):
        home = world.folder / f"sentinel-{number}"
        private_folder(home)
        write_private(home / "password", secret + "\n")
        made.append(Sentinel(home, lines))
        await asyncio.to_thread(made[-1].start)
        world.servers.append(made[-1])
    return made


async def _asked(sentinel: Sentinel, *words: str) -> Any:
    connection: Any = redis_asyncio.Redis.from_url(sentinel.url.removesuffix("/0"), decode_responses=True)
    try:
        return await connection.execute_command("SENTINEL", *words, NAME)
    finally:
        await connection.aclose()


async def _primary(sentinel: Sentinel) -> int | None:
    """Its port; None = not known."""
    with contextlib.suppress(RedisError, OSError):
        return int((await _asked(sentinel, "GET-MASTER-ADDR-BY-NAME"))[1])
    return None


def failover(behind: float) -> Act:
    """The primary is killed, its replica ``behind`` seconds; later the former primary comes back."""

    async def act(world: World, _: Scale) -> None:
        first, second = world.redis, await _second(world)
        sentinels = await _sentinels(world)

        async def agreed() -> bool:
            known = []
            for sentinel in sentinels:
                with contextlib.suppress(RedisError, OSError):
                    known.append((len(await _asked(sentinel, "SENTINELS")), len(await _asked(sentinel, "REPLICAS"))))
            return known == [(2, 1)] * 3

        await until(agreed, 60.0, "known to each other (sentinels)")
        connection: Any = redis_asyncio.Redis.from_url(second.url)
        link = Proxy("127.0.0.1", first.port)
        await link.start()
        try:

            async def synced() -> bool:
                return bool((await connection.info("replication"))["master_link_status"] == "up")

            await until(synced, 30.0, "replicated")
            await asyncio.sleep(1.0)
            if behind:
                link.set(Mode.STALL)
                await connection.replicaof("127.0.0.1", str(link.port))
                await asyncio.sleep(behind)
            await asyncio.to_thread(first.kill)
            world.note(f"the primary is killed, the replica {behind:g} s behind")

            async def announced() -> bool:
                return await _primary(sentinels[0]) == second.port

            await until(announced, 60.0, "announced by Sentinel")
            world.note("Sentinel announced the replica as primary")
        finally:
            await connection.aclose()
            await link.stop()
        proxy = world.proxies["redis"]
        proxy.target = ("127.0.0.1", second.port)
        proxy.drop()
        world.redis = second
        await asyncio.sleep(RETURNS)
        await asyncio.to_thread(first.start)
        world.servers.append(first)
        world.note("the former primary is back")

        async def demoted() -> bool:
            former: Any = redis_asyncio.Redis.from_url(first.url)
            try:
                return bool((await former.info("replication"))["role"] == "slave")
            finally:
                await former.aclose()

        await until(demoted, 60.0, "made a replica (the former primary)")

    return act
