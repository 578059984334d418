"""A process's share of a budget while Redis is away, and the sum of what a fleet spends through outages. Pure."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.shared.budget import burst_and_rate
from feedmill.shared.fleet import RESERVE
from feedmill.shared.fleet_local import LocalShare


class Shared:
    """The bucket in Redis, as its script goes."""

    def __init__(self, capacity: float, rate: float) -> None:
        self.capacity, self.rate = capacity, rate
        self.level, self.at = capacity, 0.0

    def _grow(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        self.at = now

    def reserve(self, amount: float, now: float) -> float:
        self._grow(now)
        self.level -= amount
        return max(0.0, -self.level) / self.rate

    def give(self, amount: float) -> None:
        self.level += amount

    def empty(self, now: float) -> None:
        self._grow(now)
        self.level = min(self.level, 0.0)


steps = st.lists(
    st.tuples(st.sampled_from(["take", "take", "take", "away", "back"]), st.integers(0, 3), st.floats(0, 0.5)),
    max_size=150,
)


@settings(max_examples=300)
@given(limit=st.integers(10, 100), window=st.floats(0.5, 300), members=st.integers(1, 4), steps=steps)
def test_through_outages_the_fleet_keeps_the_limit(
    limit: int, window: float, members: int, steps: list[tuple[str, int, float]]
) -> None:
    """However often Redis goes and comes back for everybody: no window sees more than the limit."""
    capacity, rate = burst_and_rate(limit * (1 - RESERVE), window)
    shared = Shared(capacity, rate)
    shares = [LocalShare(capacity, rate, limit * RESERVE) for _ in range(members)]
    spent: list[float] = []
    now, away = 0.0, False
    for what, who, pause in steps:
        now += pause * window
        if what == "away" and not away:
            away = True
            for share in shares:
                share.enter(members, now)
        elif what == "back" and away:
            away = False
            for share in shares:
                share.leave(now)
            shared.empty(now)
        elif what == "take" and away:
            # Who would have to wait is cancelled: nobody waits across a change here.
            while (wait := shares[who % members].reserve(1.0, members, now)) == 0:
                spent.append(now)
            assert wait > 0
            shares[who % members].give(1.0)
        elif what == "take":
            while (wait := shared.reserve(1.0, now)) == 0:
                spent.append(now)
            assert wait > 0
            shared.give(1.0)
    for start in spent:
        assert sum(1 for at in spent if start <= at < start + window * 0.999999) <= limit


def test_a_share_begins_with_its_part_of_the_reserve_and_grows_at_its_part_of_the_rate() -> None:
    share = LocalShare(capacity=40, rate=4.0, reserve=20)
    share.enter(4, 100.0)
    assert [share.reserve(1, 4, 100.0) for _ in range(7)] == [0, 0, 0, 0, 0, 1.0, 2.0]
    assert share.reserve(1, 4, 102.0) == 1.0
    assert share.reserve(11, 4, 1102.0) == 1.0  # Never more than its part of the burst at once.


def test_coming_and_going_brings_nothing() -> None:
    share = LocalShare(capacity=40, rate=4.0, reserve=20)
    for at in (0.0, 1.0, 2.0):
        share.enter(4, at)
        taken = 0
        while share.reserve(1, 4, at) == 0:
            taken += 1
        share.give(1)
        assert taken == (5 if at == 0 else 0)
        share.leave(at)
    share.enter(4, 22.0)  # As long as it takes to fill it.
    assert share.reserve(5, 4, 22.0) == 0


def test_a_block_of_headers_counts_here_too() -> None:
    share = LocalShare(capacity=40, rate=4.0, reserve=20)
    share.correct(1)  # Never in use: nothing to correct.
    share.enter(1, 0.0)
    share.correct(1)
    assert share.reserve(1, 1, 0.0) == 0
    assert share.reserve(1, 1, 0.0) == 0.25
