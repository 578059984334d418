"""Back-off and budgets: bounds that hold whatever happens."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.shared.backoff import Backoff
from feedmill.shared.budget import ByteBudget, TokenBucket


@given(st.floats(0.001, 10), st.floats(1, 100), st.integers(0, 200), st.integers())
def test_backoff_stays_within_its_growing_bound(base: float, factor: float, tries: int, seed: int) -> None:
    backoff = Backoff(base, base * factor, random_source=random.Random(seed))
    for n in range(tries):
        bound = min(base * factor, base * 2.0 ** min(n, 60))
        assert backoff.bound == bound
        assert 0.0 <= backoff.next() <= bound
    backoff.reset()
    assert backoff.bound == base


def test_backoff_is_full_jitter() -> None:
    backoff = Backoff(1.0, 64.0, random_source=random.Random(7))
    backoff.failures = 6
    waits = sorted(Backoff(64.0, 64.0, random_source=random.Random(seed)).next() for seed in range(400))
    assert backoff.bound == 64.0
    assert waits[0] < 2 < 62 < waits[-1]
    assert 24 < sum(waits) / len(waits) < 40


def test_backoff_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="0 < base <= cap"):
        Backoff(2.0, 1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 60), st.floats(0.5, 400), st.lists(st.floats(0, 50), min_size=1, max_size=200))
def test_no_window_ever_sees_more_than_the_limit(limit: int, window: float, pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket.within(limit, window, clock=clock)
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause * window / 100
        while bucket.try_take():
            taken.append(clock.now)
    for start in taken:
        assert sum(1 for at in taken if start <= at < start + window * 0.999999) <= limit


amounts = st.floats(0.01, 30)
seconds = st.floats(0, 100)
USES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["take"] * 6), amounts), st.tuples(st.just("pause"), seconds),
        st.tuples(st.just("pause"), st.floats(0, 1)), st.tuples(st.just("block"), st.floats(0, 60)),
        st.tuples(st.just("correct"), st.floats(-5, 40)), st.tuples(st.just("force"), amounts),
    ),
    max_size=60,
)  # fmt: skip


@given(st.floats(0.5, 20), st.floats(0.01, 10), USES)
def test_any_window_of_a_bucket_keeps_to_capacity_and_rate_whatever_else_is_done_to_it(
    capacity: float, rate: float, uses: list[tuple[str, float]]
) -> None:
    """``correct``, ``block`` and ``force`` only ever make others wait longer; every wait is one, and is enough."""
    clock = Clock()
    bucket = TokenBucket(capacity, rate, clock=clock)
    taken: list[tuple[float, float]] = []
    blocked_until = 0.0
    for what, value in uses:
        if what == "pause":
            clock.now += value
        elif what == "block":
            bucket.block(value)
            blocked_until = max(blocked_until, clock.now + value)
        elif what == "correct":
            bucket.correct(value)
        elif what == "force":
            bucket.force(value)
        elif what == "take":
            wait = bucket.wait_for(value)
            assert 0.0 <= wait < 1e6
            assert bucket.try_take(value) == (wait == 0.0)
            if wait:
                # Nothing else happens meanwhile, so the wait it tells is the one that it takes.
                clock.now += wait + 1e-6
                assert bucket.try_take(value)
            assert clock.now >= blocked_until - 1e-9
            taken.append((clock.now, value))
        assert bucket.level <= capacity
        assert bucket.blocked_for >= 0.0
    for place, (start, _) in enumerate(taken):
        spent = 0.0
        for at, amount in taken[place:]:
            # More than the capacity is let through by a full bucket, and the others wait for what it owes.
            spent += amount
            beyond = max(0.0, amount - capacity)
            assert spent - beyond <= capacity + rate * (at - start) + 1e-3


@given(st.floats(0.001, 10), st.floats(1, 100), st.floats(0, 2000), st.integers(1, 80), st.integers())
def test_backoff_with_a_least_wait(base: float, factor: float, floor: float, tries: int, seed: int) -> None:
    cap = base * factor
    backoff = Backoff(base, cap, floor=floor, random_source=random.Random(seed))
    for _ in range(tries):
        assert min(floor, cap) <= backoff.next() <= max(min(floor, cap), cap)


@given(st.integers(1, 12), st.integers(0, 2**32))
def test_every_step_of_the_backoff_is_spread_over_all_of_its_range(failures: int, seed: int) -> None:
    """Full jitter: also the shortest waits are possible after many failures, and never more than the bound."""
    source = random.Random(seed)
    waits = []
    for _ in range(200):
        backoff = Backoff(0.5, 60.0, random_source=source)
        backoff.failures = failures
        waits.append(backoff.next() / min(60.0, 0.5 * 2.0**failures))
    assert min(waits) < 0.1
    assert 0.9 < max(waits) <= 1.0


def test_limit_of_one_and_a_limit_that_cannot_be_kept() -> None:
    clock = Clock()
    bucket = TokenBucket.within(1, 10, clock=clock)
    assert bucket.try_take()
    assert not bucket.try_take()
    assert bucket.wait_for() == pytest.approx(10)
    with pytest.raises(ValueError, match="at least 1 per window"):
        TokenBucket.within(0.5, 10)


def test_forced_blocked_and_corrected() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 1.0, clock=clock)
    bucket.force(12)
    assert bucket.level == pytest.approx(-2)
    assert bucket.wait_for() == pytest.approx(3)
    clock.now += 20
    bucket.block(5)
    bucket.block(1)
    assert bucket.wait_for() == pytest.approx(5)
    clock.now += 5
    bucket.correct(100)
    assert bucket.level == 10
    bucket.correct(2)
    assert bucket.level == 2
    assert not bucket.try_take(3)
    assert bucket.wait_for(50) == pytest.approx(8)


async def test_take_waits_in_turn() -> None:
    bucket = TokenBucket(1, 200.0)
    order: list[int] = []

    async def one(index: int) -> None:
        await bucket.take()
        order.append(index)

    await asyncio.gather(*(one(index) for index in range(10)))
    assert order == list(range(10))


async def test_cancelled_take_leaves_the_turn_to_others() -> None:
    clock = Clock()
    bucket = TokenBucket(1, 1.0, clock=clock)
    assert bucket.try_take()
    waiting = asyncio.create_task(bucket.take())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.now += 1.0
    await bucket.take()
    assert bucket.level == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=80))
def test_byte_budget_hysteresis(steps: list[tuple[bool, int]]) -> None:
    budget = ByteBudget(100, resume=0.5)
    told: list[bool] = []
    budget.listen(told.append)
    held = 0
    for add, size in steps:
        if add:
            budget.add(size)
            held += size
        else:
            size = min(size, held)
            budget.release(size)
            held -= size
        assert budget.used == held
        if held >= 100:
            assert budget.full
        if held <= 50:
            assert not budget.full
    assert told == [index % 2 == 0 for index in range(len(told))]
