"""Makes the rows of ``accounts`` what the manifests say: at the start, and when the manifests have changed.

Not again and again: while a change goes round, members that have it and members that have not would undo each other.
Only those that were refused are tried again, when the list of accounts has changed: their name may be free by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from feedmill.accounts.declared import Declared, declare
from feedmill.pool.mounts import Mounts
from feedmill.pool.vault import Vault
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff


class Declaring:
    """``done`` is called after each time."""

    def __init__(self, vault: Vault, mounts: Mounts, done: Callable[[], None], log: Any) -> None:
        self._vault = vault
        self._mounts = mounts
        self._done = done
        self._log = log
        self._namespace = ""
        self._wanted: Sequence[Declared] = ()
        self._again = asyncio.Event()
        self.refused: dict[str, str] = {}
        """``namespace/name`` -> why an account of the manifests cannot be had."""
        self.pending = True

    def declare(self, namespace: str, wanted: Sequence[Declared]) -> None:
        """From now on these; ``namespace``: of the pipeline."""
        if self._namespace and list(wanted) == list(self._wanted):
            return
        self._namespace, self._wanted = namespace, tuple(wanted)
        self._mounts.declared = {str(each.name): each for each in wanted}
        self.pending = True
        self._again.set()

    def look(self) -> None:
        """The list of accounts has changed."""
        if self.refused:
            self._again.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(0.5, 10.0)
        while True:
            await self._again.wait()
            self._again.clear()
            wanted, complete = self._wanted, self.pending
            chosen = wanted if complete else [each for each in wanted if str(each.name) in self.refused]
            try:
                async with self._vault.session.use() as connection:
                    refused = await declare(connection, self._namespace, chosen, self._vault.who, complete=complete)
            except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
                wait = backoff.next()
                self._log.warning("accounts.not_declared", error=postgres.describe(error), retry_in=round(wait, 3))
                await asyncio.sleep(wait)
                self._again.set()
                continue
            backoff.reset()
            for name, why in refused.items():
                if self.refused.get(name) != why:
                    self._log.error("account.refused", account=name, cause=why)
            self.refused, self.pending = refused, wanted is not self._wanted
            self._done()
