"""Looks at processes and tables again and again, and puts what is to be told into the outbox.

While PostgreSQL is away the looks at the processes go on. What is Critical is then sent at once, and put into the
outbox as sent when that is back; the rest waits, as much as fits.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from feedmill.general.notify import metrics, of_processes, of_tables
from feedmill.general.notify.notices import Finding, Look, Notice
from feedmill.general.notify.of_tables import Tables
from feedmill.general.notify.outbox import Outbox, OutboxAway
from feedmill.general.notify.processes import Processes
from feedmill.general.notify.sender import Sender
from feedmill.general.notify.settings import NotifySettings
from feedmill.general.notify.states import States, step
from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND, monotonic, now_ns
from feedmill.shared.lease import sleep_or

EVERY = 5.0
"""Seconds between two looks; more where there are many processes."""
A_SECOND = 50
"""Processes asked a second, at most."""
PATIENCE = 15.0
"""Seconds PostgreSQL may be away before that is told, and before what is Critical goes past the outbox."""
PENDING = 1000
"""Notices that wait for PostgreSQL at most; the oldest give way."""
REGISTER = 3600.0
"""Seconds between two registrations."""


class Watcher:
    """``run`` it once. ``seen``: called with the tables of each look."""

    def __init__(
        self, settings: NotifySettings, outbox: Outbox, processes: Processes, sender: Sender,
        seen: Callable[[Tables], None], log: Any, *, every: float = EVERY,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._outbox = outbox
        self._processes = processes
        self._sender = sender
        self._seen = seen
        self._log = log
        self._every = every
        self._pending: deque[tuple[Notice, int]] = deque()
        """With the time each was sent past the outbox; 0 = it was not."""
        self._loaded = False
        self._registered: tuple[float, NotifySettings] | None = None
        self.states: States = {}
        self._saved: States = {}
        self.answering: int | None = None
        """Processes that answered the last look."""

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._look()
            except OutboxAway as error:
                self._log.debug("notify.outbox_away", reason=str(error))
            await sleep_or(stop, max(self._every, (self.answering or 0) / A_SECOND))

    async def _look(self) -> None:
        settings, now = self.settings, now_ns()
        look, away = Look(), ""
        try:
            await self._prepare(settings)
            tables = await self._outbox.tables(names=settings.mask_accounts)
            self._seen(tables)
            look += of_tables.judge(settings.pipeline, settings.feeds, settings.backup_schedule, tables, now)
        except OutboxAway as error:
            away = str(error)
            look += Look(blind=of_tables.KINDS)
        if self._outbox.held_elsewhere:
            return  # The other one tells.
        documents = await self._processes.look()
        self.answering = None if documents is None else len(documents)
        if documents is not None:
            metrics.looked_at.set(len(documents))
            look += of_processes.judge(settings.pipeline, settings.expected, documents)
        if away and self._since() >= PATIENCE:
            look = _own(look, settings.pipeline, away, now - int(self._since() * SECOND))
        elif away:
            look += Look(blind=("ServerAway/postgres",))
        wanted = tuple(finding.storable() for finding in look.findings if finding.kind in settings.kinds)
        # What is no longer to be told is not told to be over either.
        states = {key: state for key, state in self.states.items() if state.kind in settings.kinds}
        self.states, notices = step(states, Look(wanted, look.blind), now)
        for notice in notices:
            self._log.info("notify.found", kind=notice.kind, subject=notice.subject, over="over" in notice.body)
            self._keep(notice)
        self._count()
        if away:
            await self._past_the_outbox()
        else:
            await self._put()

    def _since(self) -> float:
        """Seconds PostgreSQL has been away."""
        since = self._outbox.away_since
        return 0.0 if since is None else monotonic() - since

    async def _prepare(self, settings: NotifySettings) -> None:
        """Once PostgreSQL is there: say what is wanted, and take up what was told by whoever was here before."""
        due = self._registered is None or self._registered[1] is not settings
        if due or (self._registered is not None and monotonic() - self._registered[0] > REGISTER):
            await self._outbox.register(settings)
            self._registered = (monotonic(), settings)
        if not self._loaded:
            # What was found meanwhile is newer.
            self._saved = await self._outbox.states()
            self.states = {**self._saved, **self.states}
            self._loaded = True

    def _keep(self, notice: Notice) -> None:
        if len(self._pending) == PENDING:
            self._pending.popleft()
            metrics.dropped.inc()
        self._pending.append((notice, 0))

    async def _put(self) -> None:
        """What is pending goes into the outbox together with the states it comes from."""
        if not self._pending and self.states == self._saved:
            return
        pending = list(self._pending)
        states = dict(self.states)
        await self._outbox.tell(pending, states)
        self._saved = states
        for _ in pending:
            self._pending.popleft()
        if pending:
            self._sender.wake.set()

    async def _past_the_outbox(self) -> None:
        if self._since() < PATIENCE:
            return
        for at, (notice, sent) in enumerate(list(self._pending)):
            if not sent and notice.severity is Severity.CRITICAL:
                sent = await self._sender.direct(notice)
                if sent:  # Else it may be this one that is refused; while Telegram rests, the others are too.
                    self._pending[at] = (notice, sent)

    def _count(self) -> None:
        told = Counter(state.kind for state in self.states.values() if state.told and not state.over)
        metrics.states.clear()
        for kind, number in told.items():
            metrics.states.labels(kind).set(number)


def _own(look: Look, pipeline: str, error: str, since_ns: int) -> Look:
    """The notifier itself cannot reach PostgreSQL; what other processes say of it is better, if they say it."""
    key = "ServerAway/postgres"
    if any(finding.key == key for finding in look.findings):
        return look
    return look + Look((Finding("ServerAway", f"PostgreSQL of {pipeline}", key, {"error": error}, since_ns),))
