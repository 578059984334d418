"""Follows the record of a feed's selection in one process: the list comes and changes as a manifest would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from feedmill.resources.collection import Key, Resources
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.health import Health
from feedmill.shared.lease import AWAY, Link
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.reload import same_feed
from feedmill.shared.selection.pick import Criteria
from feedmill.shared.selection.record import READ, Record, read_answer, record_key

LOOK = 1.0
"""Seconds between two looks at the record."""

TakeUp = Callable[[ExchangeFeed, FeedPipeline, tuple[str, ...] | None], Awaitable[None]]
"""Work by this manifest and this list (None = not known yet); raises ValueError and has changed nothing."""


class Follower:
    """The manifest of one feed and, where it selects, the list that came of it. ``run`` beside the service.

    A list in force stays until another one is there: while Redis or the venue is away, and while a changed selection
    waits for its first list.
    """

    def __init__(
        self, feed: ExchangeFeed, pipeline: FeedPipeline, redis_url: RedisUrl, take_up: TakeUp, health: Health, log: Any
    ) -> None:
        self._feed = feed
        self._pipeline = pipeline
        self._link = Link(redis_url, f"feedmill-selection-{'.'.join(feed.key)}")
        self._take_up = take_up
        self._log = log
        self._lock = asyncio.Lock()
        self._version = ""
        self._record: Record | None = None
        """The last one read, whatever criteria it is of."""
        listed = feed.spec.instruments.symbols
        self.symbols: tuple[str, ...] | None = None if listed is None else tuple(listed)
        """What is worked on; None = not known yet."""
        self.error = ""
        """Why the newest list is not followed."""
        self.unread = ""
        """Why the venue's list is not read, where this process reads it."""
        self.moved = asyncio.Event()
        """Set, and replaced by another, when a newer manifest is taken up."""
        health.detail("selection", self.document)
        health.condition("selected", self.selected)

    @property
    def key(self) -> Key:
        return self._feed.key

    @property
    def criteria(self) -> Criteria | None:
        """What the manifest selects by; None = it lists symbols."""
        select = self._feed.spec.instruments.select
        return None if select is None else Criteria.of(select)

    @property
    def record(self) -> Record | None:
        """The record in Redis, where it is of what the manifest selects."""
        criteria, record = self.criteria, self._record
        return record if criteria is not None and record is not None and record.criteria == criteria.key else None

    def selected(self) -> tuple[bool, str]:
        if self.symbols is not None:
            return True, ""
        why = f"Redis: {self._link.error}" if self._link.error else self.unread or "the venue's was not read yet"
        return False, f"no list of instruments: {why}"

    def document(self) -> dict[str, Any]:
        """The section ``selection`` of ``/health``; ``instruments`` is of the whole feed."""
        record = self.record
        selecting = self.criteria is not None
        return {
            "selecting": selecting,
            "instruments": None if self.symbols is None else len(self.symbols),
            "listedAtNs": record.at_ns if record is not None else None,
            "waiting": selecting and record is None,
            "error": self.error,
        }

    async def reconfigure(self, resources: Resources) -> None:
        """Newer manifests. Raises what the service raises for what it cannot take up, and has changed nothing then."""
        feed, pipeline = same_feed(resources, self._feed)
        async with self._lock:
            listed = feed.spec.instruments.symbols
            symbols = self.symbols if listed is None else tuple(listed)
            await self._take_up(feed, pipeline, symbols)
            self._feed, self._pipeline, self.symbols = feed, pipeline, symbols
            moved, self.moved = self.moved, asyncio.Event()
            moved.set()
            await self._follow()

    async def run(self) -> None:
        """Look at the record until cancelled."""
        try:
            while True:
                if self.criteria is not None:
                    await self.look()
                await asyncio.sleep(LOOK)
        finally:
            self._link.close()

    async def look(self) -> None:
        """Take up what the record says now, where that is something else."""
        try:
            version, record = read_answer(await self._link.run(READ, record_key(self.key), self._version))
        except AWAY:
            return
        if version == self._version:
            return
        async with self._lock:
            self._version, self._record = version, record
            await self._follow()

    async def _follow(self) -> None:
        record = self.record
        if record is None or record.symbols == self.symbols:
            return
        before = set(self.symbols or ())
        try:
            await self._take_up(self._feed, self._pipeline, record.symbols)
        except ValueError as error:
            self.error = str(error)[:300]
            self._log.error("selection.refused", reason=self.error, effect="the last list stays in force")
            return
        self.symbols, self.error = record.symbols, ""
        now = set(record.symbols)
        self._log.info(
            "selection.followed", instruments=len(now), added=sorted(now - before)[:20],
            removed=sorted(before - now)[:20],
        )  # fmt: skip
