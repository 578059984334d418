"""When a silence is out of the ordinary: each topic is judged by its own usual silences, never by another's.

A look every ``EVERY`` seconds learns from the silences that ended since the last one; so an arrival costs nothing. Of
each topic the longest silence is kept, fading a little with each that ends, and one ``TIMES`` as long is out of the
ordinary. Of arrivals at random (Poisson) it is about 5 mean intervals, so the limit is about 35; measured with these
constants: one arrival in 10^11 is followed by a silence that is called extraordinary by mistake (in 10^8 just after
``FEW``), and a topic that stops is told after about 35 of its mean intervals. Topics that were heard of too seldom to
know are never judged. Pure; times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

EVERY = 5.0
FEW = 50
"""Silences that must have been seen before a topic is judged."""
TIMES = 7.0
FLOOR = 60.0
"""Seconds: no shorter silence is ever out of the ordinary."""
FADES = 0.998
"""The longest silence weighs half after 346 further ones."""
SLEPT = 3 * EVERY
"""A look so late says that nobody looked at the network either: silences of that time are not the exchange's."""


@dataclass(slots=True)
class _Topic:
    last: float
    """Arrival seen by the last look; where none was, when watching began."""
    longest: float = 0.0
    count: int = 0
    forgiven: float = 0.0
    """Silence counts from here, if that is later."""
    silent: bool = False
    """For too long; until it is heard again."""

    @property
    def limit(self) -> float | None:
        return max(FLOOR, TIMES * self.longest) if self.count >= FEW else None


@dataclass(frozen=True, slots=True)
class Silence:
    """One that is out of the ordinary."""

    topic: bytes
    seconds: float
    usual: float
    """Seconds: the longest that was usual."""


class Usual:
    """Judges the topics of one connection."""

    def __init__(self) -> None:
        self._topics: dict[bytes, _Topic] = {}
        self._looked = 0.0

    def look(self, seen: Mapping[bytes, float], now: float, *, held: bool = False) -> list[Silence]:
        """Learn, and answer what is silent for too long, the longest first.

        ``seen``: topic -> time of its last data, 0 = none yet; other topics are forgotten. ``held``: reading rested, so
        silences are our own.
        """
        slept = held or (self._looked > 0 and now - self._looked > SLEPT)
        self._looked = now
        for name in self._topics.keys() - seen.keys():
            del self._topics[name]
        found: list[Silence] = []
        for name, at in seen.items():
            if not at:
                continue
            topic = self._topics.get(name)
            if topic is None:
                self._topics[name] = _Topic(at)
                continue
            if at > topic.last:
                self._learn(topic, at)
            if slept and not topic.silent:
                topic.forgiven = now
            limit = topic.limit
            if limit is not None and now - max(topic.last, topic.forgiven) > limit:
                topic.silent = True
            if topic.silent:
                found.append(Silence(name, now - topic.last, topic.longest))
        return sorted(found, key=lambda each: -each.seconds)

    @staticmethod
    def _learn(topic: _Topic, at: float) -> None:
        if topic.forgiven <= topic.last:
            silence, limit = at - topic.last, topic.limit
            # One outage does not make silence usual; a topic that has become quieter is believed step by step.
            topic.longest = max(topic.longest * FADES, silence if limit is None else min(silence, limit))
            topic.count += 1
        topic.last, topic.silent = at, False

    def forgive(self, now: float) -> None:
        """There was no connection: silence counts from here."""
        for topic in self._topics.values():
            topic.forgiven = now

    def limit(self, topic: bytes) -> float | None:
        """Seconds of silence that are still ordinary; None = too little is known."""
        found = self._topics.get(topic)
        return found.limit if found is not None else None


def ages(found: Iterable[Silence], most: int) -> list[dict[str, str | float]]:
    """For ``/health``: the longest."""
    return [
        {"topic": each.topic.decode(), "seconds": round(each.seconds, 1), "usualSeconds": round(each.usual, 1)}
        for each in list(found)[:most]
    ]
