"""Keeps one planned socket connected: back-off, connect budget, renewal before the venue's cut.

A renewal makes before it breaks: the old connection goes on until the new one is subscribed and brings data, however
long that takes. It is due by plan (a part of the connection's lifetime, different for each), when the venue announces
that it will close, or when the address is another one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from feedmill.exchanges.base import Feed
from feedmill.receiver import metrics
from feedmill.receiver.attention import Attention
from feedmill.receiver.causes import ConnectFailure, explain
from feedmill.receiver.flow import CAUSE as BACKPRESSURE
from feedmill.receiver.flow import Flow
from feedmill.receiver.link import Link, Socket
from feedmill.receiver.session import Producer
from feedmill.receiver.settings import ReceiverSettings
from feedmill.shared.backoff import Backoff
from feedmill.shared.budget import Budget
from feedmill.shared.clock import monotonic

RATE_LIMIT_WAIT = 60.0
"""Seconds to wait after HTTP 429 or 418 without Retry-After."""
EARLIEST, LATEST = 0.5, 0.95
"""Between which parts of its lifetime a connection is renewed."""
PROVE = 10.0
"""Seconds a renewed connection has to show data once its subscriptions are settled."""
RENEW_TIMEOUT = 60.0
OVERLAP = 1.0
"""Seconds both connections go on once the new one works: the old one may be that far behind it."""


def renewal_age(lifetime: float | None, most: float | None, seed: str) -> float | None:
    """At which age (seconds) a connection is renewed; None = never. ``lifetime``: as wished, ``most``: the venue's.

    Spread by ``seed``: connections made together must not be renewed together.
    """
    known = [each for each in (lifetime, most) if each is not None]
    return min(known) * random.Random(seed).uniform(EARLIEST, LATEST) if known else None


class Keeper:
    """``state``: waiting (for memory) | budget | connecting | open | renewing | backoff | stopped.

    While it renews the old connection captures, so ``renewing`` stands for all that is done to get the new one.
    """

    def __init__(
        self,
        plan: Socket,
        feed: Feed,
        producer: Producer,
        settings: ReceiverSettings,
        connects: Budget,
        flow: Flow,
        next_number: Callable[[], int],
        log: Any,
        random_source: random.Random | None = None,
        subscribes: Budget | None = None,
    ) -> None:
        self.plan = plan
        self._feed = feed
        self._producer = producer
        self._settings = settings
        self._connects = connects
        self._subscribes = subscribes
        self._flow = flow
        self._next_number = next_number
        self._log = log.bind(socket=plan.name)
        self._attention = Attention(self._log)
        self._random = random_source or random.Random()
        self.backoff = Backoff(settings.min_backoff, settings.max_backoff, random_source=self._random)
        self._state = "waiting"
        self._renewing = False
        self.link: Link | None = None
        self.failure: ConnectFailure | None = None
        self.last_end = ""
        self.retry_at = 0.0
        self._lives: dict[Link, asyncio.Task[None]] = {}
        self._hurry = asyncio.Event()
        self._limits = asyncio.Event()
        """Set when the settings are others."""
        self._end = ("shutdown", "the receiver stops")

    @property
    def state(self) -> str:
        renews = self._renewing and self.link is not None and not self.link.over.is_set()
        return "renewing" if renews and self._state != "stopped" else self._state

    def assign(self, plan: Socket) -> None:
        """Carry the topics of ``plan`` from now on, on the connection there is."""
        self.plan = plan
        for link in self._lives:
            link.assign(plan)

    def limit(self, settings: ReceiverSettings) -> None:
        """Other limits from now on."""
        self._settings = settings
        self.backoff.cap = max(settings.max_backoff, self.backoff.base)
        for link in self._lives:
            link.limit(settings)
        self._limits.set()

    def move(self, feed: Feed) -> None:
        """Another address: a new connection is made there and seen to work before the one there is ends."""
        self._feed = feed
        self.backoff.reset()
        self._hurry.set()
        if self.link is not None:
            self.link.leaving.set()

    def retire(self) -> None:
        """No topic is left for it: to be cancelled next."""
        self._end = ("planned", "no topic is left for this connection")
        for link in self._lives:
            link.forget()

    async def run(self) -> None:
        """Keep it connected until cancelled; then every connection ends with its record."""
        try:
            self.link = await self._establish()
            while True:
                link = self.link
                if link.feed is not self._feed:
                    link.leaving.set()
                if await self._ends_before_renewal(link):
                    await self._after_end(link)
                    self.link = await self._establish()
                else:
                    self.link = await self._renew(link) or await self._establish()
        finally:
            self._state = "stopped"
            for link, life in self._lives.items():
                link.because(*self._end)
                link.connection.close(graceful=True)
                life.cancel()
            await asyncio.gather(*self._lives.values(), return_exceptions=True)

    # connecting
    async def _establish(self) -> Link:
        while True:
            link = await self._try_once()
            if link is not None:
                return link
            await self._back_off()

    async def _try_once(self) -> Link | None:
        """One attempt within memory and budget; None when it failed."""
        if not self._flow.room.is_set():
            self._state = "waiting"
            await self._flow.room.wait()
        self._state = "budget"
        await self._connects.take()
        self._state = "connecting"
        link = Link(
            self._next_number(), self.plan, self._feed, self._producer, self._settings, self._log, self._attention,
            self._subscribes,
        )  # fmt: skip
        try:
            await link.open()
        except Exception as error:
            self._failed(explain(link.feed.url(link.plan.socket), error))
            return None
        metrics.connects.labels("ok").inc()
        self.failure = None
        self._state = "open"
        self._log.info("connection.open", connection=link.number, topics=len(self.plan.topics))
        self._flow.add(link)
        link.limit(self._settings)
        if link.plan is not self.plan:
            link.assign(self.plan)
        life = asyncio.create_task(link.run(), name=f"link-{link.number}")
        self._lives[link] = life
        life.add_done_callback(lambda done: self._life_over(link, done))
        return link

    def _life_over(self, link: Link, life: asyncio.Task[None]) -> None:
        self._lives.pop(link, None)
        self._flow.remove(link)
        if not life.cancelled() and (error := life.exception()) is not None:
            self._log.error("connection.failed", connection=link.number, exc_info=error)

    def _failed(self, failure: ConnectFailure) -> None:
        metrics.connects.labels(failure.cause).inc()
        self.failure = failure
        if failure.cause == "rate_limited":
            # The limit is the address's, not this socket's: nobody may try.
            self._connects.block(failure.retry_after if failure.retry_after is not None else RATE_LIMIT_WAIT)
        self._log.warning(
            "connect.failed",
            host=failure.host,
            cause=failure.cause,
            detail=failure.detail,
            failures=self.backoff.failures + 1,
            next_within_seconds=round(self.backoff.bound, 1),
        )

    async def _back_off(self, *wakes: asyncio.Event) -> None:
        """Rest for the next pause, or until one of ``wakes`` is set."""
        self._state = "backoff"
        wait = self.backoff.next()
        if self.failure is not None and self.failure.retry_after is not None:
            wait = max(wait, self.failure.retry_after)
        self.retry_at = monotonic() + wait
        self._hurry.clear()
        await _first(self._hurry, *wakes, timeout=wait)

    async def _after_end(self, link: Link) -> None:
        self.last_end = link.cause
        if link.stable:
            self.backoff.reset()
        if link.cause != BACKPRESSURE:
            await self._back_off()

    # renewal
    async def _ends_before_renewal(self, link: Link) -> bool:
        """Wait for the end of ``link`` (True) or for the time to renew it (False)."""
        seed = f"{self._settings.shard}/{self._settings.replica}/{self.plan.name}/{link.number}"
        while True:
            self._limits.clear()
            age = renewal_age(self._settings.lifetime, self._feed.limits.connection_lifetime, seed)
            left = None if age is None else max(0.0, link.opened_at + age - monotonic())
            await _first(link.over, link.leaving, self._limits, timeout=left)
            if link.over.is_set():
                return True
            if link.leaving.is_set() or not self._limits.is_set():
                return False

    async def _renew(self, old: Link) -> Link | None:
        """Make the new connection, see it work, then close the old one. None when both are gone."""
        cause = "moved" if old.feed is not self._feed else "announced" if old.leaving.is_set() else "planned"
        self._log.info("connection.renew", connection=old.number, cause=cause)
        self._renewing = True
        try:
            new = await self._replacement(old)
        finally:
            self._renewing = False
        late = old.over.is_set()
        metrics.renewals.labels(cause, "late" if late else "ok").inc()
        if late:
            self.last_end = old.cause
        if new is None:
            await self._after_end(old)
            return None
        self.link = new
        await old.close("planned", "replaced by a new connection")
        return new

    async def _replacement(self, old: Link) -> Link | None:
        """A connection that works while ``old`` does too; when that ended first, the one there is, or None."""
        while not old.over.is_set():
            new = await self._try_once()
            if new is not None:
                works = await self._works(new, old)
                if works:
                    await _first(old.over, new.over, timeout=OVERLAP)
                if not new.over.is_set():
                    if works or old.over.is_set():
                        return new
                    await new.close("error", "the renewed connection showed no data")
            if not old.over.is_set():
                # An announcement makes haste, but only once: the venue may go on refusing.
                await self._back_off(old.over, *(() if old.leaving.is_set() else (old.leaving,)))
        return None

    async def _works(self, new: Link, old: Link) -> bool:
        """Subscriptions settled and data seen (or silence for a while where there may be none)."""
        deadline = monotonic() + RENEW_TIMEOUT
        settled_at = 0.0
        while monotonic() < deadline and not new.over.is_set() and not old.over.is_set():
            if new.subscriber.settled:
                settled_at = settled_at or monotonic()
                if new.connection.got_data.is_set() or monotonic() - settled_at >= PROVE:
                    return True
            await asyncio.sleep(0.02)
        return False


async def _first(*events: asyncio.Event, timeout: float | None) -> None:
    """Wait until one of the events is set, or ``timeout`` seconds."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
