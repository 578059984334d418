"""The notifier of one pipeline, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from feedmill import __version__
from feedmill.general.notify.compose import Hide
from feedmill.general.notify.limit import Window
from feedmill.general.notify.masks import Masker
from feedmill.general.notify.of_tables import Tables
from feedmill.general.notify.outbox import Outbox
from feedmill.general.notify.processes import Place, Processes
from feedmill.general.notify.sender import Sender
from feedmill.general.notify.settings import NotifySettings, read_token
from feedmill.general.notify.telegram import Telegram
from feedmill.general.notify.watcher import Watcher
from feedmill.shared import postgres
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import SECOND, iso, now_ns
from feedmill.shared.config import ConfigError
from feedmill.shared.health import Health
from feedmill.shared.lease import sleep_or
from feedmill.shared.log import redact

TOKEN_EVERY = 2.0
"""Seconds between two looks at the file with the token."""
ENDING = 12.0
"""Seconds that sending and marking have to come to their end."""


def hiding(*, masked: bool, known: Collection[str]) -> Hide:
    """Takes secrets out of a text, and the names of accounts where they are masked; ``known``: those of all."""
    if not masked:
        return lambda text, _: redact(text)
    everyone = Masker(known)
    # One that was added a moment ago is not among those known, but the text is about it.
    return lambda text, accounts: everyone(Masker(accounts)(redact(text)))


class Notifier:
    """``run`` it once. ``place``: where the processes serve their health; None = they are not looked at."""

    def __init__(
        self, settings: NotifySettings, token: SecretStr, secrets_dir: Path | None, place: Place | None,
        database_url: postgres.Url, health: Health, log: Any,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._token = token
        self._token_error = ""
        self._secrets_dir = secrets_dir
        self._place = place
        self._log = log
        self._outbox = Outbox(database_url, settings.pipeline)
        self._accounts: frozenset[str] = frozenset()
        self._sender: Sender | None = None
        self._watcher: Watcher | None = None
        self._http: aiohttp.ClientSession | None = None
        health.condition("notifying", self._working)
        health.detail("notify", self._document)
        health.detail("postgres", self._postgres)

    async def run(self, stop: asyncio.Event) -> None:
        """Look and send until ``stop``."""
        processes = Processes(self._place)
        self._log.info("notify.start", pipeline=self.settings.pipeline, chat=self.settings.chat)
        async with aiohttp.ClientSession(headers={"User-Agent": f"feedmill/{__version__}"}) as http:
            self._http = http
            window = Window(self.settings.per_minute)
            self._sender = Sender(self._outbox, self._telegram(), window, self._hide(), self.settings.quiet, self._log)
            self._watcher = Watcher(self.settings, self._outbox, processes, self._sender, self._seen, self._log)
            await processes.open()
            works = {"send": self._sender.run, "watch": self._watcher.run, "token": self._follow}
            tasks = {
                name: asyncio.create_task(self._again(name, work, stop), name=name) for name, work in works.items()
            }
            try:
                await stop.wait()
                # A message under way is sent and marked, where the servers answer; all else is in the outbox.
                await asyncio.wait([tasks["send"]], timeout=ENDING)
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)
                await processes.close()
                await self._outbox.close()

    async def _again(self, name: str, work: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
        """A fault of the code is told and the work begun again: the other half goes on meanwhile."""
        backoff = Backoff(1.0, 60.0, floor=0.5)
        while not stop.is_set():
            try:
                await work(stop)
            except Exception:
                wait = backoff.next()
                self._log.exception("notify.fault", part=name, retry_in=round(wait, 1))
                await sleep_or(stop, wait)

    # -- what may change

    def reconfigure(self, settings: NotifySettings, token: SecretStr) -> None:
        """Work by other settings from now on."""
        self.settings, self._token = settings, token
        if self._watcher is not None:
            self._watcher.settings = settings
        self._apply()

    def _apply(self) -> None:
        if self._sender is not None:
            self._sender.reconfigure(self._telegram(), self.settings.per_minute, self._hide(), self.settings.quiet)

    def _telegram(self) -> Telegram:
        assert self._http is not None
        return Telegram(self._http, self.settings.base_url, self._token, self.settings.chat)

    def _hide(self) -> Hide:
        return hiding(masked=self.settings.mask_accounts, known=self._accounts)

    def _seen(self, tables: Tables) -> None:
        if self._sender is not None and (accounts := frozenset(tables.accounts)) != self._accounts:
            self._accounts = accounts
            self._sender.hide_by(self._hide())

    async def _follow(self, stop: asyncio.Event) -> None:
        """Take up a changed token. One that cannot be read leaves the former in use."""
        while not stop.is_set():
            await sleep_or(stop, TOKEN_EVERY)
            settings = self.settings
            try:
                token = await asyncio.to_thread(read_token, settings, self._secrets_dir)
            except ConfigError as error:
                if str(error) != self._token_error:
                    self._log.warning("notify.token_unreadable", reason=str(error), effect="the former stays in use")
                self._token_error = str(error)
                continue
            self._token_error = ""
            if token != self._token and settings is self.settings:
                self._token = token
                self._log.info("notify.token_changed")
                self._apply()

    # -- health

    def _working(self) -> tuple[bool, str]:
        """Ready: the outbox is held here, or by another one; not that Telegram takes what is sent."""
        if self._outbox.held_elsewhere or not self._outbox.error:
            return True, ""
        return False, self._outbox.error

    def _postgres(self) -> dict[str, Any]:
        away = bool(self._outbox.error) and not self._outbox.held_elsewhere
        if not away:
            return {"reachable": True, "lastError": ""}
        error = self._outbox.error
        return {"reachable": False, "lastError": error, "remedy": postgres.remedy_of(error)}

    def _document(self) -> dict[str, Any]:
        sender, watcher = self._sender, self._watcher
        document: dict[str, Any] = {
            "standby": self._outbox.held_elsewhere,
            "chat": self.settings.chat,
            "tokenError": self._token_error,
            "kinds": sorted(self.settings.kinds),
        }
        if sender is not None:
            sending = sender.sending
            document |= {
                "state": sending.state,
                "lastError": sending.error,
                "lastSent": iso(sending.last_sent_ns) if sending.last_sent_ns else None,
                "messages": sending.messages,
                "waiting": sending.waiting,
                "oldestSeconds": (now_ns() - sending.oldest_ns) // SECOND if sending.oldest_ns else None,
                "movedTo": sending.migrated,
            }
        if watcher is not None:
            document |= {
                "processesAnswering": watcher.answering,
                "wrong": [
                    {"kind": state.kind, "subject": state.subject, "since": iso(state.since)}
                    for state in list(watcher.states.values())[:50]
                    if state.told and not state.over
                ],
            }
        return document
