"""Silences are judged by each topic's own usual ones: random arrivals of any rate do not flap, a stop is told."""

from __future__ import annotations

import itertools
import random

import pytest

from feedmill.exchanges.base import ChannelName, Subscription, Topic
from feedmill.receiver.attention import AGAIN, SURE, Attention
from feedmill.receiver.freshness import SAMPLED, Freshness
from feedmill.receiver.usual import EVERY, FEW, FLOOR, TIMES, Usual
from feedmill.shared.log import get_logger

DAY = 86_400.0
ONE = b"one"


class Arrivals:
    """Of one topic, at random with a mean interval (seconds); asked in the order of time."""

    def __init__(self, mean: float, seed: int, start: float = 1000.0) -> None:
        self._dice = random.Random(seed)
        self._mean = mean
        self._last, self._next = 0.0, start

    def last(self, now: float) -> float:
        if self._mean < EVERY / 50:
            return now - self._dice.expovariate(1 / self._mean)
        while self._next <= now:
            self._last = self._next
            self._next += self._dice.expovariate(1 / self._mean)
        return self._last


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("mean", "days"), [(0.01, 1), (1.0, 1), (10.0, 1), (60.0, 2), (600.0, 8), (3600.0, 30)])
def test_random_arrivals_of_any_rate_are_never_called_silent(mean: float, days: int, seed: int) -> None:
    usual, arrivals, now, judged = Usual(), Arrivals(mean, seed), 1000.0, 0
    while now < 1000.0 + days * DAY:
        now += EVERY
        assert usual.look({ONE: arrivals.last(now)}, now) == []
        judged += usual.limit(ONE) is not None
    assert judged > 0.5 * days * DAY / EVERY, "it was hardly ever judged"


@pytest.mark.parametrize("mean", [0.5, 20.0, 300.0])
def test_one_that_stops_is_told_within_a_multiple_of_its_longest_silence(mean: float) -> None:
    usual, arrivals, now, last = Usual(), Arrivals(mean, 7), 1000.0, 0.0
    while usual.limit(ONE) is None or now < 1000.0 + 400 * mean:
        now += EVERY
        last = arrivals.last(now)
        assert usual.look({ONE: last}, now) == []
    limit = usual.limit(ONE)
    assert limit is not None
    assert limit <= max(FLOOR, TIMES * (15 * mean + 2 * EVERY))
    while not (found := usual.look({ONE: last}, now)):
        now += EVERY
        assert now - last <= limit + 2 * EVERY
    assert found[0].topic == ONE
    assert limit < found[0].seconds <= limit + 2 * EVERY
    # Heard again: ordinary at once, and one outage has not made any silence usual.
    assert usual.look({ONE: now}, now) == []
    after = usual.limit(ONE)
    assert after is not None
    assert after <= TIMES * limit


def test_who_was_heard_of_too_seldom_is_not_judged() -> None:
    usual, now = Usual(), 1000.0
    for _ in range(FEW):
        now += EVERY
        assert usual.look({ONE: now}, now) == []
    assert usual.limit(ONE) is None
    assert usual.look({ONE: now}, now + 2 * EVERY) == []
    assert usual.limit(b"nobody") is None


def busy(usual: Usual, now: float, looks: int = 2 * FEW) -> float:
    for _ in range(looks):
        now += EVERY
        usual.look({ONE: now}, now)
    return now


@pytest.mark.parametrize("held", [True, False])
def test_silence_of_our_own_is_forgiven(held: bool) -> None:
    usual = Usual()
    last = now = busy(usual, 1000.0)
    if held:  # Reading rested for memory.
        for _ in range(60):
            now += EVERY
            assert usual.look({ONE: last}, now, held=True) == []
    else:  # The process was stopped.
        now += 600.0
        assert usual.look({ONE: last}, now) == []
    limit = usual.limit(ONE)
    began = now
    while now - began <= FLOOR - EVERY:
        now += EVERY
        assert usual.look({ONE: last}, now) == []
    now += EVERY
    assert [each.topic for each in usual.look({ONE: last}, now)] == [ONE]
    usual.look({ONE: now}, now)
    assert usual.limit(ONE) == limit, "a silence that was our own was learnt"


def test_topics_that_are_gone_are_forgotten() -> None:
    usual = Usual()
    now = busy(usual, 1000.0)
    assert usual.look({}, now + 1) == []
    assert usual.limit(ONE) is None


# --- what follows from it ---------------------------------------------------------------------------------------------


class Watched:
    """Four topics that flow, seen by looks."""

    def __init__(self) -> None:
        names = ("a", "b", "c", "d")
        self.topics = {name: Topic(name, "stream", Subscription(name, name, ChannelName.TRADES)) for name in names}
        self.attention = Attention(get_logger())
        self.now = 1000.0
        self.last = dict.fromkeys(self.topics, 0.0)

    def look(self, *silent: str) -> list[str]:
        self.now += EVERY
        for name in self.topics:
            if name not in silent:
                self.last[name] = self.now
        seen = {name.encode(): at for name, at in self.last.items()}
        found = self.attention.look(seen, max(self.last.values()), self.topics, self.now, held=False)
        return [topic.name for topic in found]

    def flow(self, *silent: str, seconds: float = 2 * FEW * EVERY) -> list[tuple[float, str]]:
        """(time, topic) of what was asked for anew."""
        end, asked = self.now + seconds, list[tuple[float, str]]()
        while self.now < end:
            names = self.look(*silent)
            asked += [(self.now, name) for name in names]
        return asked

    @property
    def told(self) -> int:
        assert self.attention.document()["silentTopics"] == sum(self.attention.counted(self.topics).values())
        return sum(self.attention.counted(self.topics).values())


def test_one_of_many_is_told_and_asked_for_anew_ever_more_seldom() -> None:
    watched = Watched()
    assert watched.flow() == []
    assert watched.attention.document() == {"freshSeconds": FLOOR, "silentTopics": 0, "silent": []}
    began = watched.now
    asked = watched.flow("b", seconds=8 * AGAIN)
    assert {name for _, name in asked} == {"b"}
    times = [at for at, _ in asked]
    assert FLOOR <= times[0] - began <= FLOOR + (SURE + 1) * EVERY
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits == [AGAIN, 2 * AGAIN, 4 * AGAIN]
    assert watched.told == 1
    assert watched.attention.document()["silent"][0]["topic"] == "b"
    watched.look()
    assert watched.told == 0


def test_where_most_or_all_are_silent_it_is_not_the_subscriptions() -> None:
    watched = Watched()
    watched.flow()
    assert watched.flow("a", "b", "c", seconds=4 * FLOOR) == []
    assert watched.told == 3
    watched = Watched()
    watched.flow()
    assert watched.flow("a", "b", "c", "d", seconds=4 * FLOOR) == []
    assert watched.told == 4


def test_a_connection_of_quiet_topics_only_is_fresh_for_longer() -> None:
    attention, now = Attention(get_logger()), 1000.0
    for _ in range((FEW + 5) * 20):  # Data every 100 s.
        now += EVERY
        attention.look({}, now - now % 100.0, {}, now, held=False)
    assert attention.fresh_seconds >= TIMES * 90


def test_in_doubt_every_frame_is_looked_at() -> None:
    """A quiet topic whose frames stand amid a flood's is not taken for a silent one."""
    freshness = Freshness(["flood", "quiet"])
    frames = [b'{"stream":"flood","data":1}'] * (8 * SAMPLED) + [b'{"stream":"quiet","data":1}']
    found = {False: 0, True: 0}
    for exact in (False, True):
        freshness.exact = exact
        for _ in range(9):
            freshness.seen[b"quiet"] = 0.0
            freshness.sample(list(frames), 5.0)
            found[exact] += freshness.has_seen("quiet")
    assert found[True] == 9 > found[False]

    watched = Watched()
    watched.flow()
    while not watched.attention.unsure:
        watched.look("a")
    assert watched.told == 0
    for _ in range(SURE - 1):
        watched.look("a")
    assert not watched.attention.unsure
    assert watched.told == 1


def test_what_the_venue_has_not_accepted_is_not_silent() -> None:
    watched = Watched()
    watched.flow()
    del watched.topics["b"]
    assert watched.flow(seconds=4 * FLOOR) == []
    assert watched.told == 0
