"""Metrics of the distributor, and the figures behind ``/health``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from feedmill.distributor.engine import Taken
from feedmill.shared.clock import now_ns
from feedmill.shared.events import EventBlock
from feedmill.shared.latency import Latencies
from feedmill.shared.metrics import LATENCY_BUCKETS

frames = Counter("feedmill_distributor_frames_total", "Frames handled.")
events = Counter("feedmill_distributor_events_total", "Events emitted.", ["type"])
duplicates = Counter("feedmill_distributor_duplicates_total", "Events and frames that were known already.")
gaps = Counter("feedmill_distributor_gaps_total", "Gap rows opened (their first revision).", ["channel", "cause"])
dead_letters = Counter("feedmill_distributor_dead_letters_total", "Frames kept as dead letters.", ["reason"])
commits = Counter("feedmill_distributor_commits_total", "Commits.")
commit_seconds = Histogram("feedmill_distributor_commit_seconds", "Time of a commit.", buckets=LATENCY_BUCKETS)
reloads = Counter("feedmill_distributor_reloads_total", "Times the checkpoint was loaded.", ["why"])
commands = Counter("feedmill_distributor_commands_total", "Commands issued to receivers.")
books = Gauge("feedmill_distributor_books", "Books by state.", ["state"])
lag_seconds = Gauge("feedmill_distributor_lag_seconds", "Age of the oldest raw entry not dispatched yet.")
held_back = Gauge("feedmill_distributor_held_back", "1 while Redis is too full to add events.")
sessions = Gauge("feedmill_distributor_sessions", "Receiver sessions known.")
receive_to_commit = Histogram(
    "feedmill_distributor_receive_to_dispatch_seconds",
    "From receiving the first frame of a commit to that commit.",
    buckets=LATENCY_BUCKETS,
)
_KINDS = ("trades", "tickers", "books", "candles", "gaps", "dead_letters", "instruments")
_counters = {kind: events.labels(kind) for kind in _KINDS}


@dataclass(slots=True)
class Figures:
    """The last known state, for health."""

    venue: str
    latencies: Latencies = field(default_factory=Latencies)
    loaded: bool = False
    standby: bool = True
    frames: int = 0
    events: int = 0
    duplicates: int = 0
    gaps: int = 0
    dead_letters: int = 0
    commits: int = 0
    reloads: int = 0
    resyncs: int = 0
    position: str = ""
    lag_seconds: float | None = None
    lag_entries: int | None = None
    held_back: str = ""
    error: str = ""
    books: dict[str, int] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)
    connections: int = 0

    def committed(self, taken: Taken, seconds: float) -> None:
        """Count what a commit brought."""
        block = taken.block
        commits.inc()
        commit_seconds.observe(seconds)
        frames.inc(taken.frames)
        self.commits += 1
        self.frames += taken.frames
        self.events += len(block)
        self.position = taken.pos
        if taken.duplicates:
            duplicates.inc(taken.duplicates)
            self.duplicates += taken.duplicates
        if taken.commands:
            commands.inc(len(taken.commands))
        self._count(block)
        if taken.oldest_ns:
            took = max(0, now_ns() - taken.oldest_ns)
            receive_to_commit.observe(took / 1e9)
            self.latencies.of(self.venue, "receiveToDispatch").current.add(took, taken.frames)

    def _count(self, block: EventBlock) -> None:
        for kind, counter in _counters.items():
            if number := len(getattr(block, kind)):
                counter.inc(number)
        for gap in block.gaps:
            if gap.revision == 1:
                gaps.labels(gap.channel, gap.cause).inc()
                self.gaps += 1
        for letter in block.dead_letters:
            dead_letters.labels(letter.reason).inc()
            self.dead_letters += 1

    def document(self) -> dict[str, Any]:
        """The section ``dispatch``."""
        return {
            "standby": self.standby,
            "frames": self.frames,
            "events": self.events,
            "duplicates": self.duplicates,
            "gaps": self.gaps,
            "deadLetters": self.dead_letters,
            "commits": self.commits,
            "reloads": self.reloads,
            "position": self.position,
            "heldBack": self.held_back,
            "lastError": self.error,
        }
