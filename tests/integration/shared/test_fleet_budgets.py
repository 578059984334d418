"""Budgets of a fleet on a real server: never more than the limit, blocks for all, and a share while Redis is away."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedmill.local.embedded import EmbeddedRedis
from feedmill.shared.budget import burst_and_rate
from feedmill.shared.fleet import RESERVE, WINDOWS_RESERVE, Fleet, FleetBudget
from feedmill.shared.fleet_rules import BUCKET, US, WINDOWS, Windows
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import connect


def timed(source: str) -> str:
    """The same script by a clock of the test's: its last argument."""
    now = "tonumber(ARGV[#ARGV])"
    # A key ends by the server's clock, which goes on while the test's stands: not within a test, however slow it is.
    lasting = source.replace(") + 1000)", ") + 3600000)")
    return lasting.replace("redis.call('TIME')", "nil").replace("time[1] * 1000000 + time[2]", now)


numbers = itertools.count(1)


class Bucket:
    """The script alone, in time of its own (us)."""

    def __init__(self, server: EmbeddedRedis, limit: float, window: float) -> None:
        self._client: Any = redis.Redis.from_url(server.url)
        self._script = self._client.register_script(timed(BUCKET.source))
        self._key = f"bucket-{next(numbers)}"
        self.capacity, self.rate = burst_and_rate(limit, window)
        self.now = 1_790_000_000 * US

    def run(self, op: str, amount: float) -> tuple[int, int, int]:
        arguments = [op, f"{self.capacity:.6f}", f"{self.rate:.9f}", f"{amount:.6f}", self.now]
        taken, wait, blocked = self._script(keys=[self._key], args=arguments)
        return taken, wait, blocked


ops = st.lists(
    st.tuples(
        st.sampled_from(["take"] * 8 + ["give", "block", "left"]),
        st.integers(1, 5),
        st.floats(0, 0.4),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(10, 60), window=st.floats(0.5, 300), steps=ops)
def test_no_window_ever_sees_more_than_the_limit(
    redis_server: EmbeddedRedis, limit: int, window: float, steps: list[tuple[str, int, float]]
) -> None:
    """Whoever takes in whatever order: what is spent when its wait is over keeps the limit, in the order of asking."""
    bucket = Bucket(redis_server, limit, window)
    spent: list[tuple[float, int]] = []
    blocked_until = 0.0
    for op, amount, pause in steps:
        bucket.now += int(pause * window * US)
        if op == "give":
            if spent and spent[-1][0] > bucket.now:  # As one who was cancelled while it waited.
                bucket.run("give", spent.pop()[1])
            continue
        if op == "block":
            bucket.run("block", amount * window / 20)
            blocked_until = max(blocked_until, bucket.now + amount * window / 20 * US)
            continue
        taken, wait, blocked = bucket.run(op, amount)
        if abs(blocked_until - bucket.now) > 2:  # The server counts whole microseconds, and rounds up.
            assert (blocked > 0) == (blocked_until > bucket.now)
        if op == "left":
            continue
        assert bool(taken) == (blocked == 0)
        if taken:
            spent.append((bucket.now + wait, amount))
    assert [at for at, _ in spent] == sorted(at for at, _ in spent)
    for start, _ in spent:
        within = [amount for at, amount in spent if start <= at < start + window * US * 0.999999]
        assert sum(within) <= limit, (within, limit)


class WindowsOf:
    """The other script alone, in time of its own (us)."""

    def __init__(self, server: EmbeddedRedis, limit: float, window: float, doubtful: float = 0.0) -> None:
        client: Any = redis.Redis.from_url(server.url)
        self._script = client.register_script(timed(WINDOWS.source))
        self._key = f"windows-{next(numbers)}"
        self.rule = Windows(limit, window, doubtful)
        self.window = int(window * US)
        self.now = 1_790_000_000 * US // self.window * self.window + self.window // 2

    def run(self, op: str, amount: float = 0.0, extra: float = 0.0) -> tuple[int, int, int, int]:
        taken, wait, blocked, index = self._script(
            keys=[self._key], args=[*self.rule.arguments(op, amount, extra), self.now]
        )
        return taken, wait, blocked, index


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(10, 60), window=st.integers(1, 300), steps=ops, late=st.floats(0, 1))
def test_no_window_of_the_clock_sees_more_than_the_limit(
    redis_server: EmbeddedRedis, limit: int, window: int, steps: list[tuple[str, int, float]], late: float
) -> None:
    """Also where what is spent reaches the venue late, within the margin."""
    budget = WindowsOf(redis_server, limit, window)
    on_the_way = int(late * budget.rule.margin * US * 0.99)
    spent: list[tuple[int, int, int]] = []
    for op, amount, pause in steps:
        budget.now += int(pause * window * US)
        if op == "give":
            if spent and spent[-1][0] > budget.now:
                _, given, index = spent.pop()
                budget.run("give", given, index)
            continue
        amount = min(amount, limit)
        if op == "block":
            budget.run("block", amount * window / 20)
            continue
        taken, wait, blocked, index = budget.run(op, amount)
        if op == "take":
            assert bool(taken) == (blocked == 0)
        if op == "take" and taken:
            spent.append((budget.now + wait, amount, index))
    assert [at for at, _, _ in spent] == sorted(at for at, _, _ in spent)
    by_window: dict[int, int] = {}
    for at, amount, _ in spent:
        place = (at + on_the_way) // budget.window
        by_window[place] = by_window.get(place, 0) + amount
    assert max(by_window.values(), default=0) <= limit


def test_a_whole_window_may_go_at_once_and_the_next_one_again(redis_server: EmbeddedRedis) -> None:
    budget = WindowsOf(redis_server, 100, 60.0)
    assert [budget.run("take", 50)[1] for _ in range(2)] == [0, 0]
    waits = [budget.run("take", 50)[1] for _ in range(3)]
    # The next window begins in 30 s, and with it the margin; the one after that a minute later.
    assert waits == [int(30.5 * US)] * 2 + [int(90.5 * US)]


def test_nothing_is_spent_where_two_windows_meet(redis_server: EmbeddedRedis) -> None:
    budget = WindowsOf(redis_server, 100, 60.0)
    budget.now += int(29.7 * US)
    assert budget.run("take", 1)[1] == int(0.8 * US)
    budget.now += int(0.4 * US)
    assert budget.run("take", 1)[1] == int(0.4 * US)
    budget.now += int(0.4 * US)
    assert budget.run("take", 98)[1] == 0
    assert budget.run("take", 1)[1] == 60 * US


def test_what_the_venue_counted_in_another_window_says_nothing_of_this_one(redis_server: EmbeddedRedis) -> None:
    budget = WindowsOf(redis_server, 100, 60.0)
    budget.run("take", 1)
    budget.run("left", 10, 40 * US)  # It was sent 40 s ago: a window before.
    assert budget.run("take", 50)[1] == 0
    budget.run("left", 10, 5 * US)
    assert budget.run("take", 10)[1] == 0
    assert budget.run("take", 1)[1] > 0


def test_after_a_loss_little_is_spent_until_the_venue_says_what_it_counted(redis_server: EmbeddedRedis) -> None:
    budget = WindowsOf(redis_server, 100, 60.0, doubtful=10)
    budget.run("lost", 10)
    assert budget.run("take", 6)[1] == 0
    budget.run("left", 70, 0)  # Others, or this fleet before, had used 30 of it, the six included or not.
    assert budget.run("take", 64)[1] == 0
    assert budget.run("take", 1)[1] > 0
    budget.now += 60 * US
    budget.run("lost", 10)
    budget.run("take", 5)
    assert budget.run("take", 6)[:2] == (0, US // 10)  # Not yet, and not only in the next window.
    budget.run("left", 70, 0)
    assert budget.run("take", 6)[:2] == (1, 0)
    budget.now += 60 * US
    budget.run("lost", 10)
    budget.run("take", 10)
    budget.now += 60 * US  # Nobody answered: what is known of the next window is enough.
    assert budget.run("take", 100)[:2] == (1, 0)


def test_what_is_given_back_to_a_window_that_is_over_is_no_more_for_this_one(redis_server: EmbeddedRedis) -> None:
    budget = WindowsOf(redis_server, 100, 60.0)
    index = budget.run("take", 60)[3]
    budget.now += 60 * US
    budget.run("take", 60)
    budget.run("give", 60, index)
    assert budget.run("take", 60)[1] > 0


def test_what_the_headers_say_is_believed_when_it_is_less(redis_server: EmbeddedRedis) -> None:
    bucket = Bucket(redis_server, 100, 10.0)
    bucket.run("left", 70)
    assert bucket.run("take", 50) == (1, 0, 0)
    bucket.now += 100 * US
    bucket.run("left", 3)
    assert bucket.run("take", 5) == (1, 2 * US / 5, 0)


def test_a_clock_that_falls_back_gives_nothing_and_takes_nothing(redis_server: EmbeddedRedis) -> None:
    bucket = Bucket(redis_server, 10, 10.0)
    assert bucket.run("take", 5)[1] == 0
    bucket.now -= 3600 * US
    assert bucket.run("take", 1)[1] == 2 * US
    bucket.now += 2 * US
    assert bucket.run("take", 1)[1] == 2 * US


@asynccontextmanager
async def fleet(
    server: EmbeddedRedis, name: str, expected: int = 2, identity: str = "venue.here"
) -> AsyncIterator[Fleet]:
    made = Fleet(RedisUrl.parse(server.url), identity, name=name, expected=expected, log=get_logger())
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


class Recorder:
    """Spends for a while from several tasks, and notes what the server allowed when, by its own clock."""

    def __init__(self) -> None:
        self.spent: list[tuple[float, float]] = []

    async def spend(self, budget: FleetBudget, amounts: list[float], until: float) -> None:
        loop = asyncio.get_running_loop()
        for amount in itertools.cycle(amounts):
            try:
                async with asyncio.timeout(max(0.0, until - loop.time())):
                    await budget.take(amount)
            except TimeoutError:
                return
            self.spent.append((loop.time(), amount))

    def most(self, window: float) -> float:
        return max((sum(a for t, a in self.spent if at <= t < at + window) for at, _ in self.spent), default=0.0)


LATE = 0.25
"""Of a window: what a busy machine wakes later than asked must not be taken for too much."""


@asynccontextmanager
async def held_up() -> AsyncIterator[Callable[[], float]]:
    """Seconds in which this process did not get on: what it left unspent then was not refused."""
    loop, lost = asyncio.get_running_loop(), 0.0

    async def watch() -> None:
        nonlocal lost
        before = loop.time()
        while True:
            await asyncio.sleep(0.02)
            now = loop.time()
            lost += now - before if now - before > 0.2 else 0.0
            before = now

    watching = asyncio.create_task(watch())
    try:
        yield lambda: lost
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_two_clients_together_keep_the_limit(redis_server: EmbeddedRedis) -> None:
    limit, window = 40.0, 1.0
    recorder = Recorder()
    async with fleet(redis_server, "a") as a, fleet(redis_server, "b") as b, held_up() as lost:
        end = asyncio.get_running_loop().time() + 4.0
        budgets = [a.within("weight", limit, window), b.within("weight", limit, window)]
        await asyncio.gather(
            *(recorder.spend(budget, amounts, end) for budget in budgets for amounts in ([1.0], [2.0, 3.0], [5.0]))
        )
        spending = 4.0 - lost()
    total = sum(amount for _, amount in recorder.spent)
    # No more than the burst and what trickles in, and not much less: nothing was wasted.
    kept = limit * (1 - RESERVE)
    assert total <= kept / 2 + kept / 2 / window * (4.0 + LATE)
    assert total >= 0.6 * (kept / 2 + kept / 2 / window * spending)
    assert recorder.most(window * (1 - LATE)) <= limit


async def test_the_order_of_asking_is_kept_between_processes(redis_server: EmbeddedRedis) -> None:
    """Small requests of one process do not starve a large one of another."""
    async with fleet(redis_server, "a") as a, fleet(redis_server, "b") as b:
        small, large = a.budget("weight", 10, 100.0, 0), b.budget("weight", 10, 100.0, 0)
        recorder = Recorder()
        end = asyncio.get_running_loop().time() + 20.0
        busy = asyncio.create_task(recorder.spend(small, [1.0], end))
        await until(lambda: len(recorder.spent) > 20)
        before = len(recorder.spent)
        await large.take(10.0)
        assert len(recorder.spent) - before <= 15
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)


async def test_a_block_holds_for_everybody(redis_server: EmbeddedRedis) -> None:
    async with fleet(redis_server, "a") as a, fleet(redis_server, "b") as b:
        loop = asyncio.get_running_loop()
        mine, theirs = a.within("weight", 100, 10.0), b.within("weight", 100, 10.0)
        await theirs.take()
        began = loop.time()
        mine.block(1.5)
        mine.block(0.1)
        assert mine.blocked_for > 1
        await until(lambda: not a._tasks)
        await asyncio.gather(mine.take(), theirs.take())
        assert loop.time() - began >= 1.4
        assert theirs.blocked_for == 0


async def test_a_block_reaches_one_who_waits_already(redis_server: EmbeddedRedis) -> None:
    async with fleet(redis_server, "a") as a, fleet(redis_server, "b") as b:
        loop = asyncio.get_running_loop()
        mine, theirs = a.budget("weight", 1, 1.0, 0), b.budget("weight", 1, 1.0, 0)
        await theirs.take()
        began = loop.time()
        waiting = asyncio.create_task(theirs.take())  # A second from now.
        await asyncio.sleep(0)
        mine.block(2.0)
        await waiting
        assert loop.time() - began >= 1.9


async def test_one_who_is_cancelled_gives_back(redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(redis_server, "a") as a:
        budget = a.budget("weight", 1, 0.02, 0)
        await budget.take()
        ask, answered = budget._ask, asyncio.Event()

        async def asked(op: str, amount: float, extra: float = 0.0) -> tuple[bool, float, float, float]:
            answer = await ask(op, amount, extra)
            if op == "take":
                answered.set()
            return answer

        monkeypatch.setattr(budget, "_ask", asked)
        for _ in range(5):
            # While it waits, not while it asks: what it was given in an answer nobody saw cannot be given back.
            answered.clear()
            taking = asyncio.create_task(budget.take())
            await answered.wait()
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
        await until(lambda: not a._tasks)
        wait = (await ask("take", 1.0))[1]
        assert wait <= 50.0


async def test_members_are_counted_and_said_goodbye_to(redis_server: EmbeddedRedis) -> None:
    async with fleet(redis_server, "a", expected=1) as a:
        assert a.key("members") == "fm:{budget.venue.here}:members"
        for _ in range(20):
            async with fleet(redis_server, "b", expected=7) as b:
                assert b.members == 7
                await until(lambda b=b: b._share.alive is not None)
        async with fleet(redis_server, "c", expected=1) as c:
            await until(lambda: c._share.alive is not None)
            assert c.members == 2  # The others said that they leave.


async def test_another_outgoing_address_is_another_fleet(redis_server: EmbeddedRedis) -> None:
    async with fleet(redis_server, "a", expected=1) as a, fleet(redis_server, "b", expected=1) as b:
        budgets = [each.budget("weight", 10, 0.01, 0) for each in (a, b)]
        await budgets[0].take(10)  # Who shared this one would wait for a quarter of an hour.
        b.move("venue.there", 5)
        assert b.members == 5
        async with asyncio.timeout(30):
            await budgets[1].take(10)
        async with fleet(redis_server, "c", expected=1, identity="venue.there") as c:
            await until(lambda: c.members == 2)
        await until(lambda: a._share.alive is not None)


async def test_without_redis_each_keeps_to_its_share(redis_server: EmbeddedRedis) -> None:
    limit, window, count = 40.0, 1.0, 2
    recorder = Recorder()
    async with fleet(redis_server, "a", count) as a, fleet(redis_server, "b", count) as b:
        budgets = [each.within("weight", limit, window) for each in (a, b)]
        for budget in budgets:
            await budget.take()
        loop = asyncio.get_running_loop()
        end = loop.time() + 200.0  # However long the server takes to come back: they go on until all is said.
        spenders = asyncio.gather(*(recorder.spend(budget, [1.0], end) for budget in budgets for _ in range(3)))
        await until(lambda: len(recorder.spent) > 30)
        await asyncio.to_thread(redis_server.kill)
        await until(lambda: all(budget.local for budget in budgets))
        alone = len(recorder.spent)
        await until(lambda: len(recorder.spent) > alone + 20)
        await asyncio.to_thread(redis_server.start)
        await until(lambda: not any(budget.local for budget in budgets))
        await until(lambda: a.document()["shared"])
        back = len(recorder.spent)
        await until(lambda: len(recorder.spent) > back + 40)
        spenders.cancel()
        [ended] = await asyncio.gather(spenders, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended
    assert recorder.most(window * (1 - LATE)) <= limit


async def test_two_clients_spend_a_window_of_the_venue_and_no_more(redis_server: EmbeddedRedis) -> None:
    limit, window = 40.0, 2.0
    kept = limit * (1 - WINDOWS_RESERVE)
    recorder = Recorder()
    async with fleet(redis_server, "a") as a, fleet(redis_server, "b") as b:
        began = time.time() // window
        end = asyncio.get_running_loop().time() + 200.0
        budgets = [each.windows("weight", limit, window, 4.0) for each in (a, b)]
        spenders = asyncio.gather(
            *(recorder.spend(budget, amounts, end) for budget in budgets for amounts in ([1.0], [2.0, 3.0], [5.0]))
        )
        await asyncio.sleep(5.0)
        # More than one window has: later where this process was held up.
        await until(lambda: sum(amount for _, amount in recorder.spent) > kept)
        spenders.cancel()
        [ended] = await asyncio.gather(spenders, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended
        windows = time.time() // window - began + 1
    total = sum(amount for _, amount in recorder.spent)
    assert kept < total <= windows * kept


async def test_without_redis_a_share_of_windows_is_the_reserve(redis_server: EmbeddedRedis) -> None:
    async with fleet(redis_server, "a", 2) as a:
        budget = a.windows("weight", 100.0, 60.0, 10.0)
        await budget.take(40)
        redis_server.kill()
        recorder = Recorder()
        await recorder.spend(budget, [1.0], asyncio.get_running_loop().time() + 3.0)
        assert 2 <= len(recorder.spent) <= 100.0 * WINDOWS_RESERVE / 2
        redis_server.start()


async def test_a_server_that_forgot_begins_with_an_empty_bucket(redis_server: EmbeddedRedis) -> None:
    async with fleet(redis_server, "a") as a:
        budget = a.budget("weight", 10, 2.0, 0)
        await budget.take(10)
        redis_server.kill()
        redis_server.start()
        wire = await connect(RedisUrl.parse(redis_server.url), name="test")
        await wire.call("FLUSHALL")
        wire.abort()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await budget.take(2)
        assert loop.time() - began >= 0.9
