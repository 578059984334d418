"""The work queue: once each, one at a time, back-off, delayed keys, an orderly end."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill_operator.kube.api import ApiError
from feedmill_operator.reconcile.queue import Key, WorkQueue

Virtual = Callable[[Callable[[], Awaitable[Any]]], Any]
A, B = Key("ExchangeFeed", "ns", "a"), Key("ExchangeFeed", "ns", "b")


class Recorder:
    """A handler that remembers when it ran, and does what it is told."""

    def __init__(self, takes: float = 0.0) -> None:
        self.starts: list[tuple[Key, float]] = []
        self.ends: list[tuple[Key, float]] = []
        self.takes = takes
        self.fails: Counter[Key] = Counter()
        self.error: BaseException = ApiError(503, "Unavailable", "later")
        self.returns: float | None = None
        self.at_once: Counter[Key] = Counter()
        self.most = 0

    async def __call__(self, key: Key) -> float | None:
        assert not self.at_once[key], f"{key} runs twice at a time"
        self.at_once[key] += 1
        self.most = max(self.most, sum(self.at_once.values()))
        self.starts.append((key, now()))
        try:
            await asyncio.sleep(self.takes)
            if self.fails[key]:
                self.fails[key] -= 1
                raise self.error
            return self.returns
        finally:
            self.at_once[key] -= 1
            self.ends.append((key, now()))

    def runs(self, key: Key) -> list[float]:
        return [at for ran, at in self.starts if ran == key]


def now() -> float:
    return asyncio.get_running_loop().time()


class Running:
    """A queue that works while the block lasts."""

    def __init__(self, handler: Recorder, workers: int = 2, base: float = 1.0, cap: float = 300.0) -> None:
        self.queue = WorkQueue(handler, workers, base, cap, random_source=random.Random(1))
        self.stop = asyncio.Event()

    async def __aenter__(self) -> WorkQueue:
        self.task = asyncio.create_task(self.queue.run(self.stop))
        return self.queue

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.task


def test_a_key_added_many_times_runs_once(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        async with Running(handler) as queue:
            for _ in range(5):
                queue.add(A)
            assert len(queue) == 1
            await asyncio.sleep(10)
        assert len(handler.runs(A)) == 1

    virtual(work)


def test_a_key_added_while_it_runs_runs_once_more(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder(takes=10)
        async with Running(handler) as queue:
            queue.add(A)
            await asyncio.sleep(1)
            assert queue.running == {A}
            assert queue.longest_running() == 1
            for _ in range(3):
                queue.add(A)
            await asyncio.sleep(60)
        first, second = handler.runs(A)
        assert second - first == 10

    virtual(work)


def test_different_keys_run_at_a_time_up_to_the_workers(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder(takes=1)
        async with Running(handler, workers=3) as queue:
            for number in range(9):
                queue.add(Key("ExchangeFeed", "ns", str(number)))
            await asyncio.sleep(3.5)
            assert queue.idle
        assert handler.most == 3
        assert len(handler.starts) == 9

    virtual(work)


def test_the_earliest_of_several_delays_counts_and_an_add_does_not_wait(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        async with Running(handler) as queue:
            begun = now()
            queue.add_after(A, 30)
            queue.add_after(A, 10)
            queue.add_after(A, 20)
            queue.add_after(B, 10)
            queue.add(B)
            await asyncio.sleep(100)
        assert [at - begun for at in handler.runs(A)] == [10]
        assert [at - begun for at in handler.runs(B)] == [0, 10]

    virtual(work)


def test_what_a_handler_returns_is_when_it_runs_again(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        handler.returns = 15
        async with Running(handler) as queue:
            begun = now()
            queue.add(A)
            await asyncio.sleep(31)
        assert [at - begun for at in handler.runs(A)] == [0, 15, 30]

    virtual(work)


def test_failures_back_off_with_growing_bounds_and_success_resets(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        handler.fails[A] = 12
        async with Running(handler, base=1.0, cap=60.0) as queue:
            queue.add(A)
            await asyncio.sleep(0)
            while handler.fails[A]:
                await asyncio.sleep(1)
            await asyncio.sleep(61)
            runs = handler.runs(A)
            waits = [later - earlier for earlier, later in itertools.pairwise(runs)]
            assert len(waits) == 12
            assert all(wait <= min(60, 2**number) for number, wait in enumerate(waits))
            assert max(waits) > 4  # It does grow.
            assert queue.failures(A) == 0
            handler.fails[A] = 1
            queue.add(A)
            await asyncio.sleep(1.01)
            assert len(handler.runs(A)) == len(runs) + 2  # Within the first bound again.

    virtual(work)


def test_a_server_that_says_when_is_not_asked_before(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        handler.fails[A] = 1
        handler.error = ApiError(429, "TooManyRequests", "slow down", retry_after=25)
        async with Running(handler) as queue:
            queue.add(A)
            await asyncio.sleep(100)
        first, second = handler.runs(A)
        assert second - first >= 25

    virtual(work)


def test_a_change_does_not_wait_for_a_back_off_and_takes_its_place(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        handler.fails[A] = 1
        handler.error = ApiError(500, "", "no", retry_after=1000)
        async with Running(handler) as queue:
            queue.add(A)
            await asyncio.sleep(5)
            queue.add(A)
            await asyncio.sleep(5)
            assert len(handler.runs(A)) == 2
            await asyncio.sleep(2000)
        assert len(handler.runs(A)) == 2

    virtual(work)


def test_a_cancelled_wait_inside_a_handler_is_a_failure_not_the_end_of_a_worker(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        handler.fails[A] = 1
        handler.error = asyncio.CancelledError()
        async with Running(handler, workers=1) as queue:
            queue.add(A)
            await asyncio.sleep(10)
        assert len(handler.runs(A)) == 2

    virtual(work)


def test_forget_drops_what_waits_and_what_is_due_later(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder()
        handler.fails[B] = 1
        handler.error = ApiError(503, "", "later", retry_after=50)
        async with Running(handler) as queue:
            queue.add_after(A, 10)
            queue.add(B)
            await asyncio.sleep(1)
            assert queue.failures(B) == 1
            queue.forget(A)
            queue.forget(B)
            assert queue.failures(B) == 0
            await asyncio.sleep(1000)
            queue.add(A)
            queue.forget(A)
            await asyncio.sleep(10)
            assert handler.runs(A) == []
            queue.add(A)
            await asyncio.sleep(10)
        assert len(handler.runs(A)) == 1
        assert len(handler.runs(B)) == 1

    virtual(work)


def test_the_end_waits_for_what_runs_and_starts_nothing_more(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder(takes=5)
        running = Running(handler, workers=1)
        async with running as queue:
            queue.add(A)
            queue.add(B)
            queue.add_after(B, 2)
            await asyncio.sleep(1)
            begun = now()
        assert now() - begun == 4
        assert [key for key, _ in handler.ends] == [A]
        queue.add(B)
        assert queue.idle

    virtual(work)


def test_the_end_cancels_what_takes_too_long(virtual: Virtual) -> None:
    async def work() -> None:
        handler = Recorder(takes=10_000)
        async with Running(handler) as queue:
            queue.add(A)
            await asyncio.sleep(1)
            begun = now()
        assert now() - begun == pytest.approx(10)

    virtual(work)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "after", "wait", "fail", "forget"]),
        st.integers(0, 3),
        st.floats(0.01, 30, allow_nan=False),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=_steps, workers=st.integers(1, 4), takes=st.floats(0, 5), seed=st.integers(0, 1000))
def test_every_request_is_followed_by_a_run_and_none_overlaps(
    virtual: Virtual, steps: list[tuple[str, int, float]], workers: int, takes: float, seed: int
) -> None:
    async def work() -> None:
        handler = Recorder(takes=takes)  # It asserts that no key runs twice at a time.
        queue = WorkQueue(handler, workers, 1.0, 20.0, random_source=random.Random(seed))
        stop = asyncio.Event()
        task = asyncio.create_task(queue.run(stop))
        asked: dict[Key, float] = {}
        for step, number, seconds in steps:
            key = Key("ExchangeFeed", "ns", str(number))
            if step == "add":
                queue.add(key)
                asked[key] = now()
            elif step == "after":
                queue.add_after(key, seconds)
                asked[key] = now()
            elif step == "fail":
                handler.fails[key] += 1
            elif step == "forget":
                queue.forget(key)
                asked.pop(key, None)
            else:
                await asyncio.sleep(seconds)
        await asyncio.sleep(3000)  # Longer than any back-off and all work.
        assert queue.idle
        for key, at in asked.items():
            assert handler.runs(key)[-1] >= at, "the last request was not followed by a run"
            assert queue.failures(key) == 0
        assert handler.most <= workers
        stop.set()
        await task

    virtual(work)
