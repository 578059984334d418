"""The watcher: what is told by what it saw, whatever is in it, and whatever is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from feedmill.general.notify import watcher as module
from feedmill.general.notify.kinds import KINDS
from feedmill.general.notify.notices import Notice
from feedmill.general.notify.of_tables import OpenGaps, Tables
from feedmill.general.notify.outbox import OutboxAway
from feedmill.general.notify.settings import NotifySettings
from feedmill.general.notify.states import State
from feedmill.general.notify.watcher import Watcher
from feedmill.plan import Workload
from feedmill.resources.common import SecretKeyRef
from feedmill.shared.clock import SECOND
from feedmill.shared.log import get_logger

PIPELINE = "default/main"
START = 1_790_000_000 * SECOND


class World:
    """Clock, outbox, processes and sender in one."""

    def __init__(self, *kinds: str) -> None:
        self.clock = 0.0
        self.away_since: float | None = None
        self.held_elsewhere = False
        self.now = Tables()
        self.documents: list[Mapping[str, Any]] = []
        self.told: list[Notice] = []
        self.direct_told: list[str] = []
        self.refuses: frozenset[str] = frozenset()
        self.wake = asyncio.Event()
        settings = NotifySettings(
            PIPELINE, "1", SecretKeyRef(name="telegram", key="token"), "http://127.0.0.1:1", 20,
            frozenset(kinds or KINDS), False, None, ("default/spot",), (),
        )  # fmt: skip
        self.watcher = Watcher(settings, self, self, self, lambda _: None, get_logger())  # type: ignore[arg-type]

    def _ask(self) -> None:
        if self.away_since is not None:
            raise OutboxAway("stopped")

    async def register(self, settings: NotifySettings) -> None:
        self._ask()

    async def states(self) -> dict[str, State]:
        self._ask()
        return {}

    async def tables(self, *, names: bool) -> Tables:
        self._ask()
        return self.now

    async def tell(self, notices: Sequence[tuple[Notice, int]], states: Mapping[str, State]) -> None:
        self._ask()
        for notice, _ in notices:
            # As PostgreSQL does with text and jsonb.
            assert "\x00" not in notice.subject + notice.key
            assert "\\u0000" not in json.dumps(dict(notice.body))
            self.told.append(notice)

    async def look(self) -> list[Mapping[str, Any]]:
        return self.documents

    async def direct(self, notice: Notice) -> int:
        if notice.key in self.refuses:
            return 0
        self.direct_told.append(notice.key)
        return 1

    def looks(self, *steps: tuple[float, Any]) -> None:
        """``steps``: seconds, and what is done before the look then."""

        async def go() -> None:
            for seconds, change in steps:
                self.clock = seconds
                change()
                await self.watcher._look()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "monotonic", lambda: self.clock)
            patch.setattr(module, "now_ns", lambda: START + int(self.clock * SECOND))
            asyncio.run(go())


def gap() -> Tables:
    return Tables(gaps=[OpenGaps("default.spot.0", "trades", "sequence", 1, 1, 1, ("BTC-USDT",), START - 200 * SECOND)])


def nothing() -> None:
    return None


def test_what_is_no_longer_to_be_told_is_not_told_to_be_over() -> None:
    world = World()

    def begins() -> None:
        world.now = gap()

    def other_settings() -> None:
        world.watcher.settings = replace(world.watcher.settings, kinds=frozenset(("FeedStale",)))

    world.looks((0, begins), (5, other_settings), (100, nothing), (200, nothing))
    assert [(notice.kind, "over" in notice.body) for notice in world.told] == [("GapOpen", False)]
    assert world.watcher.states == {}


def test_a_text_that_postgresql_takes_in_no_form_holds_up_nothing() -> None:
    world = World()
    why = "the exchange said \x00\ud800"
    problems = {"desk/main": {"state": "refused", "why": why}}
    accounts = {"service": "accounts", "process": {"pipeline": PIPELINE}, "accounts": {"problems": problems}}

    def begins() -> None:
        world.documents = [accounts]

    world.looks((0, begins), (40, nothing))
    assert [(notice.kind, notice.body["why"]) for notice in world.told] == [
        ("AccountProblem", "the exchange said \ufffd\ufffd")
    ]


def test_one_that_is_refused_past_the_outbox_holds_up_no_other() -> None:
    world = World()
    receivers: list[Mapping[str, Any]] = [
        {"service": "receiver", "process": {"pipeline": PIPELINE, "feed": "default/spot", "shard": 0},
         "spill": {"state": "full"}, "redis": {"reachable": False, "lastError": "refused"}}
    ]  # fmt: skip
    receiver = Workload("receiver", "spot-receiver-0-0", (), ("default", "main"), ("default", "spot"), 0, "r0")

    def begins() -> None:
        world.watcher.settings = replace(world.watcher.settings, expected=(receiver,))
        world.documents = receivers
        world.away_since = 0.0
        world.refuses = frozenset(("SpillFull/default/spot/0",))

    world.looks((0, begins), (20, nothing), (40, nothing))
    assert "ServerAway/redis" in world.direct_told
    assert len(set(world.direct_told)) == len(world.direct_told)
    assert "SpillFull/default/spot/0" not in world.direct_told

    def back() -> None:
        world.away_since = None

    world.looks((45, back))
    assert {notice.key for notice in world.told} >= {"SpillFull/default/spot/0", *world.direct_told}
