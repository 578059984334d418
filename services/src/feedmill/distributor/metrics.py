"""Metrics of the distributor, and the figures behind ``/health``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter, Histogram

from feedmill.distributor.output import Taken
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.events import EventBlock
from feedmill.shared.latency import Latencies, RecentLatency
from feedmill.shared.metrics import LATENCY_BUCKETS, Gauge

frames = Counter("feedmill_distributor_frames_total", "Frames handled.")
events = Counter("feedmill_distributor_events_total", "Events emitted.", ["type"])
duplicates = Counter("feedmill_distributor_duplicates_total", "Events and frames that were known already.")
gaps = Counter("feedmill_distributor_gaps_total", "Gap rows opened (their first revision).", ["channel", "cause"])
dead_letters = Counter("feedmill_distributor_dead_letters_total", "Frames kept as dead letters.", ["reason"])
commits = Counter("feedmill_distributor_commits_total", "Commits.")
commit_seconds = Histogram("feedmill_distributor_commit_seconds", "Time of a commit.", buckets=LATENCY_BUCKETS)
reloads = Counter("feedmill_distributor_reloads_total", "Times the checkpoint was loaded.", ["why"])
commands = Counter("feedmill_distributor_commands_total", "Commands issued to receivers.")
backfilled = Counter("feedmill_distributor_backfilled_trades_total", "Trades that were missing and came by REST.")
given_up = Counter("feedmill_distributor_given_up_trades_total", "Missing trades that the venue no longer offers.")
filling = Gauge("feedmill_distributor_backfill_pages", "Pages of trades asked for, or to be asked for again.")
books = Gauge("feedmill_distributor_books", "Books by state.", ["state"])
lag_seconds = Gauge(
    "feedmill_distributor_lag_seconds", "Age of the oldest raw entry not dispatched yet; NaN in one that stands by."
)
lag_seconds.set(math.nan)
held_back = Gauge("feedmill_distributor_held_back", "1 while Redis is too full to add events.")
redis_memory = Gauge(
    "feedmill_distributor_redis_memory_ratio",
    "Share of maxmemory that Redis uses, 0 without one; NaN in one that stands by.",
)
redis_memory.set(math.nan)
sessions = Gauge("feedmill_distributor_sessions", "Receiver sessions known.")
receive_to_commit = Histogram(
    "feedmill_distributor_receive_to_dispatch_seconds",
    "From receiving the first frame of a commit to that commit.",
    buckets=LATENCY_BUCKETS,
)
_KINDS = ("trades", "tickers", "books", "candles", "gaps", "dead_letters", "instruments")
_COUNTERS = [frames, commits, duplicates, commands, backfilled, given_up, *(events.labels(kind) for kind in _KINDS)]


@dataclass(slots=True)
class Figures:
    """The last known state, for health."""

    venue: str
    latencies: Latencies = field(default_factory=Latencies)
    loaded: bool = False
    standby: bool = True
    frames: int = 0
    duplicates: int = 0
    commands: int = 0
    backfilled: int = 0
    given_up: int = 0
    filling: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    """Events emitted by kind."""
    gaps: int = 0
    dead_letters: int = 0
    commits: int = 0
    reloads: int = 0
    resyncs: int = 0
    position: str = ""
    lag_seconds: float | None = None
    held_back: str = ""
    error: str = ""
    failed_commit: dict[str, Any] = field(default_factory=dict)
    """For the log: the commit that was under way when the session ended."""
    books: dict[str, int] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)
    connections: int = 0
    _receive: RecentLatency = field(init=False)
    _observed: float = 0.0
    _reported: list[int] = field(default_factory=lambda: [0] * len(_COUNTERS))

    def __post_init__(self) -> None:
        self._receive = self.latencies.of(self.venue, "receiveToDispatch")

    def stand_by(self) -> None:
        """It dispatches no more, and looks at nothing: what it saw last would be told for ever."""
        self.standby = True
        self.lag_seconds = None
        self.books, self.sessions = {}, []
        self.connections, self.filling, self.held_back = 0, 0, ""
        for gauge in (lag_seconds, redis_memory):
            gauge.set(math.nan)
        for counted in (held_back, sessions, filling):
            counted.set(0)
        books.clear()

    def committed(self, taken: Taken, seconds: float) -> None:
        """Count what a commit brought. The metrics follow once a second (:meth:`report`)."""
        block = taken.block
        self.commits += 1
        self.frames += taken.frames
        self.position = taken.pos
        self.duplicates += taken.duplicates
        self.commands += len(taken.commands)
        self.backfilled += taken.backfilled
        self.given_up += sum(each.trades for each in taken.given_up)
        counts = self.kinds
        counts["trades"] += len(block.trades)
        counts["tickers"] += len(block.tickers)
        if block.books or block.candles or block.instruments:
            counts["books"] += len(block.books)
            counts["candles"] += len(block.candles)
            counts["instruments"] += len(block.instruments)
        if block.gaps or block.dead_letters:
            self._troubles(block)
        took = max(0, now_ns() - taken.oldest_ns) if taken.oldest_ns else 0
        if took:
            self._receive.current.add(took, taken.frames)
        # The Prometheus histograms cost more per value: at most 100 a second.
        at = monotonic()
        if at - self._observed >= 0.01:
            self._observed = at
            commit_seconds.observe(seconds)
            if took:
                receive_to_commit.observe(took / 1e9)

    def _troubles(self, block: EventBlock) -> None:
        self.kinds["gaps"] += len(block.gaps)
        self.kinds["dead_letters"] += len(block.dead_letters)
        for gap in block.gaps:
            if gap.revision == 1:
                gaps.labels(gap.channel, gap.cause).inc()
                self.gaps += 1
        for letter in block.dead_letters:
            dead_letters.labels(letter.reason).inc()
            self.dead_letters += 1

    def report(self) -> None:
        """Bring the counters up to date."""
        now = [self.frames, self.commits, self.duplicates, self.commands, self.backfilled, self.given_up]
        now += self.kinds.values()
        for counter, value, before in zip(_COUNTERS, now, self._reported, strict=True):
            if value > before:
                counter.inc(value - before)
        self._reported = now

    @property
    def events(self) -> int:
        return sum(self.kinds.values())

    def document(self) -> dict[str, Any]:
        """The section ``dispatch``."""
        return {
            "standby": self.standby,
            "frames": self.frames,
            "events": self.events,
            "duplicates": self.duplicates,
            "gaps": self.gaps,
            "deadLetters": self.dead_letters,
            "backfill": {"trades": self.backfilled, "givenUp": self.given_up, "pages": self.filling},
            "commits": self.commits,
            "reloads": self.reloads,
            "position": self.position,
            "heldBack": self.held_back,
            "lastError": self.error,
        }
