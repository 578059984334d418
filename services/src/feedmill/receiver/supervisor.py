"""All sockets of one receiver: planned from its subscriptions, each kept by a task of its own."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

from feedmill.exchanges.base import Feed, Subscription, Topic
from feedmill.receiver.flow import Flow
from feedmill.receiver.keeper import Keeper
from feedmill.receiver.link import Link, Socket
from feedmill.receiver.session import Producer
from feedmill.receiver.settings import ReceiverSettings
from feedmill.shared.budget import TokenBucket


def plan_sockets(feed: Feed, subscriptions: Sequence[Subscription]) -> list[Socket]:
    """Topics by socket, cut into connections of at most ``limits.topics_per_connection``, in a stable order."""
    by_socket: dict[str, dict[str, Topic]] = {}
    for topic in feed.topics(subscriptions):
        by_socket.setdefault(topic.socket, {}).setdefault(topic.name, topic)
    most = feed.limits.topics_per_connection
    plans: list[Socket] = []
    for socket, topics in by_socket.items():
        names = sorted(topics)
        for index, start in enumerate(range(0, len(names), most)):
            name = socket if len(names) <= most else f"{socket}-{index + 1}"
            plans.append(Socket(name, socket, tuple(topics[key] for key in names[start : start + most])))
    return plans


class Supervisor:
    """Keeps every planned socket connected until cancelled."""

    def __init__(
        self,
        feed: Feed,
        producer: Producer,
        settings: ReceiverSettings,
        flow: Flow,
        log: Any,
        *,
        connects: TokenBucket | None = None,
        random_source: random.Random | None = None,
    ) -> None:
        self.plans = plan_sockets(feed, settings.subscriptions)
        limits = feed.limits
        self.connects = connects or TokenBucket.within(
            max(1.0, limits.connects * settings.share), limits.connects_window
        )
        numbers = itertools.count(1)
        self.keepers = [
            Keeper(plan, feed, producer, settings, self.connects, flow, lambda: next(numbers), log, random_source)
            for plan in self.plans
        ]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for keeper in self.keepers:
                group.create_task(keeper.run(), name=f"keep-{keeper.plan.name}")

    @property
    def links(self) -> list[Link]:
        return [keeper.link for keeper in self.keepers if keeper.link is not None and not keeper.link.over.is_set()]

    def topics_of(self, symbol: str, channel: str) -> list[tuple[Link, list[Topic]]]:
        """Live connections that carry this channel of this instrument, with its topics."""
        found: list[tuple[Link, list[Topic]]] = []
        for link in self.links:
            topics = [
                topic
                for topic in link.plan.topics
                if topic.subscription.symbol == symbol and topic.subscription.channel.value == channel
            ]
            if topics:
                found.append((link, topics))
        return found
