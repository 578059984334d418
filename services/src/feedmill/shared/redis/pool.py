"""redis-py with its pool, for everything that is not a hot path.

TLS, time-outs and the pool's bound are set in one place; :class:`RedisPool` puts commands behind a circuit breaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError, TimeoutError

from feedmill.shared.breaker import Breaker
from feedmill.shared.redis.url import RedisUrl


class _Credentials(CredentialProvider):
    """Of the URL as it is when a connection is made."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._url.password or ""
        return (self._url.username, password) if self._url.username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


T = TypeVar("T")
Word = str | bytes | int | float
AWAY = (OSError, ConnectionError, TimeoutError)
"""Errors that say the server is away (not that a command was wrong)."""


def is_failure(error: BaseException) -> bool:
    """Whether an error of redis-py speaks against the server rather than against the command."""
    if isinstance(error, ResponseError) and not isinstance(error, AuthenticationError):
        code = str(error).split(" ", 1)[0]
        return code in {"OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "TRYAGAIN"}
    return isinstance(error, (OSError, RedisError))


def make_client(
    url: RedisUrl,
    *,
    name: str,
    max_connections: int = 8,
    connect_timeout: float = 5.0,
    timeout: float = 5.0,
    pool_timeout: float = 5.0,
) -> Redis:
    """A redis-py client with answers as bytes. No retries of its own: the breaker's owner decides.

    ``timeout`` (seconds) bounds each answer, so a blocking command must block for less. Callers beyond
    ``max_connections`` wait ``pool_timeout`` seconds. Close it with ``aclose()``.
    """
    options: dict[str, Any] = {
        "db": url.db,
        "credential_provider": _Credentials(url) if url.password is not None else None,
        "client_name": name,
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "max_connections": max_connections,
        "timeout": pool_timeout,
    }
    if url.path:
        options |= {"connection_class": UnixDomainSocketConnection, "path": url.path}
        del options["socket_connect_timeout"]
    else:
        options |= {"host": url.host, "port": url.port, "socket_keepalive": True}
        if url.tls:
            options |= {"connection_class": SSLConnection, "ssl_ca_certs": url.ca_file, "ssl_check_hostname": True}
    return Redis(connection_pool=BlockingConnectionPool(**options))


class RedisPool:
    """A client and its breaker. ``client`` is free to use for what must not count (blocking reads).

    ``timeout`` (seconds) bounds connecting as well as each answer, so that a server which is silent counts as away:
    a caller's own bound must be longer, since what is cancelled counts as neither.
    """

    def __init__(self, url: RedisUrl, breaker: Breaker, *, name: str, max_connections: int = 8, timeout: float = 5.0):
        self.url = url
        self.breaker = breaker
        self.client = make_client(
            url, name=name, max_connections=max_connections, connect_timeout=timeout, timeout=timeout
        )

    async def execute(self, *command: Word) -> Any:
        """Run a command behind the breaker; raises BreakerOpen or redis-py's error.

        Only what speaks against the server counts as a failure (see :func:`is_failure`); a wrong command does not.
        """
        return await self._guard(lambda: self.client.execute_command(*command))  # type: ignore[no-untyped-call]

    async def execute_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Run commands in one round trip behind the breaker. A command that was wrong has its error as its answer."""

        async def run() -> list[Any]:
            async with self.client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and is_failure(answer):
                    raise answer
            return answers

        return await self._guard(run)

    async def _guard(self, work: Callable[[], Awaitable[T]]) -> T:
        ticket = self.breaker.admit()
        task = asyncio.current_task()
        cancelled = task.cancelling() if task is not None else 0
        try:
            answer = await work()
        except Exception as error:
            if is_failure(error):
                ticket.failure(error)
            else:
                ticket.success()
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError from error  # As below.
            raise
        except BaseException:
            ticket.release()
            raise
        ticket.success()
        if task is not None and task.cancelling() > cancelled:
            # On Python 3.11 redis-py's asyncio.wait_for swallows a cancellation that comes as its write completes.
            raise asyncio.CancelledError
        return answer

    async def close(self) -> None:
        await self.client.aclose()
