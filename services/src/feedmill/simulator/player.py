"""Replays a recording: waits for its topics to be subscribed, then keeps the recorded pace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from feedmill.simulator.config import ConfigError
from feedmill.simulator.recorded import Recording, canonical_symbols
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

_BURST = 500
"""Frames a tick when there are no pauses."""


class RecordedBook:
    """A book of exact texts: price (as a number) -> (price text, size text)."""

    def __init__(self) -> None:
        self.seq = -1
        self.bids: dict[Decimal, tuple[str, str]] = {}
        self.asks: dict[Decimal, tuple[str, str]] = {}

    def apply(self, seq: int, bids: list[list[str]], asks: list[list[str]]) -> None:
        self.seq = seq
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                if Decimal(size):
                    side[Decimal(price)] = (price, size)
                else:
                    side.pop(Decimal(price), None)

    def image(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Levels, best first."""
        bids = [self.bids[price] for price in sorted(self.bids, reverse=True)]
        return bids, [self.asks[price] for price in sorted(self.asks)]


class Player(ABC):
    """``frames`` that wait to be sent. ``started`` when they began to flow."""

    def __init__(self, venue: Venue, recording: Recording) -> None:
        self.venue = venue
        self.ledger = venue.ledger
        self.recording = recording
        self.symbols = canonical_symbols(venue.config.venue, recording)
        self.topics: dict[tuple[str, str], Topic] = {}
        self.sent: dict[str, list[Any]] = {}
        """Native -> trades (aggregates) sent, for REST."""
        self.started = False
        self.frames = deque(recording.frames)
        self.expected = list(dict.fromkeys(name for _, name, _ in recording.frames))
        """Names with recorded frames."""
        self._origin = recording.frames[0][0] if recording.frames else 0
        self._position = 0.0
        """Seconds of recorded time played."""
        self._waited: float | None = None

    @property
    def finished(self) -> bool:
        return not self.frames

    def topic(self, native: str, kind: str) -> Topic | None:
        found = self.topics.get((native, kind))
        if found is None:
            channel = self.channel_of(kind)
            if native not in self.symbols or channel is None:
                return None
            found = self.topics[native, kind] = Topic(native, self.symbols[native], kind, channel)
            found.started = True
            self.venue.topic_made(found)
        return found

    def want(self, topic: Topic) -> None:
        """A connection joined; the grace period runs from the first one on."""
        if self._waited is None:
            self._waited = 0.0

    @abstractmethod
    def channel_of(self, kind: str) -> str | None: ...

    @abstractmethod
    def topics_of(self, name: str) -> list[tuple[str, str]]:
        """(native, kind) of the topics that a recorded name is for: any of them will do."""

    @abstractmethod
    def play(self, name: str, data: str) -> None:
        """Send one frame and write it to the ledger."""

    @abstractmethod
    def begin(self) -> None:
        """The replay starts now."""

    def tick(self, now_ms: int, elapsed: float) -> None:
        if self._waited is None or not self.frames:
            return
        simulator = self.venue.simulator
        if not self.started:
            self._waited += elapsed
            if self._waited < simulator.grace and not all(self._heard(name) for name in self.expected):
                return
            self.started = True
            self.begin()
            elapsed = 0.0  # The pace counts from here: what passed before may have been long.
        if simulator.speed == 0:
            for _ in range(min(_BURST, len(self.frames))):
                _, name, data = self.frames.popleft()
                self.play(name, data)
            return
        self._position += elapsed * simulator.speed
        until = self._origin + int(self._position * 1e9)
        while self.frames and self.frames[0][0] <= until:
            _, name, data = self.frames.popleft()
            self.play(name, data)

    def list_new(self, symbol: str, expiry_ms: int) -> int:
        raise ConfigError("a recording lists what it holds: nothing can be listed or expire")

    def expire(self, symbol: str) -> int:
        return self.list_new(symbol, 0)

    def forget(self, symbol: str) -> int:
        """REST no longer has the trades sent so far."""
        hit = [native for native in self.sent if symbol in ("", native, self.symbols[native])]
        for native in hit:
            self.sent[native].clear()
        return len(hit)

    def finish(self, now_ms: int) -> None:
        """A recording ends where it ends: what was not sent yet is not sent."""
        self.frames.clear()

    def _heard(self, name: str) -> bool:
        return any(self.topics[key].outlets for key in self.topics_of(name) if key in self.topics)

    def send(self, key: tuple[str, str], data: str) -> None:
        topic = self.topics.get(key)
        if topic is not None and topic.outlets:
            topic.emit(data.encode())
