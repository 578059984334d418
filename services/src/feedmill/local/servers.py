"""Redis and PostgreSQL of local mode: embedded ones under supervision, or the user's own by URL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from feedmill.local.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis
from feedmill.local.embedded.server import EmbeddedServer
from feedmill.local.status import ServerStatus
from feedmill.local.usage import rss_bytes
from feedmill.shared import config, log
from feedmill.shared.backoff import Backoff
from feedmill.shared.redis.url import RedisUrl

WATCH_INTERVAL = 0.5


class LocalServers:
    """Start both before the services, stop both after them. ``environment`` is what the services get.

    ``environ`` with REDIS_URL / DATABASE_URL (or ``*_FILE``): no embedded server of that kind is started. What a file
    says is followed (:meth:`follow`): passwords rotate while all runs.
    ``embedded=False``: both must be set. Raises ``config.ConfigError``.
    """

    def __init__(
        self,
        data_dir: Path,
        environ: Mapping[str, str],
        *,
        embedded: bool = True,
        maxmemory: int | None = None,
        fsync: bool = True,
    ) -> None:
        redis_url = config.read_setting(environ, "REDIS_URL")
        database_url = config.read_setting(environ, "DATABASE_URL")
        if not embedded and (redis_url is None or database_url is None):
            values = (("REDIS_URL", redis_url), ("DATABASE_URL", database_url))
            missing = [name for name, value in values if value is None]
            not_set = "is not set: set it" if len(missing) == 1 else "are not set: set them"
            raise config.ConfigError(f"--no-embedded: {' and '.join(missing)} {not_set}, or leave --no-embedded out")
        self._environ = environ
        self._external_redis = redis_url.get_secret_value() if redis_url else None
        self._external_database = database_url.get_secret_value() if database_url else None
        self._check(self._external_redis, self._external_database)
        self.redis = EmbeddedRedis(data_dir / "redis", maxmemory=maxmemory) if redis_url is None else None
        self.postgres = EmbeddedPostgres(data_dir / "postgres", fsync=fsync) if database_url is None else None
        self._restarts = {"redis": 0, "postgres": 0}
        self._errors: dict[str, str] = {}
        self._wanted: set[str] = set()
        self._watchers: list[asyncio.Task[None]] = []

    @staticmethod
    def _check(redis_url: str | None, database_url: str | None) -> None:
        if redis_url is not None:
            log.register_secret(RedisUrl.parse(redis_url).password or "")
        if database_url is not None:
            config.check_database_url(database_url)

    @property
    def from_files(self) -> bool:
        """Whether a URL can change."""
        return any(self._environ.get(f"{name}_FILE") for name in ("REDIS_URL", "DATABASE_URL"))

    def follow(self) -> None:
        """Read again the files that name URLs (blocking). What cannot be read or used is not taken up."""
        with contextlib.suppress(config.ConfigError, ValueError):
            redis_url = config.read_setting(self._environ, "REDIS_URL")
            database_url = config.read_setting(self._environ, "DATABASE_URL")
            redis_text = redis_url.get_secret_value() if redis_url else None
            database_text = database_url.get_secret_value() if database_url else None
            self._check(redis_text, database_text)
            self._external_redis, self._external_database = redis_text, database_text

    @property
    def redis_url(self) -> str:
        """With its password: never print it."""
        return self._external_redis if self.redis is None else self.redis.url  # type: ignore[return-value]

    @property
    def database_url(self) -> str:
        """With its password: never print it."""
        return self._external_database if self.postgres is None else self.postgres.url  # type: ignore[return-value]

    @property
    def database_address(self) -> str:
        """Of the user's own database, without credentials; empty where it is the embedded one."""
        return self._external_address("postgres") if self.postgres is None else ""

    def intent(self) -> str:
        """For people: what ``start`` is going to do."""
        both = (("Redis", "redis", self.redis), ("PostgreSQL", "postgres", self.postgres))
        own = " and ".join(name for name, _, server in both if server is not None)
        given = " and ".join(f"{name} at {self._external_address(key)}" for name, key, server in both if server is None)
        return ", ".join(part for part in (own and f"starting {own}", given and f"using {given}") if part)

    def environment(self) -> dict[str, str]:
        """Of the services: URLs, or the files that name them, which services follow by themselves."""
        found: dict[str, str] = {}
        for name, url in (("REDIS_URL", self.redis_url), ("DATABASE_URL", self.database_url)):
            file = self._environ.get(f"{name}_FILE")
            found |= {f"{name}_FILE": str(Path(file).expanduser().resolve())} if file else {name: url}
        return found

    def _embedded(self) -> dict[str, EmbeddedServer]:
        found: dict[str, EmbeddedServer | None] = {"redis": self.redis, "postgres": self.postgres}
        return {name: server for name, server in found.items() if server is not None}

    async def start(self) -> None:
        """Start the embedded ones (both at once) and begin watching them; raises EmbeddedError."""
        servers = self._embedded()
        results = await asyncio.gather(
            *(asyncio.to_thread(server.start) for server in servers.values()), return_exceptions=True
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            await self.stop()
            raise failed[0]
        for name, server in servers.items():
            log.register_secret(server.url.rpartition("@")[0].rpartition(":")[2])
            self._wanted.add(name)
            self._watchers.append(asyncio.create_task(self._watch(name, server), name=f"watch-{name}"))

    async def _watch(self, name: str, server: EmbeddedServer) -> None:
        """Start a server that ended by itself again; the services ride it out behind their breakers."""
        backoff = Backoff(0.2, 10.0)
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            if server.running:
                continue
            log.get_logger().error("server.ended", server=name, action="start again", log=str(server.log_file))
            try:
                await asyncio.to_thread(server.start)
                self._restarts[name] += 1
                self._errors.pop(name, None)
                backoff.reset()
            except EmbeddedError as error:
                self._errors[name] = str(error)
                log.get_logger().error("server.start_failed", server=name, error=str(error))
                await asyncio.sleep(backoff.next())

    async def stop(self) -> None:
        """Stop the embedded ones, PostgreSQL last; bounded (each is killed in the end)."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()
        self._wanted.clear()
        for server in self._embedded().values():
            with contextlib.suppress(OSError):
                await asyncio.to_thread(server.stop)

    def status(self) -> list[ServerStatus]:
        found: list[ServerStatus] = []
        for name, server in (("redis", self.redis), ("postgres", self.postgres)):
            if server is None:
                found.append(ServerStatus(name, "external", self._external_address(name), "unknown"))
                continue
            state = "running" if server.running else ("restarting" if name in self._wanted else "stopped")
            memory = rss_bytes(server.pid, family=True) if server.running else None
            error = self._errors.get(name)
            found.append(
                ServerStatus(name, "embedded", server.safe_url, state, server.pid, memory, self._restarts[name], error)
            )
        return found

    def _external_address(self, name: str) -> str:
        if name == "redis":
            return str(RedisUrl.parse(self._external_redis or ""))
        return "postgresql://" + (self._external_database or "").rpartition("@")[2].partition("?")[0]
