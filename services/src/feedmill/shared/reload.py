"""Changes while a process runs: of its manifests, and of the Secrets with its servers' URLs.

Both are looked at once a second, in a thread, and compared by content: a mounted ConfigMap or Secret changes by the
swap of a symlink, which no watch of a file sees. A manifest that is wrong, or asks for what a running process cannot
do, is refused: the work goes on as before, and health says why. A new URL is taken up only once it is proven to work.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import Counter

from feedmill.exchanges.registry import UnknownVenue
from feedmill.resources.collection import Key, Resources
from feedmill.resources.confighash import config_hash
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import Texts, read_files
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared import log
from feedmill.shared.checked import load_checked
from feedmill.shared.config import ConfigError, resolve_urls
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.metrics import Gauge
from feedmill.shared.redis import wire
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.tracing import Sampling, TracingSettings
from feedmill.shared.tracing import load as load_tracing

if TYPE_CHECKING:
    from feedmill.shared.service import ServiceContext

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between two looks."""
APPLY_AGAIN = 15.0
"""Seconds after which a configuration that the service refused is tried again: a file that it names may be there by
now."""
PROVE_AGAIN = 3.0
"""Seconds after which a URL that did not work is tried again."""
_SHOWN = 2000

reloads = Counter("feedmill_config_reloads_total", "Changed configurations, by outcome.", ["outcome"])
last_reload = Gauge(
    "feedmill_config_last_reload_timestamp_seconds", "When the configuration was last taken up, at the start or since."
)
last_reload.set(math.nan)
rotations = Counter("feedmill_secret_rotations_total", "Changed URLs taken up, by server.", ["server"])


class Refused(ValueError):
    """A running process cannot take this configuration up; the message names the key and the remedy."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a process's settings come from."""

    paths: tuple[Path, ...]
    """Files and folders of ``--config``."""
    read: Texts
    """What they held when the process was started."""
    pipeline: FeedPipeline
    """Of what they held: names the Secrets."""
    pipeline_of: Callable[[Resources], FeedPipeline]
    """The same of newer resources. Raises Refused."""
    level_of: Callable[[Resources], str] | None
    """Least weight of a log line; None = the command line said it, whatever the manifests say."""
    environment: Mapping[str, str] = field(repr=False)
    secrets_dir: Path | None
    servers: frozenset[str]
    """Whose URLs this process uses: redis, postgres."""
    follow: bool = True
    """False = changes are not looked for."""


def same_pipeline(resources: Resources, key: Key) -> FeedPipeline:
    """The pipeline of that name in newer resources. Raises Refused."""
    found = resources.pipelines.get(key)
    if found is None:
        raise Refused(f"FeedPipeline {'/'.join(key)} is no longer in the files: put it back, or stop this process")
    return found


def same_feed(resources: Resources, feed: ExchangeFeed) -> tuple[ExchangeFeed, FeedPipeline]:
    """``feed`` as newer resources have it, and its pipeline. Raises Refused where it changed what it may not."""
    name = f"ExchangeFeed {'/'.join(feed.key)}"
    found = resources.feeds.get(feed.key)
    if found is None:
        raise Refused(f"{name} is no longer in the files: put it back, or stop this process")
    fixed = {
        "spec.pipelineRef.name": (feed.spec.pipeline_ref.name, found.spec.pipeline_ref.name),
        "spec.exchange.name": (feed.spec.exchange.name, found.spec.exchange.name),
        "spec.exchange.market": (feed.spec.exchange.market, found.spec.exchange.market),
        "spec.exchange.environment": (feed.spec.exchange.environment.value, found.spec.exchange.environment.value),
        "spec.receiver.shards": (feed.spec.receiver.shards, found.spec.receiver.shards),
    }
    for path, (before, now) in fixed.items():
        if before != now:
            raise Refused(
                f"{name}: {path} changed from {before} to {now}, which a running process does not follow:"
                " restart it, or undo the change"
            )
    return found, resources.pipeline_of(found)


class ConfigWatch:
    """Follows the manifests. ``apply`` is the service's: it takes up all of the new resources, or raises Refused,
    PlanError, UnknownVenue or ValueError and has changed nothing."""

    def __init__(
        self, paths: tuple[Path, ...], read: Texts, apply: Callable[[Resources], Awaitable[None]], logger: Any
    ) -> None:
        self._paths = paths
        self._working = read
        self._seen = read
        self._apply = apply
        self._log = logger
        self._unreadable = 0
        self._again_at = math.inf
        """By the monotonic clock: when the last one seen is tried again."""
        self.hash = config_hash(read.by_name)
        self.loaded_at = _now()
        last_reload.set_to_current_time()
        self.error = ""
        """Why the newer one is refused."""
        self.pending = False
        """A newer one was seen and is being taken up."""

    def document(self) -> dict[str, Any]:
        """The section ``config`` of ``/health``."""
        return {"hash": self.hash, "loadedAt": self.loaded_at, "error": self.error, "pending": self.pending}

    async def look(self) -> None:
        """Take up what changed since the last look."""
        read = await asyncio.to_thread(read_files, self._paths)
        if read.problems and not self._unreadable:
            self._unreadable = 1  # A symlink may have been swapped between two files: look once more.
            return
        self._unreadable = len(read.problems)
        again = read == self._seen
        if again and time.monotonic() < self._again_at:
            return
        self._seen, self._again_at = read, math.inf
        if read == self._working:
            self.error = ""
            self._log.info("config.as_before", hash=self.hash)
            return
        self.pending = True
        try:
            resources = await asyncio.to_thread(load_checked, read)
            self._again_at = time.monotonic() + APPLY_AGAIN
            await self._apply(resources)
        except (ValueError, UnknownVenue) as error:
            self._refused("refused", str(error), again=again)
        except Exception as error:
            if self._refused("failed", f"{type(error).__name__}: {error}", again=again):
                self._log.exception("config.fault")
        else:
            self._again_at = math.inf
            self._working, self.error = read, ""
            self.hash, self.loaded_at = config_hash(read.by_name), _now()
            reloads.labels("applied").inc()
            last_reload.set_to_current_time()
            self._log.info("config.applied", hash=self.hash)
        finally:
            self.pending = False

    def _refused(self, outcome: str, why: str, *, again: bool) -> bool:
        """Answers whether that is news."""
        former, self.error = self.error, log.redact(why)[:_SHOWN]
        if again and self.error == former:
            return False
        reloads.labels(outcome).inc()
        self._log.error("config.refused", reason=self.error, effect=f"the one of {self.loaded_at} stays in force")
        return True


@dataclass(slots=True)
class SecretState:
    """Of one server's URL. ``state``: current | proving | refused (the new one does not work) | unreadable."""

    state: str = "current"
    changed_at: str | None = None
    """When a new URL was last taken up."""
    error: str = ""
    try_at: float = 0.0

    def document(self) -> dict[str, Any]:
        return {"state": self.state, "changedAt": self.changed_at, "error": self.error}


class DoesNotWork(Exception):
    """A new URL does not, with the reason (not yet redacted)."""


class SecretsWatch:
    """Follows the URLs of Redis and PostgreSQL, as far as they come from files."""

    def __init__(
        self,
        pipeline: FeedPipeline,
        environment: Mapping[str, str],
        secrets_dir: Path | None,
        servers: frozenset[str],
        redis_url: RedisUrl,
        database_url: DatabaseUrl,
        logger: Any,
    ) -> None:
        self.pipeline = pipeline
        self._environment = environment
        self._secrets_dir = secrets_dir
        self._servers = servers
        self._redis_url = redis_url
        self._database_url = database_url
        self._log = logger
        self.states = {server: SecretState() for server in sorted(servers)}

    @property
    def from_files(self) -> bool:
        """Whether anything can change."""
        named = any(self._environment.get(f"{name}_FILE") for name in ("REDIS_URL", "DATABASE_URL"))
        return named or self._secrets_dir is not None

    def document(self) -> dict[str, Any]:
        """The section ``secrets`` of ``/health``."""
        return {server: state.document() for server, state in self.states.items()}

    async def look(self) -> None:
        """Take up what changed since the last look and works."""
        try:
            redis_url, database_url = await asyncio.to_thread(
                resolve_urls, self.pipeline, self._environment, self._secrets_dir, self._servers
            )
        except ConfigError as error:
            for state in self.states.values():
                if state.state != "unreadable" or state.error != str(error):
                    self._log.warning("secret.unreadable", reason=str(error), effect="the one in use stays")
                state.state, state.error = "unreadable", str(error)
            return
        follow = []
        if "redis" in self.states:
            follow.append(self._follow_redis(redis_url))
        if "postgres" in self.states:
            follow.append(self._follow_postgres(database_url))
        await asyncio.gather(*follow)

    async def _follow_redis(self, new: RedisUrl) -> None:
        if self._due("redis", new != self._redis_url) and await self._proven("redis", _prove_redis, new):
            self._redis_url.become(new)
            self._taken_up("redis", await wire.recycle(self._redis_url))

    async def _follow_postgres(self, new: str) -> None:
        if self._due("postgres", new != self._database_url.get()) and await self._proven(
            "postgres", _prove_postgres, new
        ):
            from feedmill.shared import postgres

            self._database_url.become(new)
            self._taken_up("postgres", postgres.recycle(self._database_url))

    def _due(self, server: str, changed: bool) -> bool:
        """Whether to try a new URL now."""
        state = self.states[server]
        if not changed:
            state.state, state.error, state.try_at = "current", "", 0.0
            return False
        if state.state in ("current", "unreadable"):
            state.state, state.try_at = "proving", 0.0
            self._log.info("secret.changed", server=server)
        return asyncio.get_running_loop().time() >= state.try_at

    async def _proven(self, server: str, prove: Callable[[T], Awaitable[None]], new: T) -> bool:
        state = self.states[server]
        try:
            await prove(new)
        except DoesNotWork as error:
            why = log.redact(str(error))
            if state.error != why:
                self._log.warning(
                    "secret.does_not_work", server=server, error=why, effect="the one in use stays, this is tried again"
                )
            state.state, state.error = "refused", why
            state.try_at = asyncio.get_running_loop().time() + PROVE_AGAIN
            return False
        return True

    def _taken_up(self, server: str, recycled: int) -> None:
        state = self.states[server]
        state.state, state.error, state.changed_at = "current", "", _now()
        rotations.labels(server).inc()
        self._log.info("secret.taken_up", server=server, connections_made_anew=recycled)


async def _prove_redis(url: RedisUrl) -> None:
    try:
        made = await wire.connect(url, name="feedmill-prove")
        try:
            async with asyncio.timeout(5.0):
                await made.call("PING")
        finally:
            made.abort()
    except (OSError, TimeoutError, EOFError, wire.WireError) as error:
        raise DoesNotWork(f"{type(error).__name__}: {error}"[:300]) from error


async def _prove_postgres(url: str) -> None:
    from feedmill.shared import postgres  # Here: services without a database do not load its driver.

    try:
        connection = await postgres.connect(url, name="feedmill prove", command_timeout=5.0)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await postgres.close(connection)
    except postgres.RETRYABLE as error:
        raise DoesNotWork(postgres.describe(error)) from error


class Reloader:
    """Both watches of one process."""

    def __init__(self, origin: Origin, context: ServiceContext, tracing: Sampling | None = None) -> None:
        self._origin = origin
        self._context = context
        self._tracing = tracing
        self.config = ConfigWatch(origin.paths, origin.read, self._apply, context.log)
        self.secrets = SecretsWatch(
            origin.pipeline,
            origin.environment,
            origin.secrets_dir,
            origin.servers,
            context.redis_url,
            context.database_url,
            context.log,
        )
        context.health.detail("config", self.config.document)
        context.health.detail("secrets", self.secrets.document)

    async def _apply(self, resources: Resources) -> None:
        origin, context = self._origin, self._context
        pipeline = origin.pipeline_of(resources)
        assert context.reconfigure is not None
        traced = TracingSettings.of(pipeline)
        if self._tracing is not None and traced is not None:
            await asyncio.to_thread(load_tracing)
        await context.reconfigure(resources)
        if self._tracing is not None:
            sender = await asyncio.to_thread(self._tracing.prepare, traced)
            if (unused := self._tracing.take_up(traced, sender)) is not None:
                await asyncio.to_thread(unused.close)
        if origin.level_of is not None:
            log.set_level(origin.level_of(resources))
        self.secrets.pipeline = pipeline

    async def run(self) -> None:
        """Look once a second until cancelled."""
        looks: list[Callable[[], Awaitable[None]]] = [self._config_look] if self._origin.follow else []
        if self.secrets.from_files:
            looks.append(self.secrets.look)
        async with asyncio.TaskGroup() as group:
            for look in looks:
                group.create_task(self._again_and_again(look), name="reload")

    async def _config_look(self) -> None:
        if self._context.reconfigure is not None:
            await self.config.look()

    async def _again_and_again(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await look()
            except Exception:
                # Whatever it is, the work goes on, and so does the watch.
                self._context.log.exception("reload.fault")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
