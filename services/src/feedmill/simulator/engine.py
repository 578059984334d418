"""How many messages are due, and of which topic: a rate shared by lanes (Trades, Ticker, Book) in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Produce = Callable[[int], None]
"""Make and send one message; the argument is the exchange's time in ms."""

MAX_BACKLOG = 0.25
"""Seconds of messages made up for at most when the process was held up; the rest is not emitted at all."""
BLAST = 2_000
"""Messages a turn when the rate is 0 (as fast as the clients read)."""


class Lane:
    """The topics of one channel, served in turn."""

    __slots__ = ("due", "index", "owners", "producers", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.producers: list[Produce] = []
        self.owners: list[str] = []
        """Of each producer: the instrument it makes messages of."""
        self.index = 0
        self.due = 0.0

    def remove(self, owner: str) -> None:
        kept = [at for at, name in enumerate(self.owners) if name != owner]
        self.producers, self.owners = [self.producers[at] for at in kept], [self.owners[at] for at in kept]

    def run(self, count: int, now_ms: int) -> None:
        producers = self.producers
        size = len(producers)
        at = self.index % size
        for _ in range(count):
            producers[at](now_ms)
            at += 1
            if at == size:
                at = 0
        self.index = at


class Engine:
    """``rate`` messages a second in all, 0 = ``BLAST`` each turn."""

    def __init__(self, rate: float, mix: Mapping[str, float]) -> None:
        self.rate = rate
        self.lanes = {channel: Lane(mix.get(channel, 0.0)) for channel in ("Trades", "Ticker", "Book")}
        self.made = 0

    def add(self, channel: str, owner: str, produce: Produce) -> None:
        lane = self.lanes[channel]
        lane.producers.append(produce)
        lane.owners.append(owner)

    def remove(self, owner: str) -> None:
        """Nothing of an instrument any more."""
        for lane in self.lanes.values():
            lane.remove(owner)

    def run(self, now_ms: int, elapsed: float) -> None:
        """Send what is due after ``elapsed`` seconds."""
        active = [lane for lane in self.lanes.values() if lane.producers and lane.weight]
        total = sum(lane.weight for lane in active)
        due = BLAST if self.rate == 0 else self.rate * min(elapsed, MAX_BACKLOG)
        for lane in active:
            lane.due += due * lane.weight / total
            count = int(lane.due)
            if count:
                lane.due -= count
                lane.run(count, now_ms)
                self.made += count
