"""All sockets of one receiver: planned from its subscriptions, each kept by a task of its own."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from feedmill.exchanges.base import Feed, Subscription, Topic
from feedmill.receiver.flow import Flow
from feedmill.receiver.keeper import Keeper
from feedmill.receiver.link import Link, Socket
from feedmill.receiver.session import Producer
from feedmill.receiver.settings import ReceiverSettings
from feedmill.shared.budget import Budget, TokenBucket


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


def reassign(feed: Feed, current: Sequence[Socket], subscriptions: Sequence[Subscription]) -> list[Socket]:
    """Other subscriptions on sockets that are there: what is wanted as before stays where it is.

    New topics fill the sockets there are, then new ones; a socket without topics is left out. Raises ValueError.
    """
    wanted: dict[str, dict[str, Topic]] = {}
    for topic in feed.topics(subscriptions):
        wanted.setdefault(topic.socket, {}).setdefault(topic.name, topic)
    most = feed.limits.topics_per_connection
    names = {plan.name for plan in current}
    plans: list[Socket] = []
    for plan in current:
        left = wanted.get(plan.socket, {})
        stay = [topic for topic in plan.topics if left.pop(topic.name, None) is not None]
        plans.append(replace(plan, topics=tuple(stay)))
    for at, plan in enumerate(plans):
        left = wanted.get(plan.socket, {})
        new = sorted(left)[: most - len(plan.topics)]
        plans[at] = replace(plan, topics=plan.topics + tuple(left.pop(name) for name in new))
    plans = [plan for plan in plans if plan.topics]
    for socket, left in wanted.items():
        while left:
            numbered = (f"{socket}-{number}" for number in itertools.count(2))
            name = next(name for name in itertools.chain((socket,), numbered) if name not in names)
            names.add(name)
            plans.append(Socket(name, socket, tuple(left.pop(name) for name in sorted(left)[:most])))
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
        connects: Budget | None = None,
        subscribes: Budget | None = None,
        random_source: random.Random | None = None,
    ) -> None:
        self.plans = plan_sockets(feed, settings.subscriptions)
        limits = feed.limits
        self.connects: Budget = connects or TokenBucket.within(
            max(1.0, limits.connects * settings.share), limits.connects_window
        )
        numbers = itertools.count(1)
        self._feed = feed
        self._settings = settings

        def make(plan: Socket) -> Keeper:
            return Keeper(
                plan, self._feed, producer, self._settings, self.connects, flow, lambda: next(numbers), log,
                random_source, subscribes,
            )  # fmt: skip

        self._make = make
        self.keepers: list[Keeper] = [self._make(plan) for plan in self.plans]
        self._tasks: dict[Keeper, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        """While it runs."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for keeper in self.keepers:
                    self._start(keeper)
                await asyncio.Event().wait()  # Others may be started later.
            finally:
                self._group = None

    def _start(self, keeper: Keeper) -> None:
        if self._group is not None:
            task = self._group.create_task(keeper.run(), name=f"keep-{keeper.plan.name}")
            self._tasks[keeper] = task
            task.add_done_callback(lambda _: self._tasks.pop(keeper, None))

    def reconfigure(self, feed: Feed, settings: ReceiverSettings, plans: Sequence[Socket]) -> None:
        """Work by other settings and ``plans`` (see :func:`reassign`) from now on; ``feed``: the same one, or that of
        another address. Connections whose topics and address stay are not touched."""
        moved, self._feed, self._settings = feed is not self._feed, feed, settings
        self.plans = list(plans)
        by_name = {plan.name: plan for plan in plans}
        for keeper in list(self.keepers):
            plan = by_name.pop(keeper.plan.name, None)
            if plan is None:
                self._retire(keeper)
                continue
            keeper.limit(settings)
            if plan != keeper.plan:
                keeper.assign(plan)
            if moved:
                keeper.move(feed)
        for plan in by_name.values():
            keeper = self._make(plan)
            self.keepers.append(keeper)
            self._start(keeper)

    def _retire(self, keeper: Keeper) -> None:
        self.keepers.remove(keeper)
        keeper.retire()
        if (task := self._tasks.get(keeper)) is not None:
            task.cancel()

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
