"""One session with PostgreSQL for what a member asks seldom: made when needed, made again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from feedmill.shared import postgres

TIMEOUT = 10.0


class Session:
    """One statement or transaction at a time."""

    def __init__(self, database_url: postgres.Url, name: str) -> None:
        self._url = database_url
        self._name = name
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[asyncpg.Connection]:
        """Raises one of postgres.RETRYABLE, or SchemaBehind."""
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await postgres.connect(self._url, name=self._name, command_timeout=TIMEOUT)
            try:
                if connection is not self._connection:
                    await postgres.require_schema(connection)
                    self._connection = connection
                yield connection
            except (*postgres.RETRYABLE, postgres.SchemaBehind, asyncio.CancelledError):
                # What was under way is rolled back or not known: the session is not used again.
                connection.terminate()
                self._connection = None
                raise

    def abort(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
