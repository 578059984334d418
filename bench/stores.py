"""A fresh Redis and a fresh PostgreSQL for one run: the embedded servers with their own settings, the same for both.

Redis: append-only file, fsync every second. PostgreSQL: fsync and synchronous_commit on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis

MAXMEMORY = 4 << 30
"""Bytes; enough for what is blasted, so that no run measures back-pressure of a full Redis."""


@dataclass(slots=True)
class Stores:
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres

    @classmethod
    async def start(cls, folder: Path) -> Self:
        """Start both in ``folder``. Raises feedmill.local.embedded.EmbeddedError."""
        stores = cls(
            EmbeddedRedis(folder / "redis", maxmemory=MAXMEMORY),
            EmbeddedPostgres(folder / "postgres"),
        )
        await asyncio.gather(asyncio.to_thread(stores.redis.start), asyncio.to_thread(stores.postgres.start))
        return stores

    async def stop(self) -> None:
        await asyncio.gather(asyncio.to_thread(self.redis.stop), asyncio.to_thread(self.postgres.stop))

    @property
    def redis_url(self) -> str:
        return self.redis.url

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def redis_pid(self) -> int:
        return self.redis.pid or 0

    @property
    def postgres_pid(self) -> int:
        return self.postgres.pid or 0

    def redis_parts(self) -> dict[str, Any]:
        """As cryptofeed's Redis backends take them; they know no password but put ``host`` into a URL as it is."""
        parts = urlsplit(self.redis.url)
        return {"host": f":{parts.password}@{parts.hostname}", "port": parts.port}

    def postgres_parts(self) -> dict[str, Any]:
        """As cryptofeed's PostgreSQL backends take them."""
        parts = urlsplit(self.postgres.url)
        return {
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "pw": unquote(parts.password or ""),
            "db": parts.path.lstrip("/"),
        }
