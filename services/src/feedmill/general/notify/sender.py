"""Sends what waits in the outbox: in order, within the chat's limit, at least once.

A row is marked once Telegram has confirmed its message. Two things make a double: a process that is killed between
the two, and an answer that is lost on the way. While PostgreSQL is away what was sent is remembered, and marked first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from feedmill.general.notify import metrics
from feedmill.general.notify.compose import Hide, Message, compose
from feedmill.general.notify.limit import MINUTE, Window
from feedmill.general.notify.notices import Notice, Waiting
from feedmill.general.notify.outbox import Outbox, OutboxAway
from feedmill.general.notify.quiet import QuietTimes, not_before
from feedmill.general.notify.telegram import BadText, Moved, NotAllowed, Slower, Telegram, TelegramError
from feedmill.resources.types import Severity
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import SECOND, monotonic, now_ns
from feedmill.shared.lease import sleep_or

POLL = 1.0
"""Seconds between two looks at the outbox."""
GATHER = 2.0
"""Seconds that what is not Critical waits for more of its kind to come."""
BLOCKED = 300.0
"""Longest rest while only the user can help; a changed token or chat ends it."""


@dataclass(slots=True)
class Sending:
    """How it goes, for health. Times are ns; 0 = never."""

    state: str = "starting"
    """idle, sending, resting (asked to), away, blocked, quiet."""
    error: str = ""
    last_sent_ns: int = 0
    messages: int = 0
    waiting: int | None = None
    oldest_ns: int = 0
    migrated: str = ""
    """The chat's new id, where Telegram told one."""


@dataclass(slots=True)
class _Rest:
    """Nothing is sent before ``until`` (monotonic); ``changed`` ends it early where the user was to help."""

    until: float = 0.0
    blocked: bool = False


class Sender:
    """``telegram`` and the rest may be changed while it runs (:meth:`reconfigure`)."""

    def __init__(
        self, outbox: Outbox, telegram: Telegram, window: Window, hide: Hide, quiet: QuietTimes | None, log: Any
    ) -> None:
        self._outbox = outbox
        self._telegram = telegram
        self._window = window
        self._hide = hide
        self._quiet = quiet
        self._log = log
        self._stop = asyncio.Event()
        self._remembered = False
        self._turn = asyncio.Lock()
        """One message at a time: those of the outbox, and those that cannot wait for it."""
        self._unmarked: list[tuple[tuple[int, ...], int]] = []
        self._apart: set[int] = set()
        """Rows of a message that was refused: each goes alone, so that only what is at fault is set aside."""
        self._other_hours = True
        """Quiet hours may be others than when rows were postponed."""
        self._rest = _Rest()
        self._backoff = Backoff(1.0, 30.0, floor=0.5)
        self._blocked = Backoff(10.0, BLOCKED, floor=5.0)
        self.wake = asyncio.Event()
        """Set: look at once."""
        self.sending = Sending()

    def reconfigure(self, telegram: Telegram, per_minute: int, hide: Hide, quiet: QuietTimes | None) -> None:
        """Work by these from the next message on. What was refused is tried again."""
        self._other_hours = self._other_hours or quiet != self._quiet
        self._telegram, self._hide, self._quiet = telegram, hide, quiet
        self._window.per_minute = per_minute
        if self._rest.blocked:
            self._rest = _Rest()
            self._blocked.reset()
        self.wake.set()

    def hide_by(self, hide: Hide) -> None:
        """Another list of accounts to mask."""
        self._hide = hide

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop``; a message under way is finished and marked."""
        self._stop = stop
        await self._remember_the_minute(stop)
        while not stop.is_set():
            self.wake.clear()
            try:
                wait = await self._once()
            except OutboxAway:
                wait = POLL
            if wait > 0:
                await self._pause(stop, wait)

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        wakes = [asyncio.ensure_future(event.wait()) for event in (stop, self.wake)]
        try:
            await asyncio.wait(wakes, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in wakes:
                each.cancel()
            await asyncio.gather(*wakes, return_exceptions=True)

    async def _remember_the_minute(self, stop: asyncio.Event) -> None:
        """What was sent before this process began counts for the limit."""
        while not stop.is_set() and not self._remembered:
            try:
                now, now_mono = now_ns(), monotonic()
                for sent in await self._outbox.sent_since(now - int(MINUTE * SECOND)):
                    self._window.count(now_mono - (now - sent) / SECOND)
                self._remembered = True
            except OutboxAway:
                await sleep_or(stop, POLL)

    async def _once(self) -> float:
        """Send one message's worth; answers the seconds until there may be more to do."""
        await self._mark()
        if self._other_hours:
            await self._outbox.hurry()
            self._other_hours = False
        now = now_ns()
        rows = await self._outbox.waiting(now)
        self.sending.waiting, self.sending.oldest_ns = await self._outbox.count()
        metrics.waiting.set(self.sending.waiting)
        metrics.oldest.set((now - self.sending.oldest_ns) / SECOND if self.sending.oldest_ns else 0)
        rows = await self._awake(rows, now)
        if not rows:
            if self._rest.until <= monotonic():
                self.sending.state, self.sending.error = "idle", ""
            return POLL
        if (rest := self._rest.until - monotonic()) > 0:
            return min(rest, POLL)
        if not any(row.notice.severity is Severity.CRITICAL for row in rows):
            young = GATHER - (now - min(row.notice.at_ns for row in rows)) / SECOND
            if 0 < young <= GATHER:
                return young
        if (wait := self._window.wait(monotonic())) > 0:
            return min(wait, POLL)  # What comes meanwhile goes with it.
        async with self._turn:
            return await self._tell(rows)

    async def _awake(self, rows: Sequence[Waiting], now: int) -> list[Waiting]:
        """Those that may be sent now; the others wait for the end of the quiet hours."""
        later: dict[int, list[int]] = {}
        for row in rows:
            if until := not_before(row.notice.severity, now, self._quiet):
                later.setdefault(until, []).append(row.id)
        for until, ids in later.items():
            await self._outbox.postpone(ids, until)
        held = {number for ids in later.values() for number in ids}
        return [row for row in rows if row.id not in held]

    async def _tell(self, rows: Sequence[Waiting]) -> float:
        """The first message of these, with all its parts where one row needs several."""
        kinds = {row.id: row.notice.kind for row in rows}
        self._apart &= kinds.keys()
        messages: list[Message] = []
        for message in compose(self._together(rows), self._hide):
            messages.append(message)
            if message.ids:
                break
        ids = messages[-1].ids
        for message in messages:
            if not await self._deliver(message, ids):
                return POLL
        for number in ids:
            metrics.notices.labels(kinds[number]).inc()
        self._unmarked.append((ids, now_ns()))
        await self._mark()
        return 0.0

    def _together(self, rows: Sequence[Waiting]) -> Sequence[Waiting]:
        """Those that may share messages, from the first on."""
        if rows[0].id in self._apart:
            return rows[:1]
        return list(takewhile(lambda row: row.id not in self._apart, rows))

    async def _mark(self) -> None:
        while self._unmarked:
            ids, at_ns = self._unmarked[0]
            await self._outbox.sent(ids, at_ns)
            del self._unmarked[0]

    async def _deliver(self, message: Message, ids: Sequence[int]) -> bool:
        """Whether it was sent, or is done with. False = later: why is in ``sending``."""
        await sleep_or(self._stop, self._window.wait(monotonic()))
        if self._stop.is_set():
            return False
        self.sending.state = "sending"
        self._window.count(monotonic())
        try:
            number = await self._telegram.send(message)
        except TelegramError as error:
            return await self._not_sent(error, ids)
        self._backoff.reset()
        self._blocked.reset()
        metrics.blocked.set(0)
        metrics.messages.labels("sent").inc()
        metrics.last_sent.set_to_current_time()
        self.sending.messages += 1
        self.sending.last_sent_ns, self.sending.state, self.sending.error = now_ns(), "idle", ""
        self._log.debug("notify.sent", message=number, notices=len(message.ids))
        return True

    async def _not_sent(self, error: TelegramError, ids: Sequence[int]) -> bool:
        text = str(error)
        news = text != self.sending.error
        self.sending.error = text
        if isinstance(error, Moved):
            self._log.warning(
                "notify.chat_moved", reason=text, remedy="write it into spec.notifications.telegram.chatId"
            )
            self._telegram.chat = self.sending.migrated = error.chat
            return False
        if isinstance(error, BadText) and len(ids) > 1:
            self._apart.update(ids)
            self._log.warning("notify.apart", reason=text, notices=list(ids), effect="each is told by itself")
            self.sending.state = "sending"
            return False
        if isinstance(error, BadText):
            # It would be refused for ever, and hold up all that comes after it.
            metrics.messages.labels("refused").inc()
            self._log.error("notify.refused", reason=text, notices=list(ids), effect="these are not told")
            await self._outbox.refused(ids, text)
            self.sending.state = "idle"
            return False
        if isinstance(error, Slower):
            self._rest = _Rest(monotonic() + error.seconds)
            self.sending.state, outcome = "resting", "limited"
        elif isinstance(error, NotAllowed):
            self._rest = _Rest(monotonic() + self._blocked.next(), blocked=True)
            self.sending.state, outcome = "blocked", "refused"
            metrics.blocked.set(1)
        else:
            self._rest = _Rest(monotonic() + self._backoff.next())
            self.sending.state, outcome = "away", "away"
        metrics.messages.labels(outcome).inc()
        if news:
            self._log.warning("notify.not_sent", reason=text, effect="it is tried again; nothing is lost")
        await self._outbox.tried(ids)
        return False

    async def direct(self, notice: Notice) -> int:
        """Tell something Critical past the outbox, which is away. Answers when it was sent (ns); 0 = it was not."""
        if self._rest.until > monotonic():
            return 0
        message = next(compose([Waiting(0, notice)], self._hide))
        async with self._turn:
            try:
                return now_ns() if await self._deliver(message, ()) else 0
            except OutboxAway:
                return 0


def describe(sending: Sending) -> str:
    """Why nothing is sent, for readiness; empty = it is, or nothing waits."""
    return f"{sending.state}: {sending.error}" if sending.state == "blocked" else ""
