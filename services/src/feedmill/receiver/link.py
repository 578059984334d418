"""One life of one WebSocket with everything that lives as long as it: listener, subscriptions, watchdog, records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from feedmill.exchanges.base import Feed, FrameKind, Topic
from feedmill.receiver import metrics
from feedmill.receiver.attention import Attention
from feedmill.receiver.connection import Connection
from feedmill.receiver.freshness import Freshness
from feedmill.receiver.pacing import Pacer
from feedmill.receiver.session import Producer
from feedmill.receiver.settings import ReceiverSettings
from feedmill.receiver.subscriber import Subscriber, topic_ref
from feedmill.receiver.usual import EVERY
from feedmill.shared import control
from feedmill.shared.budget import Budget
from feedmill.shared.clock import monotonic

LOOK_EVERY = 0.25
"""Seconds between two looks at whether a socket was reset unnoticed."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One planned socket: which of the feed's sockets, and its share of the topics."""

    name: str
    socket: str
    topics: tuple[Topic, ...]


class Link:
    """Made for one connection attempt. ``open`` then ``run``; ``run`` returns when the connection has ended."""

    def __init__(
        self,
        number: int,
        plan: Socket,
        feed: Feed,
        producer: Producer,
        settings: ReceiverSettings,
        log: Any,
        attention: Attention,
        subscribes: Budget | None = None,
    ) -> None:
        self.number = number
        self.plan = plan
        self._feed = feed
        self._producer = producer
        self._settings = settings
        self._log = log.bind(connection=number, socket=plan.name)
        self.freshness = Freshness(topic.name for topic in plan.topics)
        self.subscriber = Subscriber(
            number, feed, plan.topics, producer, self._send, ack_timeout=settings.ack_timeout,
            seen=self.freshness.has_seen, give_up=self._give_up, subscribes=subscribes, log=self._log,
        )  # fmt: skip
        self.connection = Connection(
            number,
            producer,
            feed.data_prefixes,
            Pacer(settings.mode, settings.max_age),
            self._judge,
            max_message=settings.max_message,
            on_ping=self.subscriber.forced,
        )
        self.connection.sample = self.freshness.sample
        self.attention = attention
        self.connection.on_open = self._connected
        self._running = False
        self._changes: set[asyncio.Task[None]] = set()
        self._limits = asyncio.Event()
        """Set when the settings are others."""
        self.opened_at = 0.0
        self.leaving = asyncio.Event()
        """The venue announced that it will close this connection."""
        self.over = asyncio.Event()
        """The Disconnected record is written."""
        self.cause = ""
        self.detail = ""
        self.fatal = ""

    # life
    async def open(self) -> None:
        """Connect; the Connected record stands before any frame of this connection. Raises what connecting raises."""
        settings = self._settings
        try:
            await self.connection.open(
                self._feed.url(self.plan.socket), timeout=settings.connect_timeout, ssl_context=settings.ssl_context
            )
        except BaseException as error:
            self.because("error", f"while connecting: {type(error).__name__}")
            self._disconnected()
            raise

    def _connected(self) -> None:
        # Called by picows before the first frame is read, so nothing of this connection can stand before the record.
        self.opened_at = monotonic()
        topics = [topic_ref(topic) for topic in self.plan.topics]
        self._producer.record(control.Connected(self.number, self.plan.name, topics), self.number)

    @property
    def feed(self) -> Feed:
        return self._feed

    def assign(self, plan: Socket) -> None:
        """Carry the topics of ``plan`` from now on. What stays is not touched."""
        self.plan = plan
        new, gone = self.subscriber.want(plan.topics)
        self.freshness.remove(topic.name for topic in gone)
        self.freshness.add(topic.name for topic in new)
        if (new or gone) and self._running and not self.over.is_set():
            task = asyncio.create_task(self._guarded(self.subscriber.follow), name=f"follow-{self.number}")
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    def forget(self) -> None:
        """No topic is wanted of it any more: it is about to be closed."""
        if self.opened_at and not self.over.is_set():
            self.subscriber.forget()

    def limit(self, settings: ReceiverSettings) -> None:
        """Other limits from now on."""
        self._settings = settings
        self.connection.pace(settings.mode, settings.max_age)
        self._limits.set()

    async def run(self) -> None:
        """Subscribe and watch until the connection ends, whoever ends it; always writes Disconnected."""
        connection = self.connection
        self._running = True
        helpers = [
            asyncio.create_task(self._guarded(self.subscriber.run), name=f"subscribe-{self.number}"),
            asyncio.create_task(self._watch_silence(), name=f"silence-{self.number}"),
            asyncio.create_task(self._watch_reset(), name=f"reset-{self.number}"),
            asyncio.create_task(self._guarded(self._watch_topics), name=f"topics-{self.number}"),
        ]
        try:
            await connection.closed.wait()
            await connection.ended()
        finally:
            self._running = False
            helpers += self._changes
            for helper in helpers:
                helper.cancel()
            connection.close(graceful=False)
            self._disconnected()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def close(self, cause: str, detail: str = "") -> None:
        """End it from this side and wait until the record is written."""
        self.because(cause, detail)
        if cause == "planned":
            await self.connection.farewell()
        self.connection.close(graceful=cause in ("planned", "shutdown", "backpressure"))
        await self.connection.ended()
        if not self.over.is_set():
            self._disconnected()

    def because(self, cause: str, detail: str = "") -> None:
        """Name the cause of the end to come; the first name counts."""
        if not self.cause:
            self.cause, self.detail = cause, detail

    def _disconnected(self) -> None:
        if self.over.is_set():
            return
        if not self.opened_at:
            self.over.set()
            return
        connection = self.connection
        # After a cancellation the last read's frames may still wait for their turn: they come before the record.
        connection.flush()
        code = connection.close_code
        if not self.cause:
            if self.fatal:
                self.because("error", self.fatal)
            elif connection.trouble:
                self.because("error", connection.trouble)
            elif code is not None:
                self.because("closed", connection.close_reason)
            else:
                self.because("aborted", "the connection ended without a close frame")
        self.over.set()
        metrics.disconnects.labels(self.cause).inc()
        self._log.info(
            "connection.ended", cause=self.cause, detail=self.detail[:200], code=code, frames=connection.received,
            lasted_seconds=round(monotonic() - self.opened_at, 1),
        )  # fmt: skip
        self._producer.record(control.Disconnected(self.number, self.cause, self.detail[:200], code), self.number)

    async def _guarded(self, subscribe: Callable[[], Awaitable[None]]) -> None:
        try:
            await subscribe()
        except Exception as error:
            self._log.exception("subscribe.failed")
            self.because("error", f"subscribing failed: {type(error).__name__}: {error}"[:200])
            self.connection.close(graceful=False)

    def _give_up(self, reason: str) -> None:
        self.because("error", reason)
        self.connection.close(graceful=False)

    # silence
    @property
    def silence(self) -> float:
        return self._settings.silence_timeout or self._feed.limits.silence

    async def _watch_silence(self) -> None:
        """Nothing at all for too long, pings included: the other side is gone without saying so."""
        connection = self.connection
        while True:
            if connection.held:
                await asyncio.sleep(min(1.0, self.silence / 4))
                continue
            left = connection.last_frame + self.silence - monotonic()
            if left <= 0:
                self.because("silent", f"no frame for {self.silence:g} s, pings included")
                connection.close(graceful=False)
                return
            self._limits.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left + 0.001):
                    await self._limits.wait()

    async def _watch_reset(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.connection.revive()

    async def _watch_topics(self) -> None:
        """Topics that fall silent while the connection lives are asked for anew."""
        connection, holds = self.connection, 0
        self.attention.connected(monotonic())
        while True:
            await asyncio.sleep(EVERY)
            held = connection.held or connection.holds != holds
            holds = connection.holds
            topics = self.subscriber.active
            anew = self.attention.look(self.freshness.seen, connection.last_data, topics, monotonic(), held=held)
            self.freshness.exact = self.attention.unsure
            if anew:
                await self.subscriber.resubscribe(anew)

    # frames without data prefix
    def _judge(self, payload: bytes) -> tuple[bool, Callable[[], None] | None]:
        try:
            verdict = self._feed.classify(payload)
        except Exception:
            # The adapter promises not to raise; if it does, the frame is kept and the mapper dead-letters it.
            self._log.exception("classify.failed", size=len(payload))
            return True, None
        kind = verdict.kind
        if kind is FrameKind.DATA:
            return True, self._seen_data
        if kind is FrameKind.HEARTBEAT:
            if verdict.reply is not None:
                self.connection.send(verdict.reply)
                self.subscriber.forced()
            return False, None

        def act() -> None:
            if kind is FrameKind.SHUTDOWN:
                self.leaving.set()
                return
            self.subscriber.on_answer(verdict)
            if verdict.fatal:
                self.fatal = verdict.error or "the venue ended the session"
                self.connection.close(graceful=False)

        return True, act

    def _seen_data(self) -> None:
        connection = self.connection
        now = monotonic()
        if not connection.last_data:
            connection.first_data = now
            connection.got_data.set()
        connection.last_data = now

    def _send(self, payload: bytes) -> None:
        self.connection.send(payload)

    # judgement
    @property
    def stable(self) -> bool:
        """Data flowed for ``stable_after``: only then is the next failure the first again."""
        connection = self.connection
        return connection.first_data > 0 and connection.last_data - connection.first_data >= self._settings.stable_after
