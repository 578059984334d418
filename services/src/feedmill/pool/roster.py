"""The list of accounts, as the database has it. Asked for in a few bytes every two seconds, read anew when it changed.

PostgreSQL away: the list stays as it was, and everybody goes on by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from feedmill.accounts import store
from feedmill.accounts.store import Listed
from feedmill.pool.sql import Session
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff


class Roster:
    """``changed`` is called after each change."""

    def __init__(self, database_url: postgres.Url, every: float, changed: Callable[[], None], log: Any) -> None:
        self._session = Session(database_url, "feedmill accounts list")
        self._every = every
        self._changed = changed
        self._log = log
        self._signature: tuple[int, ...] = ()
        self._look = asyncio.Event()
        self.accounts: dict[str, Listed] = {}
        """By ``namespace/name``; also those removed lately."""
        self.read = False
        """Whether it was ever read."""
        self.error = ""
        """Why it is not up to date; empty when it is."""

    def look(self) -> None:
        """At once: something is known to have changed."""
        self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(0.2, 5.0)
        try:
            while True:
                wait = self._every
                try:
                    await self._once()
                    self.error = ""
                    backoff.reset()
                except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
                    wait = backoff.next()
                    if not self.error:
                        self._log.warning("accounts.list_unread", error=postgres.describe(error))
                    self.error = postgres.describe(error)
                try:
                    async with asyncio.timeout(wait):
                        await self._look.wait()
                except TimeoutError:
                    pass
                self._look.clear()
        finally:
            self._session.abort()

    async def _once(self) -> None:
        async with self._session.use() as connection:
            now = await store.signature(connection)
            if self.read and now == self._signature:
                return
            found = await store.listed(connection)
        self._signature = now
        self.accounts = {str(each.account.name): each for each in found}
        self.read = True
        self._changed()
