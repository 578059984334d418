"""The sender, where outbox and Telegram fail in any order: everything is told, in order, within the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.general.notify import sender as module
from feedmill.general.notify.compose import Message
from feedmill.general.notify.limit import SPACE, Window
from feedmill.general.notify.notices import Notice, Waiting
from feedmill.general.notify.outbox import OutboxAway
from feedmill.general.notify.sender import Sender
from feedmill.general.notify.telegram import BadText, Moved, NotAllowed, Slower, TelegramAway, TelegramError
from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND
from feedmill.shared.log import get_logger

LONG = {"detail": "x" * 900}
START = 1_790_000_000 * SECOND


class World:
    """Clock, outbox and Telegram in one. ``faults`` are used up one a call of either."""

    def __init__(self, rows: int, faults: Sequence[str], per_minute: int) -> None:
        self.clock = 0.0
        self.faults = list(faults)
        self.rows = [
            Waiting(n, Notice("DeadLetters", Severity.WARNING, "f", f"k{n}", {"reason": f"r{n:03d}", **LONG}, START))
            for n in range(rows)
        ]
        self.outcomes = dict.fromkeys(range(rows), "waiting")
        self.told: list[int] = []
        self.times: list[float] = []
        self.lost = 0
        """Messages that were taken, and whose answer or mark was lost."""
        self.poison: frozenset[int] = frozenset()
        """Rows that Telegram refuses, and with them any message they are in."""
        self.chat = "1"
        self.sender = Sender(self, self, Window(per_minute), lambda text, _: text, None, get_logger())  # type: ignore[arg-type]

    def _fault(self, *of: str) -> str:
        return self.faults.pop(0) if self.faults and self.faults[0] in of else ""

    def _outbox(self) -> None:
        if self._fault("outbox"):
            raise OutboxAway("stopped")

    async def hurry(self) -> None:
        self._outbox()

    async def sent_since(self, since_ns: int) -> list[int]:
        return []

    async def waiting(self, now: int) -> list[Waiting]:
        self._outbox()
        return [row for row in self.rows if self.outcomes[row.id] == "waiting"]

    async def count(self) -> tuple[int, int]:
        return sum(outcome == "waiting" for outcome in self.outcomes.values()), 0

    async def sent(self, ids: Sequence[int], at_ns: int) -> None:
        self._outbox()
        self.outcomes |= dict.fromkeys(ids, "sent")

    async def tried(self, ids: Sequence[int]) -> None:
        self._outbox()

    async def refused(self, ids: Sequence[int], why: str) -> None:
        self._outbox()
        self.outcomes |= dict.fromkeys(ids, "refused")

    async def send(self, message: Message) -> int:
        told = [int(line.split("reason r")[1]) for line in message.plain.splitlines() if "reason r" in line]
        if self.poison & set(told):
            raise BadText("empty")
        fault = self._fault("away", "slower", "moved", "lost", "denied")
        errors: dict[str, TelegramError] = {
            "away": TelegramAway("refused"), "slower": Slower(7.0), "moved": Moved("2"),
            "denied": NotAllowed("blocked"), "lost": TelegramAway("cut"),
        }  # fmt: skip
        if fault and fault != "lost":
            raise errors[fault]
        self.times.append(self.clock)
        self.told += told
        if fault:
            self.lost += 1
            raise errors[fault]
        return len(self.times)

    async def until_done(self) -> None:
        for _ in range(5000):
            if not any(outcome == "waiting" for outcome in self.outcomes.values()):
                return
            try:
                wait = await self.sender._once()
            except OutboxAway:
                wait = module.POLL
            self.clock += wait
        raise AssertionError(f"never done: {self.outcomes}")


FAULTS = ("outbox", "away", "slower", "moved", "lost", "denied")


def run(rows: int, faults: Sequence[str], per_minute: int = 20) -> World:
    return finish(World(rows, faults, per_minute))


def finish(world: World) -> World:
    async def sleep_or(_: asyncio.Event, seconds: float) -> None:
        world.clock += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "monotonic", lambda: world.clock)
        patch.setattr(module, "now_ns", lambda: START + int((world.clock + 10) * SECOND))
        patch.setattr(module, "sleep_or", sleep_or)
        asyncio.run(world.until_done())
    return world


@settings(max_examples=200)
@given(
    st.integers(min_value=1, max_value=120),
    st.lists(st.sampled_from(FAULTS), max_size=60),
    st.integers(min_value=1, max_value=60),
)
def test_everything_is_told_in_order_within_the_limit(rows: int, faults: list[str], per_minute: int) -> None:
    world = run(rows, faults, per_minute)
    assert set(world.outcomes.values()) == {"sent"}
    assert list(dict.fromkeys(world.told)) == list(range(rows))
    # Twice only where an answer was lost; what PostgreSQL did not note at once is remembered.
    doubles = len(world.told) - rows
    assert doubles == 0 or world.lost
    for at in world.times:
        assert sum(at - 60.0 < other <= at for other in world.times) <= per_minute
    assert all(b - a >= SPACE - 1e-6 for a, b in pairwise(world.times))


@settings(max_examples=50)
@given(st.integers(min_value=1, max_value=60), st.sets(st.integers(min_value=0, max_value=59), max_size=4))
def test_what_is_refused_for_ever_is_set_aside_alone(rows: int, poison: set[int]) -> None:
    world = World(rows, [], 20)
    world.poison = frozenset(poison)
    finish(world)
    assert {number for number, outcome in world.outcomes.items() if outcome == "refused"} == poison & set(range(rows))
    assert world.told == [number for number in range(rows) if number not in poison]


def test_of_rows_in_one_paragraph_only_the_one_at_fault_is_set_aside() -> None:
    world = World(5, [], 20)
    world.rows = [
        Waiting(n, Notice("BackupFailed", Severity.CRITICAL, "logical", "BackupFailed", {"error": f"reason r{n}"}))
        for n in range(5)
    ]
    world.poison = frozenset((3,))
    finish(world)
    assert world.outcomes == {0: "sent", 1: "sent", 2: "sent", 3: "refused", 4: "sent"}
    assert world.told == [0, 1, 2, 4]


def test_a_rest_is_kept_to() -> None:
    world = run(3, ["slower", "slower"])
    assert world.times[0] >= 14.0


def test_a_row_of_several_messages_is_done_with_the_last_of_them() -> None:
    world = World(1, [], 20)
    body: dict[str, Any] = {"exchange": "b", "market": "S", "symbol": "X", "side": 1, "size": "1" * 900, "price": "2"}
    world.rows = [
        Waiting(n, Notice("Fill", Severity.INFO, "d/a", "k", body, START)) for n in range(12)
    ]  # fmt: skip
    world.outcomes = dict.fromkeys(range(12), "waiting")
    finish(world)
    assert len(world.times) == 3
    assert set(world.outcomes.values()) == {"sent"}
