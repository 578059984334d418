"""Subscribes the topics of one connection: paced, and every acknowledgement checked.

A refused request is asked for again in halves, so that one bad topic costs only itself. A request without its
acknowledgement after ``ack_timeout`` is sent once more. If there is still none, data of one of its topics proves that
it was carried out; without any the connection is no good and ends as a failure. A venue that acknowledges unknown
topics in silence (Binance) is not found out here: such a topic stays without data, which freshness shows.

What is wanted may change while the connection lives (:meth:`Subscriber.want`): only what differs is asked for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from feedmill.exchanges.base import Feed, FrameKind, Outbound, Topic, Verdict
from feedmill.receiver import metrics
from feedmill.receiver.session import Producer
from feedmill.shared import control
from feedmill.shared.budget import Budget, TokenBucket


class TopicState(Enum):
    PENDING = "pending"
    ACTIVE = "active"
    REJECTED = "rejected"


@dataclass(slots=True)
class _Request:
    message: Outbound
    unsubscribe: bool = False
    split: bool = False
    """Refused as a whole: each half is asked for again, so that one bad topic costs only itself."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)


def message_bucket(messages_per_second: float) -> TokenBucket:
    """One at once, refilled so that no second ever sees more than the venue's limit."""
    return TokenBucket(1.0, max(messages_per_second - 1, messages_per_second / 2))


def topic_ref(topic: Topic) -> control.TopicRef:
    wanted = topic.subscription
    return control.TopicRef(wanted.symbol, wanted.native, wanted.channel.value, topic.name, wanted.interval)


class Subscriber:
    """Drives the subscriptions of one connection (``number``); ``send`` writes a text message to it."""

    def __init__(
        self,
        number: int,
        feed: Feed,
        topics: Sequence[Topic],
        producer: Producer,
        send: Callable[[bytes], None],
        *,
        ack_timeout: float = 10.0,
        seen: Callable[[str], bool] = lambda topic: False,
        give_up: Callable[[str], None],
        subscribes: Budget | None = None,
        log: Any,
    ) -> None:
        """``subscribes``: what all connections together may ask for; ``seen``: whether data of a topic came;
        ``give_up(reason)``: end the connection."""
        self.number = number
        self.topics = {topic.name: topic for topic in topics}
        self.states = {topic.name: TopicState.PENDING for topic in topics}
        self._feed = feed
        self._producer = producer
        self._send = send
        self._ack_timeout = ack_timeout
        self._seen = seen
        self._give_up = give_up
        self._subscribes = subscribes
        self._log = log
        self._asked: dict[str, Topic] = {}
        """What the venue was asked for, refused ones included."""
        self._told = set(self.topics)
        """Topics that a record has named before they were asked for."""
        self._dropping: set[str] = set()
        """Unsubscribed for good, without a record yet."""
        self._pending: dict[int, _Request] = {}
        self._ids = itertools.count(1)
        self._lock = asyncio.Lock()
        self.bucket = message_bucket(feed.limits.messages_per_second)

    def next_id(self) -> int:
        return next(self._ids)

    def forced(self) -> None:
        """A pong or heartbeat reply was sent: it counts as a message."""
        self.bucket.force()

    @property
    def active(self) -> dict[str, Topic]:
        """What the venue has accepted."""
        return {name: self.topics[name] for name, state in self.states.items() if state is TopicState.ACTIVE}

    @property
    def settled(self) -> bool:
        return TopicState.PENDING not in self.states.values()

    async def run(self) -> None:
        """Send the opening messages, subscribe everything, and see every answer or its lack."""
        async with self._lock, asyncio.TaskGroup() as group:
            for message in self._feed.opening():
                await self._ask(group, message)
            await self._ask_new(group)

    def want(self, topics: Iterable[Topic]) -> tuple[list[Topic], list[Topic]]:
        """What the connection is to carry from now on; answers what is new and what is gone. :meth:`follow` does it."""
        wanted = {topic.name: topic for topic in topics}
        new = [topic for name, topic in wanted.items() if name not in self.topics]
        gone = [topic for name, topic in self.topics.items() if name not in wanted]
        for topic in new:
            self.topics[topic.name], self.states[topic.name] = topic, TopicState.PENDING
        for topic in gone:
            del self.topics[topic.name], self.states[topic.name]
        return new, gone

    async def follow(self) -> None:
        """Ask for what is wanted and was not asked for, and end what is wanted no longer."""
        async with self._lock:
            await self._drop_gone()
            async with asyncio.TaskGroup() as group:
                await self._ask_new(group)

    async def _ask_new(self, group: asyncio.TaskGroup) -> None:
        new = [topic for name, topic in self.topics.items() if name not in self._asked]
        self._asked.update((topic.name, topic) for topic in new)
        untold = [topic_ref(topic) for topic in new if topic.name not in self._told]
        if untold:
            self._told.update(ref.topic for ref in untold)
            self._producer.record(control.Subscribing(self.number, untold), self.number)
        for message in self._feed.subscribe(new, self.next_id) if new else ():
            await self._ask(group, message)

    async def _drop_gone(self) -> None:
        gone = [topic for name, topic in self._asked.items() if name not in self.topics]
        if not gone:
            return
        for topic in gone:
            del self._asked[topic.name]
            self._dropping.add(topic.name)
        async with asyncio.TaskGroup() as group:
            for message in self._feed.unsubscribe(gone, self.next_id):
                await self._ask(group, message, unsubscribe=True)
        # Not acknowledged, or refused: whether more comes or not, it is not wanted.
        self._record_gone([topic for topic in gone if topic.name in self._dropping])

    def forget(self) -> None:
        """Nothing is wanted any more and the connection is about to be ended: only the record is made."""
        self.want(())
        gone = list(self._asked.values())
        self._asked.clear()
        self._record_gone(gone)

    def _record_gone(self, gone: Sequence[Topic]) -> None:
        if gone:
            self._dropping.difference_update(topic.name for topic in gone)
            refs = [topic_ref(topic) for topic in gone]
            self._producer.record(control.Unsubscribed(self.number, refs, final=True), self.number)

    async def resubscribe(self, topics: Sequence[Topic]) -> None:
        """Unsubscribe and subscribe again; the records tell when."""
        async with self._lock:
            topics = [topic for topic in topics if topic.name in self.topics]
            if not topics:
                return
            for unsubscribe in (True, False):
                build = self._feed.unsubscribe if unsubscribe else self._feed.subscribe
                async with asyncio.TaskGroup() as group:
                    for message in build(topics, self.next_id):
                        await self._ask(group, message, unsubscribe=unsubscribe)

    async def _ask(self, group: asyncio.TaskGroup, message: Outbound, *, unsubscribe: bool = False) -> None:
        request = _Request(message, unsubscribe)
        await self._deliver(request)
        if message.request_id is None:
            self._settle(request, message.topics)
        else:
            group.create_task(self._answered(group, request), name=f"ack-{self.number}-{message.request_id}")

    async def _deliver(self, request: _Request) -> None:
        if self._subscribes is not None and request.message.topics and not request.unsubscribe:
            await self._subscribes.take()
        await self.bucket.take()
        if request.message.request_id is not None:
            self._pending[request.message.request_id] = request
        self._send(request.message.payload)

    async def _answered(self, group: asyncio.TaskGroup, request: _Request) -> None:
        for again in (True, False):
            try:
                async with asyncio.timeout(self._ack_timeout):
                    await request.answered.wait()
                if request.split:
                    await self._ask_halves(group, request.message.topics)
                return
            except TimeoutError:
                self._log.warning(
                    "subscribe.unanswered",
                    connection=self.number,
                    topics=len(request.message.topics),
                    seconds=self._ack_timeout,
                    action="sent again" if again else "looking for data",
                )
            if again:
                await self._deliver(request)
        # The request stays known: an acknowledgement that comes later still after all makes its topics active.
        topics = request.message.topics
        if request.unsubscribe:
            if not any(topic.name in self.topics for topic in topics) and request.message.request_id is not None:
                self._pending.pop(request.message.request_id, None)  # It may be wanted again by then.
            return
        if any(self._seen(topic.name) for topic in topics):
            self._settle(request, topics)
        else:
            self._give_up(
                f"no acknowledgement of {len(topics)} topics within {self._ack_timeout:g} s, asked twice, and no data"
            )

    async def _ask_halves(self, group: asyncio.TaskGroup, topics: Sequence[Topic]) -> None:
        middle = len(topics) // 2
        for half in (topics[:middle], topics[middle:]):
            for message in self._feed.subscribe(half, self.next_id):
                await self._ask(group, message)

    # answers
    def on_answer(self, verdict: Verdict) -> None:
        """An acknowledgement or an error that names a request."""
        request = self._pending.pop(verdict.request_id, None) if verdict.request_id is not None else None
        if request is None:
            if verdict.kind is FrameKind.ERROR:
                self._log.warning("venue.error", connection=self.number, error=verdict.error[:200])
            return
        topics = request.message.topics
        request.split = (
            verdict.kind is FrameKind.ERROR and not verdict.fatal and not request.unsubscribe and len(topics) > 1
        )
        request.answered.set()
        if verdict.kind is FrameKind.ERROR:
            self._log.warning(
                "venue.error", connection=self.number, error=verdict.error[:200], topics=[t.name for t in topics[:5]]
            )
            if not request.unsubscribe and not request.split:
                self.reject(topics, verdict.error or "refused by the venue")
            return
        if verdict.accepted is None or request.unsubscribe:
            self._settle(request, topics)
            return
        self._settle(request, [topic for topic in topics if topic.name in verdict.accepted])
        left_out = [topic for topic in topics if topic.name not in verdict.accepted]
        if left_out:
            self.reject(left_out, "not listed in the venue's acknowledgement")

    def _settle(self, request: _Request, topics: Iterable[Topic]) -> None:
        done = list(topics)
        if not done:
            return
        if request.unsubscribe:
            self._record_gone([topic for topic in done if topic.name in self._dropping])
            done = [topic for topic in done if topic.name in self.topics]
            if not done:
                return
        refs = [topic_ref(topic) for topic in done]
        record: control.Control
        if request.unsubscribe:
            record, state = control.Unsubscribed(self.number, refs), TopicState.PENDING
        else:
            record, state = control.Subscribed(self.number, refs), TopicState.ACTIVE
        self._set(done, state)
        self._producer.record(record, self.number)

    def _set(self, topics: Iterable[Topic], state: TopicState) -> None:
        for topic in topics:
            if topic.name in self.states:  # Else it is wanted no longer.
                self.states[topic.name] = state

    def reject(self, topics: Iterable[Topic], reason: str) -> None:
        refused = list(topics)
        if not refused:
            return
        self._set(refused, TopicState.REJECTED)
        metrics.rejected.inc(len(refused))
        self._log.error(
            "topic.rejected", connection=self.number, reason=reason[:200], topics=[t.name for t in refused[:10]],
            count=len(refused), remedy="check the symbol and the channel in the manifest",
        )  # fmt: skip
        refs = [topic_ref(topic) for topic in refused]
        self._producer.record(control.Rejected(self.number, refs, reason[:200]), self.number)
