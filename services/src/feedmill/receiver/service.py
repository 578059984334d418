"""The receiver put together: what runs, in which order it starts, and how it ends without losing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from feedmill.exchanges.base import Feed, Rest, Topic
from feedmill.receiver import metrics, status
from feedmill.receiver.appender import Appender
from feedmill.receiver.commands import CommandReader
from feedmill.receiver.confirmer import Confirmer
from feedmill.receiver.flow import Flow
from feedmill.receiver.headroom import Headroom
from feedmill.receiver.link import Link
from feedmill.receiver.rest import RestDesk
from feedmill.receiver.session import Producer
from feedmill.receiver.settings import ReceiverSettings
from feedmill.receiver.spill.spool import Spool
from feedmill.receiver.supervisor import Supervisor, reassign
from feedmill.shared.breaker import Breaker, tells
from feedmill.shared.budget import ByteBudget
from feedmill.shared.control import Command
from feedmill.shared.fleet import Fleet
from feedmill.shared.health import Health
from feedmill.shared.redis.url import RedisUrl

CONFIRM_WAIT = 3.0
"""Seconds an orderly stop waits for the last batches to be on the server's disk, beyond their acknowledgement."""
FIRST_RESET = 1.0
"""Seconds of the breaker's first rest; it doubles up to the configured one."""


def _fleet_of(settings: ReceiverSettings, redis_url: RedisUrl, log: Any) -> Fleet | None:
    if not settings.fleet:
        return None
    name = f"{settings.shard}-{settings.replica}"
    return Fleet(redis_url, settings.fleet, name=name, expected=settings.fleet_members, log=log)


class Undrained(RuntimeError):
    """The process stopped before Redis had everything; what was missing is gone with it."""


class Receiver:
    def __init__(
        self, settings: ReceiverSettings, feed: Feed, rest: Rest, redis_url: RedisUrl, health: Health, log: Any
    ) -> None:
        self.settings = settings
        self.health = health
        self._log = log
        self._feed = feed
        self.budget = ByteBudget(settings.memory)
        self.breaker = Breaker(
            "redis",
            fail_max=settings.breaker_failures,
            reset_timeout=settings.breaker_reset,
            first_reset=FIRST_RESET,
            on_change=tells(log, "redis"),
        )
        self.producer = Producer(
            settings.replica,
            self.budget,
            max_frames=settings.max_batch_frames,
            max_bytes=settings.max_batch_bytes,
            shard=str(settings.shard),
            log=log,
        )
        self.appender = Appender(
            redis_url, settings.shard, self.producer, self.breaker, deadline=settings.append_deadline, log=log
        )
        self.confirmer = Confirmer(
            redis_url, settings.shard, self.producer, self.appender, replicas=settings.confirm_replicas,
            hold=settings.confirm_hold, log=log,
        )  # fmt: skip
        self.spool: Spool | None = None
        if settings.spill_dir is not None:
            self.spool = Spool(
                settings.spill_dir,
                str(settings.shard),
                settings.spill_size,
                self.producer,
                lambda: self.appender.blocked_for,
                log,
            )
            self.confirmer.headroom = Headroom(settings.shard, self.producer, self.appender)
        self.flow = Flow(self.budget, settings.pause_limit, log)
        self.fleet = _fleet_of(settings, redis_url, log)
        limits, connects, subscribes = feed.limits, None, None
        if self.fleet is not None:
            most = max(1.0, limits.connects * settings.share)
            connects = self.fleet.within("connects", most, limits.connects_window)
            if limits.subscribes:
                at_once, rate = limits.subscribes * settings.share, limits.subscribes_per_second * settings.share
                subscribes = self.fleet.bucket("subscribe", at_once, rate)
            status.install_fleet(self.fleet, health)
        self.supervisor = Supervisor(
            feed, self.producer, settings, self.flow, log, connects=connects, subscribes=subscribes
        )
        self.desk = RestDesk(
            rest, feed.limits, self.producer, share=settings.share, timeout=settings.rest_timeout,
            ssl_context=settings.ssl_context, fleet=self.fleet, log=log,
        )  # fmt: skip
        self.commands = CommandReader(
            redis_url, settings.shard, self.breaker, self.handle, session=lambda: self.producer.id,
            max_age=settings.command_max_age, well=lambda: not self.desk.problem, log=log,
        )  # fmt: skip
        self._asked: set[asyncio.Task[None]] = set()
        status.install(self)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop``, then drain.

        Raises Undrained when not everything came to Redis or to the disk in time, SpillInUse when another receiver
        works in the spill's folder.
        """
        self._log.info(
            "receiver.start", session=self.producer.id, shard=str(self.settings.shard),
            connections=len(self.supervisor.plans), topics=sum(len(p.topics) for p in self.supervisor.plans),
            mode=self.settings.mode.value,
        )  # fmt: skip
        try:
            if self.spool is not None:
                await self.spool.open()
            async with asyncio.TaskGroup() as group:
                works = {
                    "append": self.appender.run(),
                    "confirm": self.confirmer.run(),
                    "flow": self.flow.run(),
                    "alive": self._alive(),
                }
                if self.spool is not None:
                    works["spill"] = self.spool.run()
                keep = [group.create_task(work, name=name) for name, work in works.items()]
                capture = group.create_task(self._capture(), name="capture")
                await stop.wait()
                capture.cancel()
                await asyncio.wait({capture})
                self.producer.end()
                left = await self._drain()
                for task in keep:
                    task.cancel()
        finally:
            self.flow.stop()
            if self.spool is not None:
                await self.spool.close()
        if left:
            raise Undrained(
                f"{left} batches were not appended within {self.settings.drain_timeout:g} s:"
                f" Redis is {self.appender.state} ({self.appender.problem})"
            )

    def reconfigure(self, settings: ReceiverSettings, feed: Feed | None = None, rest: Rest | None = None) -> None:
        """Work by other settings from now on, on the connections there are.

        ``feed`` and ``rest``: those of other addresses, where these changed. Raises ValueError and changes nothing for
        subscriptions the venue cannot have. Shard, replica and market are taken to be the same.
        """
        plans = reassign(feed or self._feed, self.supervisor.plans, settings.subscriptions)
        before, self.settings = self.settings, settings
        self._feed = feed or self._feed
        self.budget.resize(settings.memory)
        metrics.budget_bytes.set(settings.memory)
        if self.spool is not None:
            self.spool.resize(settings.spill_size)
        self.breaker.limit(settings.breaker_failures, settings.breaker_reset)
        self.confirmer.replicas = settings.confirm_replicas
        if rest is not None:
            self.desk.move(rest)
        if self.fleet is not None and settings.fleet:
            self.fleet.move(settings.fleet, settings.fleet_members)
        self.supervisor.reconfigure(self._feed, settings, plans)
        new = {wanted.native for wanted in settings.subscriptions} - {wanted.native for wanted in before.subscriptions}
        if new:
            self.desk.instruments(sorted(new), "")
        self._log.info(
            "receiver.reconfigured", connections=len(plans), topics=sum(len(plan.topics) for plan in plans),
            new_instruments=len(new), moved=feed is not None,
        )  # fmt: skip

    async def _capture(self) -> None:
        """Everything that brings data in."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.supervisor.run(), name="supervise")
                group.create_task(self.desk.run(), name="rest")
                group.create_task(self.commands.run(), name="commands")
                if self.fleet is not None:
                    group.create_task(self.fleet.run(), name="fleet")
                group.create_task(self._metadata(), name="metadata")
        finally:
            for task in tuple(self._asked):
                task.cancel()

    async def _alive(self) -> None:
        """Write Alive when idle, and keep the counters up to date."""
        interval = self.settings.alive_interval
        while True:
            await asyncio.sleep(min(0.5, interval / 4))
            self.producer.alive(interval)
            self.producer.report()
            self.appender.report()

    async def _metadata(self) -> None:
        while True:
            natives = sorted({subscription.native for subscription in self.settings.subscriptions})
            if natives:
                self.desk.instruments(natives, "")
            await asyncio.sleep(self.settings.instruments_interval)

    async def _drain(self) -> int:
        """Wait for the last append; gives the number of batches the server does not have."""
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                await self.appender.settled()
        except TimeoutError:
            if self.producer.packer.frames:
                self.producer.seal()  # Without a connection little is packed and not numbered: it is missing too.
            unsent = self.producer.backlog.last - self.producer.backlog.acked
            left = unsent if self.spool is None else await self.spool.flush()
            self._log.error(
                "drain.overdue", batches=left, on_disk=unsent - left, held_bytes=self.budget.used,
                redis=self.appender.state, effect="what is not on disk is lost, and told by gap rows",
            )  # fmt: skip
            return left
        backlog = self.producer.backlog
        waited = 0.0
        while backlog.confirmed < backlog.last and waited < CONFIRM_WAIT:
            await asyncio.sleep(0.02)
            waited += 0.02
        self._log.info("drained", session=self.producer.id, batches=backlog.last, confirmed=backlog.confirmed)
        return 0

    # commands
    def handle(self, command: Command) -> None:
        """Carry out what a distributor asked for."""
        if command.kind == "book_snapshot":
            self.desk.snapshot(command.symbol, command.native, command.id, trace=command.trace)
        elif command.kind == "trades":
            self.desk.trades(command)
        elif command.kind == "instruments":
            natives = [command.native] if command.native else sorted({s.native for s in self.settings.subscriptions})
            self.desk.instruments(natives, command.id)
        elif command.kind == "resubscribe":
            for link, topics in self.supervisor.topics_of(command.symbol, command.channel):
                task = asyncio.create_task(self._resubscribe(link, topics), name=f"resubscribe-{command.id}")
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)
        else:
            self._log.warning("command.unknown", kind=command.kind, id=command.id, effect="it is left out")

    async def _resubscribe(self, link: Link, topics: Sequence[Topic]) -> None:
        try:
            await link.subscriber.resubscribe(topics)
        except Exception:
            self._log.exception("resubscribe.failed", connection=link.number)
