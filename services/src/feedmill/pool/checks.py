"""What the keys of accounts may do: asked before a key is used for the first time, and again from time to time.

A venue that does not answer is no reason not to listen: it is asked again later.
"""

from __future__ import annotations

import ssl
from typing import Any

from feedmill.accounts import store
from feedmill.accounts.asking import Judged, judge_key
from feedmill.accounts.fields import Secrets
from feedmill.accounts.hygiene import Level, Verdict
from feedmill.accounts.store import Account
from feedmill.pool import measures
from feedmill.pool.vault import Vault
from feedmill.shared import postgres
from feedmill.shared.budget import Budget


class Checks:
    """``allow_withdraw``: the pipeline's policy; an account may have its own."""

    def __init__(self, vault: Vault, *, allow_withdraw: bool, log: Any) -> None:
        self._vault = vault
        self.allow_withdraw = allow_withdraw
        self._log = log

    async def verdict(
        self, account: Account, secrets: Secrets, weight: Budget, ssl_context: ssl.SSLContext | None
    ) -> Verdict | None:
        """What is to be made of the key; kept in the database. None: the venue did not answer. Raises ValueError."""
        await weight.take(1)
        allowed = self.allow_withdraw or account.allow_withdraw
        try:
            judged = await judge_key(
                account.exchange, account.market, account.endpoints, account.environment, secrets,
                allow_withdraw=allowed, ssl_context=ssl_context,
            )  # fmt: skip
        except (OSError, TimeoutError) as error:
            self._log.warning("account.key_unread", account=str(account.name), cause=f"{type(error).__name__}: {error}")
            return None
        verdict = judged.verdict
        measures.key_checks.labels(verdict.level.value).inc()
        if verdict.level in (Level.REFUSED, Level.WARNING):
            tell = self._log.error if verdict.level is Level.REFUSED else self._log.warning
            tell("account.key", account=str(account.name), verdict=verdict.level.value, findings=str(verdict))
        await self._keep(account, judged)
        return verdict

    async def _keep(self, account: Account, judged: Judged) -> None:
        try:
            async with self._vault.session.use() as connection:
                await store.set_verdict(connection, account, judged.verdict, judged.expires_at, self._vault.who)
        except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
            self._log.warning("account.verdict_unkept", account=str(account.name), error=postgres.describe(error))
