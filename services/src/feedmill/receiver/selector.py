"""Reads the venue's list of instruments and says which of them the feed works on.

Every receiver of the feed could; who holds the lease does. What came of it is a record in Redis that all processes of
the feed follow, this one included. Where the venue does not answer, or lists nothing usable, the record stays, less
what has expired. A record that Redis lost is written again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from feedmill.exchanges.base import Listed, MapError, Venue
from feedmill.receiver.rest import RestDesk, RestUnanswered
from feedmill.shared.clock import MS, SECOND, now_ns
from feedmill.shared.lease import AWAY, Lease, Link
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.selection.follower import Follower
from feedmill.shared.selection.pick import Criteria, NothingTrades, TooMany, choose, next_expiry, unexpired
from feedmill.shared.selection.record import (
    READ,
    WRITE,
    Record,
    encode,
    lease_key,
    next_version,
    read_answer,
    record_key,
)

AGAIN = 5.0
"""Seconds after which a list that could not be had is asked for anew, or the interval where that is shorter."""
AFTER_EXPIRY_NS = 100 * MS
"""An instrument is dropped this long after its expiry: what the venue sent to the last comes in."""
STEP = 0.5
"""Seconds between two looks whether the selection is another one."""
ROWS = 200
"""Rows read before others get their turn."""


class Selector:
    """``run`` it once. ``desk`` asks within the venue's budgets."""

    def __init__(
        self, follower: Follower, venue: Venue, desk: RestDesk, rest: Callable[[], Any], redis_url: RedisUrl,
        *, name: str, log: Any,
    ) -> None:  # fmt: skip
        """``rest``: the venue's REST half at the address in force. ``name``: of this receiver, for people."""
        self._follower = follower
        self._venue = venue
        self._desk = desk
        self._rest = rest
        self._key = record_key(follower.key)
        self._link = Link(redis_url, f"feedmill-selector-{name}")
        self._log = log
        self.lease = Lease(redis_url, lease_key(follower.key), name=name, log=log)
        self._kept: Record | None = None
        """The last one this process knows of, for a Redis that lost it."""

    @property
    def problem(self) -> str:
        """Why the list is not up to date; empty = it is, or another receiver reads it."""
        return self._follower.unread

    @problem.setter
    def problem(self, why: str) -> None:
        self._follower.unread = why[:300]

    def document(self) -> dict[str, Any]:
        """The section ``selector`` of ``/health``."""
        return {"reads": self.lease.held, "holder": self.lease.holder or None, "problem": self.problem}

    async def run(self) -> None:
        """Work until cancelled, whenever the manifest selects and the lease is held."""
        follower = self._follower
        try:
            while True:
                moved = follower.moved
                if follower.criteria is None:
                    self.problem = ""
                    await moved.wait()
                    continue
                stop = asyncio.Event()
                watch = asyncio.create_task(self._stop_selecting(stop), name="select until it lists")
                try:
                    await self.lease.hold(stop, self._work)
                finally:
                    watch.cancel()
        finally:
            self._link.close()

    async def _stop_selecting(self, stop: asyncio.Event) -> None:
        while self._follower.criteria is not None:
            await self._follower.moved.wait()
        stop.set()

    async def _work(self, ended: asyncio.Event) -> None:
        over = asyncio.create_task(ended.wait(), name="selecting is over")
        try:
            while not ended.is_set() and (criteria := self._follower.criteria) is not None:
                moved = asyncio.create_task(self._follower.moved.wait(), name="the manifest is another")
                try:
                    wait = await self._round(criteria)
                    await asyncio.wait((over, moved), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    moved.cancel()
        finally:
            over.cancel()
            self.problem = ""

    async def _round(self, criteria: Criteria) -> float:
        """One look at the list and the record; answers after how many seconds to come again."""
        try:
            version, record = read_answer(await self._link.run(READ, self._key, ""))
        except AWAY as error:
            return self._trouble(f"Redis: {type(error).__name__}", criteria)
        known = record or self._kept
        before = known.instruments if known is not None and known.criteria == criteria.key else None
        wait = criteria.every
        read_ns = known.at_ns if known is not None and before is not None else 0
        try:
            listed = await self._list(criteria)
            had = frozenset(each.symbol for each in before or ())
            chosen = choose(criteria, listed, now_ns(), had, self._venue.to_native)
            read_ns, self.problem = now_ns(), ""
        except (RestUnanswered, MapError, NothingTrades, TooMany) as error:
            wait = self._trouble(str(error), criteria)
            if before is None:
                return wait
            chosen = unexpired(before, now_ns())
        made = Record(criteria.key, read_ns, chosen)
        if record is None or record.criteria != made.criteria or record.instruments != chosen:
            try:
                taken = await self._link.run(WRITE, self._key, version, next_version(version, now_ns()), encode(made))
            except AWAY as error:
                return self._trouble(f"Redis: {type(error).__name__}", criteria)
            if not taken:
                return STEP
            was, now = {each.symbol for each in before or ()}, set(made.symbols)
            self._log.info(
                "selection.chosen", instruments=len(now), added=sorted(now - was)[:20], removed=sorted(was - now)[:20]
            )
        self._kept = made
        await self._follower.look()
        return self._until_expiry(made, wait)

    def _until_expiry(self, record: Record, wait: float) -> float:
        at = next_expiry(record.instruments)
        return wait if at is None else min(wait, max(0.0, (at + AFTER_EXPIRY_NS - now_ns()) / SECOND))

    def _trouble(self, why: str, criteria: Criteria) -> float:
        before, self.problem = self.problem, why
        if self.problem != before:
            self._log.warning("selection.not_read", reason=self.problem, effect="the last list stays in force")
        return min(AGAIN, criteria.every)

    async def _list(self, criteria: Criteria) -> list[Listed]:
        rest = self._rest()
        found: list[Listed] = []
        for request in rest.listing(criteria.types):
            rows: Iterator[Listed] = rest.read_listing(await self._desk.fetch(request))
            for number, row in enumerate(rows, 1):
                found.append(row)
                if not number % ROWS:
                    await asyncio.sleep(0)
        return found
