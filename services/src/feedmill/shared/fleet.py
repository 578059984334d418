"""Budgets that all processes behind one outgoing address share, in Redis: connects, REST weight.

A budget is a hash, moved by one script that goes by the server's clock (:mod:`feedmill.shared.fleet_rules`: a token
bucket, or the venue's own windows). Taking **reserves**: more may be taken than there is, and who took waits until it
is there. So the fleet is served in the order of asking, and a large request is not starved by small ones. A block
(Retry-After, 418, 429) holds for everybody behind the address, and so does what the venue's headers say is left.

While Redis is away each process keeps to its share of the limit (:mod:`feedmill.shared.fleet_local`). What others
spent meanwhile is not known: who comes back finds, or makes, the bucket empty (of windows: all but empty, until the
venue's next answer says what it has counted). So the sum stays within the limit
through any outage that all processes see; where only some of them lose Redis, it exceeds it by their share at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from feedmill.shared.budget import burst_and_rate
from feedmill.shared.clock import monotonic
from feedmill.shared.fleet_local import LocalShare
from feedmill.shared.fleet_rules import US, Bucket, Rule, Windows
from feedmill.shared.lease import AWAY, Link, Share
from feedmill.shared.redis.url import RedisUrl

ANSWER = 1.0
"""Seconds after which a Redis that does not answer counts as away."""
MEMBER_TTL = 30.0
"""Seconds after which a process that is not heard of is no member any more."""
RESERVE = 0.2
"""Of a limit: kept out of the shared bucket for those who lose Redis, so that they need not begin with nothing."""
WINDOWS_RESERVE = 0.1
"""The same of windows: it is all they have without Redis, but what would be asked for is told by way of Redis."""
STEP = 0.5
"""Seconds between two looks whether Redis is back, or a block is over."""


class Fleet:
    """The processes behind one outgoing address, and the budgets they share. Run :meth:`run` beside its use."""

    def __init__(self, redis_url: RedisUrl, identity: str, *, name: str, expected: int, log: Any) -> None:
        """``identity``: venue and outgoing address; ``expected``: members there are at least."""
        self.link = Link(redis_url, f"feedmill-fleet-{name}")
        self._name = name
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._budgets: dict[str, FleetBudget] = {}
        self._moved = asyncio.Event()
        self.identity = ""
        self.move(identity, expected)

    def move(self, identity: str, expected: int) -> None:
        """Belong to another fleet, or one of another size, from now on."""
        self._expected = expected
        if identity == self.identity:
            return
        self.identity = identity
        self._share = Share(self.link, self.key("members"), name=self._name, total=0, ttl=MEMBER_TTL)
        self._moved.set()

    def key(self, what: str) -> str:
        return f"fm:{{budget.{self.identity}}}:{what}"

    @property
    def members(self) -> int:
        """Processes behind the address, as last heard, and at least as many as are expected."""
        return max(1, self._expected, self._share.alive or 0)

    @property
    def alone(self) -> bool:
        """Whether this process goes by its share."""
        return bool(self.link.error) and any(budget.local for budget in self._budgets.values())

    def blocked_for(self, kind: str) -> float:
        """Seconds that a block of a budget lasts, as far as is known here."""
        budget = self._budgets.get(kind)
        return budget.blocked_for if budget is not None else 0.0

    async def run(self) -> None:
        """Be counted as a member until cancelled."""
        share = self._share
        try:
            while True:
                self._moved = moved = asyncio.Event()
                share = self._share
                await share.beat(moved)
                await share.leave()
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await share.leave()
            self.link.close()

    def within(self, kind: str, limit: float, window: float) -> FleetBudget:
        """At most ``limit`` in any ``window`` seconds, all members together."""
        capacity, rate = burst_and_rate(limit * (1 - RESERVE), window)
        return self.budget(kind, capacity, rate, limit * RESERVE)

    def bucket(self, kind: str, capacity: float, rate: float) -> FleetBudget:
        """At most ``capacity`` at once, refilled at ``rate`` tokens a second, all members together."""
        return self.budget(kind, capacity * (1 - RESERVE), rate * (1 - RESERVE), capacity * RESERVE)

    def windows(self, kind: str, limit: float, window: float, doubtful: float) -> FleetBudget:
        """At most ``limit`` in each of the venue's windows, which begin with the clock and which it tells about.

        ``doubtful``: what may be spent on top while it is not known how much of a window was spent.
        """
        reserve = limit * WINDOWS_RESERVE
        share = LocalShare(reserve / 2, reserve / 2 / window, reserve / 2)
        return self._known(kind, Windows(limit - reserve, window, doubtful), share)

    def budget(self, kind: str, capacity: float, rate: float, reserve: float) -> FleetBudget:
        """The same object for the same kind."""
        return self._known(kind, Bucket(capacity, rate), LocalShare(capacity, rate, reserve))

    def _known(self, kind: str, rule: Rule, share: LocalShare) -> FleetBudget:
        found = self._budgets.get(kind)
        if found is None:
            found = self._budgets[kind] = FleetBudget(self, kind, rule, share)
        return found

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """What is to be told to Redis and nobody waits for."""
        task = asyncio.create_task(work, name="fleet")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def changed(self, *, away: bool) -> None:
        if away:
            self._log.warning("fleet.away", members=self.members, effect="budgets are this process's share")
        else:
            self._log.info("fleet.back", members=self.members)

    def document(self) -> dict[str, Any]:
        """Health section."""
        return {
            "identity": self.identity,
            "members": self.members,
            "shared": not self.alone,
            "blockedSeconds": {kind: round(each.blocked_for, 1) for kind, each in self._budgets.items()},
            "error": self.link.error,
        }


class FleetBudget:
    """One budget of a fleet (``feedmill.shared.budget.Budget``). Within a process: first come, first served."""

    def __init__(self, fleet: Fleet, kind: str, rule: Rule, share: LocalShare) -> None:
        self._fleet = fleet
        self._kind = kind
        self._rule = rule
        self._share = share
        self._turn = asyncio.Lock()
        self._blocked_until = 0.0
        self._server = ""
        """run_id of the server that knows this budget; empty = none was asked yet."""
        self.local = False
        """Whether this process goes by its share."""

    async def take(self, amount: float = 1.0) -> None:
        async with self._turn:
            while not await self._try(amount):
                pass

    async def _try(self, amount: float) -> bool:
        if (blocked := self.blocked_for) > 0:
            await asyncio.sleep(min(blocked, STEP))
            return False
        try:
            taken, wait, _, at = await self._ask("take", amount)
        except AWAY:
            return await self._try_alone(amount)
        if not taken:
            await asyncio.sleep(min(wait, STEP))
            return False
        if wait > 0:
            try:
                await asyncio.sleep(wait)
                over = await self._blocked_meanwhile() if wait > STEP else False
            except asyncio.CancelledError:
                self._fleet.spawn(self._tell("give", amount, at))
                raise
            if over or self.blocked_for > 0:
                self._fleet.spawn(self._tell("give", amount, at))
                return False
        return True

    async def _try_alone(self, amount: float) -> bool:
        """By this process's share, until Redis is back."""
        share = self._share
        due = monotonic() + share.reserve(amount, self._fleet.members, monotonic())
        try:
            while (left := due - monotonic()) > 0:
                await asyncio.sleep(min(left, STEP))
                if left > STEP and (await self._is_back() or self.blocked_for > 0):
                    share.give(amount)
                    return False
        except asyncio.CancelledError:
            share.give(amount)
            raise
        return True

    async def _is_back(self) -> bool:
        try:
            await self._ask("look", 0.0)
        except AWAY:
            return False
        return True

    async def _blocked_meanwhile(self) -> bool:
        try:
            blocked = (await self._ask("look", 0.0))[2]
        except AWAY:
            return False
        return blocked > 0

    async def _ask(self, op: str, amount: float, extra: float = 0.0) -> tuple[bool, float, float, float]:
        """(taken, seconds to wait, seconds blocked, window it was taken from). Raises one of AWAY."""
        link = self._fleet.link
        try:
            answer = await self._run(op, amount, extra)
            if self._server != link.run_id:
                known, self._server = self._server, link.run_id
                if known:
                    # It may have forgotten what was spent, and others may have spent their share.
                    if op == "take" and answer[0]:
                        await self._run("give", amount, answer[-1])
                    await self._run(*self._rule.forgot, 0.0)
                    if (blocked := self.blocked_for) > 0:
                        await self._run("block", blocked, 0.0)
                    answer = await self._run(op, amount, extra)
        except AWAY:
            self._server = "lost"
            if not self.local:
                self.local = True
                self._share.enter(self._fleet.members, monotonic())
                self._fleet.changed(away=True)
            raise
        if self.local:
            self.local = False
            self._share.leave(monotonic())
            self._fleet.changed(away=False)
        taken, wait, blocked = answer[:3]
        if blocked > 0:
            self._blocked_until = max(self._blocked_until, monotonic() + blocked / US)
        return bool(taken), wait / US, blocked / US, answer[-1]

    async def _run(self, op: str, amount: float, extra: float) -> list[int]:
        fleet, rule = self._fleet, self._rule
        arguments = rule.arguments(op, amount, extra)
        answer: list[int] = await fleet.link.run(rule.script, fleet.key(self._kind), *arguments, timeout=ANSWER)
        return answer

    async def _tell(self, op: str, amount: float, extra: float = 0.0) -> None:
        try:
            await self._ask(op, amount, extra)
        except AWAY:
            pass  # A block is handed on when Redis is back; the rest lasts no longer than the budget takes to fill.

    def block(self, seconds: float) -> None:
        """Let nobody behind the address through for ``seconds`` (Retry-After). A longer block that runs is kept."""
        self._blocked_until = max(self._blocked_until, monotonic() + seconds)
        self._fleet.spawn(self._tell("block", seconds))

    @property
    def blocked_for(self) -> float:
        return max(0.0, self._blocked_until - monotonic())

    def correct(self, left: float, age: float = 0.0) -> None:
        """The server says only ``left`` tokens remain for the whole address: believe it when that is less."""
        if self.local:
            self._share.correct(left / self._fleet.members)
        else:
            self._fleet.spawn(self._tell("left", left, age * US))
