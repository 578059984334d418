"""Topics of one connection that fell silent while others flow: told, and asked for anew.

A venue may lose one subscription of many and keep the connection. Silence beyond a topic's own usual one
(:mod:`feedmill.receiver.usual`) is told, and the topic is unsubscribed and subscribed again: at once, then after
``AGAIN`` seconds, and twice as long each time, since an instrument that is not traded must not cost the venue's budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from feedmill.exchanges.base import Topic
from feedmill.receiver import metrics
from feedmill.receiver.usual import FLOOR, Silence, Usual, ages

AGAIN = 600.0
LONGEST = 86_400.0
SURE = 3
"""Looks in a row at which a topic is silent: while in doubt every frame is looked at, not a sample of a flood."""
AT_ONCE = 20
"""Topics asked for anew at once at most: when most are silent, it is not the subscriptions."""
SHOWN = 5
ALL = b""
"""Stands for the data of the connection as a whole."""


class Attention:
    """What is silent, and when it was last asked for. It outlives connections: what is usual takes time to learn."""

    def __init__(self, log: Any) -> None:
        self.silent: list[Silence] = []
        """Topics, the longest first."""
        self._usual = Usual()
        self._doubts: dict[bytes, int] = {}
        """Topic -> looks at which it was silent."""
        self._log = log
        self._asked: dict[bytes, tuple[float, float]] = {}
        """Topic -> (when it may be asked for again, seconds to wait then)."""

    def connected(self, now: float) -> None:
        """A new connection: what went before says nothing of its topics."""
        self._usual.forgive(now)

    def look(
        self, seen: Mapping[bytes, float], last_data: float, topics: Mapping[str, Topic], now: float, *, held: bool
    ) -> list[Topic]:
        """Judge; answers which topics to ask for anew now. ``topics``: those the venue has accepted."""
        found = self._usual.look({**seen, ALL: last_data}, now, held=held)
        if held:
            return []
        before = {each.topic for each in self.silent}
        wanted = [each for each in found if each.topic != ALL and each.topic.decode() in topics]
        self._doubts = {each.topic: self._doubts.get(each.topic, 0) + 1 for each in wanted}
        self.silent = [each for each in wanted if self._doubts[each.topic] >= SURE]
        names = {each.topic for each in self.silent}
        for each in self.silent:
            if each.topic not in before:
                self._log.warning(
                    "topic.silent", topic=each.topic.decode(), seconds=round(each.seconds), usual=round(each.usual, 1),
                    action="it is asked for anew, unless most are silent",
                )  # fmt: skip
        for name in before - names:
            self._asked.pop(name, None)
            if name in seen:
                self._log.info("topic.heard_again", topic=name.decode())
        if any(each.topic == ALL for each in found) or 2 * len(names) > len(topics):
            return []
        return self._due(topics, now)

    def _due(self, topics: Mapping[str, Topic], now: float) -> list[Topic]:
        due: list[Topic] = []
        for each in self.silent:
            at, wait = self._asked.get(each.topic, (0.0, AGAIN))
            if at <= now and len(due) < AT_ONCE:
                self._asked[each.topic] = (now + wait, min(2 * wait, LONGEST))
                due.append(topics[each.topic.decode()])
        metrics.asked_anew.inc(len(due))
        return due

    @property
    def unsure(self) -> bool:
        """Whether a topic may be silent, or its data hidden in a flood of others'."""
        return any(looks < SURE for looks in self._doubts.values())

    @property
    def fresh_seconds(self) -> float:
        """Silence of the whole connection up to this is ordinary."""
        return max(FLOOR, self._usual.limit(ALL) or 0.0)

    def counted(self, topics: Mapping[str, Topic]) -> Counter[str]:
        """Channel -> how many of its topics are silent."""
        found = (topics.get(each.topic.decode()) for each in self.silent)
        return Counter(topic.subscription.channel.value for topic in found if topic is not None)

    def document(self) -> dict[str, Any]:
        """For ``/health``."""
        return {
            "freshSeconds": round(self.fresh_seconds, 1),
            "silentTopics": len(self.silent),
            "silent": ages(self.silent, SHOWN),
        }
