"""Every line of the vetting table of circuit breakers (research/dependencies.md 7), against our breaker."""

from __future__ import annotations

import asyncio
import gc

import pytest

from feedmill.shared.breaker import Breaker, BreakerOpen


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """Fails on demand and counts who reached it."""

    def __init__(self) -> None:
        self.reached = 0
        self.failing = True
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> str:
        self.reached += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            raise ConnectionError("down")
        return "ok"


def make(clock: Clock, **changes: float) -> Breaker:
    options = {"reset_timeout": 0.2, **changes}
    return Breaker("toy", fail_max=3, clock=clock, **options)  # type: ignore[arg-type]


async def trip(breaker: Breaker, backend: Backend) -> None:
    for _ in range(3):
        with pytest.raises(ConnectionError, match="down"):
            await breaker.call(backend)


async def test_opens_after_three_failures_and_the_third_comes_through_unchanged() -> None:
    breaker, backend = make(Clock()), Backend()
    for _ in range(3):
        assert breaker.state == "closed"
        with pytest.raises(ConnectionError, match="down") as caught:
            await breaker.call(backend)
        assert not isinstance(caught.value, BreakerOpen)
    assert breaker.state == "open"
    assert "down" in breaker.last_error


async def test_open_lets_none_of_20_through() -> None:
    breaker, backend = make(Clock()), Backend()
    await trip(breaker, backend)
    results = await asyncio.gather(*(breaker.call(backend) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, BreakerOpen) for result in results)
    assert backend.reached == 3
    assert results[0].retry_in == pytest.approx(0.2)  # type: ignore[union-attr]


async def test_half_open_failing_lets_one_of_20_through_and_opens_again() -> None:
    clock = Clock()
    breaker, backend = make(clock), Backend()
    await trip(breaker, backend)
    clock.now += 0.3
    results = await asyncio.gather(*(breaker.call(backend) for _ in range(20)), return_exceptions=True)
    assert backend.reached == 4
    assert sum(isinstance(result, BreakerOpen) for result in results) == 19
    assert breaker.state == "open"


async def test_half_open_succeeding_lets_one_of_20_through_and_closes() -> None:
    clock = Clock()
    breaker, backend = make(clock), Backend()
    await trip(breaker, backend)
    clock.now += 0.3
    backend.failing, backend.gate = False, asyncio.Event()
    calls = [asyncio.create_task(breaker.call(backend)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert backend.reached == 4
    backend.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count("ok") == 1
    assert breaker.state == "closed"
    backend.gate = None
    assert await asyncio.gather(*(breaker.call(backend) for _ in range(20))) == ["ok"] * 20


async def test_cancelled_probe_is_neither_and_the_next_may_probe() -> None:
    clock = Clock()
    breaker, backend = make(clock), Backend()
    await trip(breaker, backend)
    clock.now += 0.3
    backend.gate = asyncio.Event()
    probe = asyncio.create_task(breaker.call(backend))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    del probe
    gc.collect()
    assert breaker.state == "half-open"
    backend.gate, backend.failing = None, False
    assert await breaker.call(backend) == "ok"
    assert breaker.state == "closed"


async def test_cancelled_calls_while_closed_count_nothing() -> None:
    breaker, backend = make(Clock()), Backend()
    backend.gate = asyncio.Event()
    for _ in range(5):
        call = asyncio.create_task(breaker.call(backend))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    del call
    gc.collect()
    assert (breaker.state, breaker.failures) == ("closed", 0)


async def test_success_ends_a_row_of_failures() -> None:
    breaker, backend = make(Clock()), Backend()
    for _ in range(3):
        for failing in (True, True, False):
            backend.failing = failing
            await asyncio.gather(breaker.call(backend), return_exceptions=True)
    assert (breaker.state, breaker.failures) == ("closed", 0)


async def test_late_outcomes_of_calls_admitted_while_closed_change_nothing() -> None:
    clock = Clock()
    breaker, backend = make(clock), Backend()
    early_good, early_bad = breaker.admit(), breaker.admit()
    await trip(breaker, backend)
    early_good.success()
    assert breaker.state == "open"
    clock.now += 0.3
    probe = breaker.admit()
    early_bad.failure(ConnectionError("late"))
    assert breaker.state == "half-open"
    probe.success()
    probe.failure(ConnectionError("told twice"))
    assert (breaker.state, breaker.failures) == ("closed", 0)


async def test_rest_grows_up_to_the_reset_timeout_and_starts_over_when_closed() -> None:
    clock = Clock()
    breaker, backend = make(clock, reset_timeout=5.0, first_reset=1.0), Backend()
    await trip(breaker, backend)
    for rest in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert breaker.retry_in == pytest.approx(rest)
        clock.now += rest
        with pytest.raises(ConnectionError):
            await breaker.call(backend)
    clock.now += 5.0
    backend.failing = False
    await breaker.call(backend)
    backend.failing = True
    await trip(breaker, backend)
    assert breaker.retry_in == pytest.approx(1.0)


async def test_changes_are_told_and_waited_for() -> None:
    told: list[str] = []
    clock = Clock()
    breaker = Breaker("toy", fail_max=1, reset_timeout=1.0, on_change=told.append, clock=clock)
    breaker.admit().failure(OSError("gone"))
    waiter = asyncio.create_task(breaker.wait_closed())
    await asyncio.sleep(0)
    assert not waiter.done()
    clock.now += 1.0
    breaker.admit().success()
    await waiter
    assert told == ["open", "half-open", "closed"]


async def test_a_hastened_rest_ends_at_once_and_the_next_one_is_whole() -> None:
    clock = Clock()
    breaker, backend = make(clock, reset_timeout=30.0), Backend()
    await trip(breaker, backend)
    assert breaker.retry_in == 30.0
    breaker.hasten()
    assert breaker.retry_in == 0.0
    with pytest.raises(ConnectionError, match="down"):
        await breaker.call(backend)
    assert breaker.state == "open"
    assert breaker.retry_in == 30.0
    breaker.hasten()
    backend.failing = False
    assert await breaker.call(backend) == "ok"
    breaker.hasten()
    assert breaker.state == "closed"
