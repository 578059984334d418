"""Opens the secrets of accounts that are to be listened to, has their keys looked at, and gives them to the lines."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from feedmill.accounts.declared import is_declared
from feedmill.accounts.fields import Secrets
from feedmill.accounts.hygiene import Level, Verdict
from feedmill.accounts.store import Account
from feedmill.exchanges.account_base import Credentials
from feedmill.pool.checks import Checks
from feedmill.pool.held import Held
from feedmill.pool.holdings import Holdings
from feedmill.pool.vault import UNUSABLE, Vault
from feedmill.shared import postgres
from feedmill.shared.clock import monotonic

MIN_RETRY, MAX_RETRY = 5.0, 300.0
"""Seconds before secrets that could not be used are looked at again; each look is in the audit log."""
ASKING = 8
"""Keys that are looked at at once."""


def _age(account: Account) -> float:
    """Seconds since another process had the key looked at."""
    checked = account.checked_at
    return (datetime.now(UTC) - checked).total_seconds() if checked is not None else 0.0


class Giving:
    """Run :meth:`run` and :meth:`check`; :meth:`look` when an account may be due."""

    def __init__(self, holdings: Holdings, vault: Vault, checks: Checks, check_every: float, log: Any) -> None:
        self._holdings = holdings
        self._vault = vault
        self._checks = checks
        self._check_every = check_every
        self._log = log
        self._look = asyncio.Event()
        self._asking: dict[Held, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(ASKING)

    def look(self) -> None:
        self._look.set()

    def reconfigure(self, check_every: float, *, allow_withdraw: bool) -> None:
        """What was wrong may be mended: it is looked at again."""
        self._check_every, self._checks.allow_withdraw = check_every, allow_withdraw
        for held in self._holdings.held.values():
            held.again_at, held.tries, held.checked_at = 0.0, 0, 0.0
        self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._look.clear()
                for held in [held for held in self._holdings.held.values() if self._due(held)]:
                    if self._due(held) and held.again_at <= monotonic():
                        await self._open(held)
                left = [held.again_at for held in self._holdings.held.values() if self._due(held)]
                try:
                    async with asyncio.timeout(max(0.05, min(left) - monotonic()) if left else None):
                        await self._look.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._asking.values():
                task.cancel()

    def _due(self, held: Held) -> bool:
        if held.leaving or not held.owned or not held.wanted or held.market is None or held in self._asking:
            return False
        return held.version >= 0 and held.secrets != held.opened

    def _current(self, held: Held, secrets: tuple[int, int]) -> bool:
        """Whether what was begun with these secrets still counts."""
        ours = self._holdings.held.get(held.name) is held
        return ours and held.wanted and not held.leaving and held.market is not None and held.secrets == secrets

    async def _open(self, held: Held) -> None:
        opening = held.secrets
        try:
            secrets = await self._vault.open(held.listed)
        except UNUSABLE as error:
            self._later(held, str(error), final=True)
            return
        except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
            self._later(held, f"the secrets cannot be read: {postgres.describe(error)}", final=False)
            return
        if not self._current(held, opening):
            return
        if self._is_known(held):
            if held.checked != opening:
                held.checked, held.checked_at = opening, monotonic() - _age(held.listed.account)
            self._holdings.give(held, Credentials.of(secrets))
            return
        task = asyncio.create_task(self._ask_first(held, opening, secrets), name="check key")
        self._asking[held] = task
        task.add_done_callback(lambda _: self._asked(held))

    def _asked(self, held: Held) -> None:
        self._asking.pop(held, None)
        self._look.set()

    def _is_known(self, held: Held) -> bool:
        """Whether the venue said of these very secrets, not too long ago, that they are fit for use."""
        listed = held.listed
        account = listed.account
        if account.verdict == Level.REFUSED.value:
            return False
        if held.checked == held.secrets:
            return True
        # Of a mounted Secret it is not known whether it changed while nobody looked.
        checked, stored = account.checked_at, listed.stored_at
        return not is_declared(account) and checked is not None and stored is not None and checked >= stored

    async def _ask_first(self, held: Held, opening: tuple[int, int], secrets: Secrets) -> None:
        """Look at a key that was never used, then use it."""
        async with self._places:
            if not self._current(held, opening):
                return
            verdict = await self._ask(held, opening, secrets)
        if not self._current(held, opening):
            return
        if verdict is not None and verdict.level is Level.REFUSED:
            self._holdings.quiet(held)  # It may still be listened to with the secrets before these.
            self._later(held, str(verdict), final=True, at_least=MAX_RETRY)
        else:
            self._holdings.give(held, Credentials.of(secrets))

    async def _ask(self, held: Held, opening: tuple[int, int], secrets: Secrets) -> Verdict | None:
        market = held.market
        assert market is not None
        try:
            verdict = await self._checks.verdict(
                held.listed.account, secrets, market.weight, self._holdings.ssl_of(market.key.rest)
            )
        except Exception as error:
            # No text of it: it may hold what was sent.
            self._log.error("account.check_failed", account=held.name, error=type(error).__name__)
            verdict = None
        held.checked_at = monotonic()
        if verdict is not None:
            held.checked = opening
        return verdict

    def _later(self, held: Held, why: str, *, final: bool, at_least: float = 0.0) -> None:
        if held.problem != why:
            self._log.warning("account.not_listened", account=held.name, cause=why)
        held.problem, held.final = why, final
        wait = min(MIN_RETRY * 2.0**held.tries, MAX_RETRY) if final else MIN_RETRY / 5
        held.again_at = monotonic() + max(wait, at_least)
        held.tries = min(held.tries + 1, 10)

    # -- again from time to time

    async def check(self) -> None:
        """Look at the keys in use every ``check_every`` seconds, one at a time. Until cancelled."""
        while True:
            await asyncio.sleep(min(5.0, self._check_every / 4))
            for held in list(self._holdings.held.values()):
                if held.given and monotonic() - held.checked_at >= self._wait(held):
                    await self._check(held)

    def _wait(self, held: Held) -> float:
        """Seconds between two looks; those who were not looked at here, or without an answer, come sooner."""
        return self._check_every if held.checked == held.secrets else min(self._check_every, MAX_RETRY)

    async def _check(self, held: Held) -> None:
        opening = held.secrets
        try:
            secrets = await self._vault.open(held.listed)
        except (*UNUSABLE, *postgres.RETRYABLE, postgres.SchemaBehind):
            return  # It is listened to all the same, and asked for again later.
        if not self._current(held, opening) or not held.given:
            return
        verdict = await self._ask(held, opening, secrets)
        if verdict is None or verdict.level is not Level.REFUSED or not self._current(held, opening):
            return
        self._holdings.quiet(held)
        self._later(held, str(verdict), final=True, at_least=MAX_RETRY)
        self._look.set()
