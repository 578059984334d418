"""Options that say which database and which Redis a command works on, and a session there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from feedmill.cli.common import folder
from feedmill.cli.query import QueryError, database, pipeline_database
from feedmill.local.embedded.files import listens, password, remembered_port
from feedmill.shared import postgres
from feedmill.shared.config import read_setting, resolve_urls
from feedmill.shared.dumps import forbid_dumps
from feedmill.shared.redis.url import RedisUrl

if TYPE_CHECKING:
    import asyncpg

    from feedmill.resources.pipeline import FeedPipeline

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Where:
    """``--data-dir``, or ``--config`` with ``--pipeline`` and ``--secrets-dir``."""

    data_dir: Path
    config: list[Path] | None = None
    pipeline: str | None = None
    secrets_dir: Path | None = None

    @contextlib.contextmanager
    def url(self) -> Iterator[str]:
        """The URL: a secret. Raises EmbeddedError, ResourceError, ConfigError."""
        if self.config:
            yield pipeline_database(self.config, self.pipeline, self.secrets_dir)
        else:
            with database(self.data_dir) as (url, _):
                yield url

    def run(self, name: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What ``work`` answers on a session called ``name``. Raises QueryError when the database is away or old."""
        with self.url() as url:
            return self.ask(url, name, work)

    @staticmethod
    def ask(url: str, name: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """As :meth:`run`, of a database that is there already."""

        async def session() -> T:
            try:
                connection = await postgres.connect(url, name=name, command_timeout=None)
            except postgres.RETRYABLE as error:
                raise QueryError(f"the database cannot be reached: {postgres.describe(error)}") from error
            try:
                await postgres.require_schema(connection)
                return await work(connection)
            except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
                raise QueryError(postgres.describe(error)) from error
            finally:
                await postgres.close(connection)

        forbid_dumps()  # Not before: an embedded server that was started for this may keep its own limit.
        return asyncio.run(session())


def redis_url(pipeline: FeedPipeline, secrets_dir: Path | None, data_dir: Path) -> RedisUrl | None:
    """That of REDIS_URL, of the Secrets, or the one in the data folder (None = it does not run). Raises ConfigError."""
    named = secrets_dir is not None and pipeline.spec.redis.url_secret_ref is not None
    if named or read_setting(os.environ, "REDIS_URL") is not None:
        return resolve_urls(pipeline, os.environ, secrets_dir, frozenset({"redis"}))[0]
    home = folder(data_dir) / "redis"
    port = remembered_port(home)
    return RedisUrl("127.0.0.1", port, password=password(home)) if port and listens(port) else None
