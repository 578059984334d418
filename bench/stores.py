"""A fresh Redis and, where rows are written, PostgreSQL for one run: embedded servers, the same for both systems.

Redis: append-only file, fsync every second. PostgreSQL: fsync and synchronous_commit on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis

MAXMEMORY = 4 << 30
"""Bytes; enough for what is blasted, so that no run measures back-pressure of a full Redis."""


NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"


@dataclass(slots=True)
class Stores:
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres | None

    @classmethod
    async def start(cls, folder: Path, *, postgres: bool = True, options: Mapping[str, str] | None = None) -> Self:
        """Start them in ``folder``. ``options``: of PostgreSQL. Raises feedmill.local.embedded.EmbeddedError."""
        stores = cls(
            EmbeddedRedis(folder / "redis", maxmemory=MAXMEMORY),
            EmbeddedPostgres(folder / "postgres", options=options) if postgres else None,
        )
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in stores._servers))
        return stores

    async def stop(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self._servers))

    @property
    def _servers(self) -> list[EmbeddedRedis | EmbeddedPostgres]:
        return [self.redis] if self.postgres is None else [self.redis, self.postgres]

    @property
    def redis_url(self) -> str:
        return self.redis.url

    @property
    def database_url(self) -> str:
        """An address where nothing listens when the run needs no PostgreSQL."""
        return NO_DATABASE if self.postgres is None else self.postgres.url

    @property
    def pids(self) -> dict[str, int]:
        """Server -> process id."""
        found = {"redis": self.redis.pid or 0}
        if self.postgres is not None:
            found["postgres"] = self.postgres.pid or 0
        return found

    def redis_parts(self) -> dict[str, Any]:
        """As cryptofeed's Redis backends take them; they know no password but put ``host`` into a URL as it is."""
        parts = urlsplit(self.redis.url)
        return {"host": f":{parts.password}@{parts.hostname}", "port": parts.port}

    def postgres_parts(self) -> dict[str, Any]:
        """As cryptofeed's PostgreSQL backends take them."""
        parts = urlsplit(self.database_url)
        return {
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "pw": unquote(parts.password or ""),
            "db": parts.path.lstrip("/"),
        }
