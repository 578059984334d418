"""Metrics of the processor, and the figures behind ``/health``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import Counter, Histogram

from feedmill.processor.batch import Batch
from feedmill.processor.spans import Took
from feedmill.processor.store import Outcome
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.latency import Latencies
from feedmill.shared.metrics import LATENCY_BUCKETS, Gauge

rows = Counter("feedmill_processor_rows_total", "Rows stored.", ["table"])
duplicates = Counter("feedmill_processor_duplicates_total", "Rows that were there already.", ["table"])
commits = Counter("feedmill_processor_commits_total", "Transactions that stored a batch.")
failures = Counter("feedmill_processor_failures_total", "Sessions that ended with an error.", ["server"])
batch_rows = Histogram(
    "feedmill_processor_batch_rows",
    "Rows of a transaction.",
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000),
)
commit_seconds = Histogram("feedmill_processor_commit_seconds", "Time of a transaction.", buckets=LATENCY_BUCKETS)
behind = Gauge(
    "feedmill_processor_lag_commits", "Commits in the events stream not stored yet (NaN: unknown).", ["shard"]
)
behind_seconds = Gauge(
    "feedmill_processor_lag_seconds", "Age of the oldest commit not stored yet (NaN: unknown).", ["shard"]
)
dead_letters = Counter("feedmill_processor_dead_letters_total", "Events and entries kept as dead letters.", ["reason"])
refused = Counter("feedmill_processor_refused_events_total", "Events outside the days kept.", ["table", "reason"])
rereads = Counter("feedmill_processor_rereads_total", "Times a stream was read again from its beginning.")
lost_commits = Counter(
    "feedmill_processor_lost_commits_total",
    "Commits gone from a stream before they were stored (a wiped server: 1).",
)
given_up = Counter("feedmill_processor_given_up_gaps_total", "Gaps of lost commits that REST requests did not close.")
moved = Counter(
    "feedmill_processor_moved_batches_total", "Batches given up because the position was moved by another process."
)
shards_owned = Gauge("feedmill_processor_shards_owned", "Shards this process works on.")
server_up = Gauge(
    "feedmill_processor_server_up",
    "1 when the server answered last time; NaN while that is not known, as where no shard is owned.",
    ["server"],
)
breaker_state = Gauge("feedmill_processor_breaker_state", "0 closed, 1 half-open, 2 open.", ["server"])
exchange_to_commit = Histogram(
    "feedmill_processor_exchange_to_commit_seconds",
    "From the exchange's time to the commit (a sample of events).",
    ["exchange", "market"],
    buckets=LATENCY_BUCKETS,
)
receive_to_commit = Histogram(
    "feedmill_processor_receive_to_commit_seconds",
    "From receiving to the commit (a sample of events).",
    ["exchange", "market"],
    buckets=LATENCY_BUCKETS,
)
candles_complete = Counter("feedmill_processor_candles_complete_total", "Candles proven complete.", ["interval"])
candles_filled = Counter("feedmill_processor_candles_filled_total", "Empty candles made.", ["interval"])
candles_compared = Counter(
    "feedmill_processor_candles_compared_total", "Candles compared with the venue's.", ["interval", "agrees"]
)
finish_seconds = Histogram(
    "feedmill_processor_finish_seconds", "Time of a run of the finisher.", buckets=LATENCY_BUCKETS
)


@dataclass(slots=True)
class ShardFigures:
    """The last known state of one shard in this process."""

    owned: bool = False
    n: int = 0
    commits: int = 0
    rows: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    refused: int = 0
    rereads: int = 0
    behind: int | None = None
    """Commits not stored yet; None = not known."""
    oldest_ms: int | None = None
    """When the oldest commit not stored yet came into the stream, ms since the epoch; 0 = all is stored, None = not
    known. Kept while a server is away, so that the lag is seen to grow."""
    batch_rows: int = 0
    working: bool = False
    """Connected to both servers."""
    fault: str = ""
    """An error of the code itself, tried again and again."""
    error: str = ""

    @property
    def behind_seconds(self) -> float | None:
        if self.oldest_ms is None:
            return None
        return max(0.0, now_ns() / 1e9 - self.oldest_ms / 1000) if self.oldest_ms else 0.0

    def give_up(self) -> None:
        """The shard is another's now: how far behind it is is no longer known here."""
        self.owned = self.working = False
        self.behind = self.oldest_ms = None

    def document(self) -> dict[str, Any]:
        return {
            "owned": self.owned,
            "commit": self.n,
            "commits": self.commits,
            "rows": self.rows,
            "duplicates": self.duplicates,
            "deadLetters": self.dead_letters,
            "refused": self.refused,
            "rereads": self.rereads,
            "lagCommits": self.behind,
            "lagSeconds": None if self.behind_seconds is None else round(self.behind_seconds, 3),
            "lastBatchRows": self.batch_rows,
            "working": self.working,
            "lastError": self.fault or self.error,
        }


@dataclass(slots=True)
class ServerFigures:
    """What is known of Redis or PostgreSQL."""

    reachable: bool | None = None
    """None = not asked yet."""
    error: str = ""
    """Of the last failure; empty while it answers."""

    def document(self) -> dict[str, Any]:
        return {"reachable": self.reachable, "lastError": self.error}


@dataclass(slots=True)
class Figures:
    """Of the whole process."""

    latencies: Latencies = field(default_factory=Latencies)
    shards: dict[str, ShardFigures] = field(default_factory=dict)
    servers: dict[str, ServerFigures] = field(
        default_factory=lambda: {"redis": ServerFigures(), "postgres": ServerFigures()}
    )

    def of(self, shard: str) -> ShardFigures:
        return self.shards.setdefault(shard, ShardFigures())

    def answered(self, server: str) -> None:
        found = self.servers[server]
        found.reachable, found.error = True, ""

    def failed(self, server: str, error: str) -> None:
        found = self.servers[server]
        found.reachable, found.error = False, error
        failures.labels(server).inc()

    def lag(self) -> dict[str, Any]:
        """Of the shards owned: commits behind in all, and the longest time; null where it is not known of one."""
        own = [shard for shard in self.shards.values() if shard.owned]
        commits = [shard.behind for shard in own]
        seconds = [shard.behind_seconds for shard in own]
        return {
            "commits": None if None in commits else sum(filter(None, commits)),
            "seconds": None if None in seconds else round(max(filter(None, seconds), default=0.0), 3),
        }


class Meter:
    """Counts what one shard's commits do."""

    def __init__(self, shard: str, exchange: str, market: str, figures: Figures) -> None:
        self.shard = shard
        self.figures = figures.of(shard)
        self._exchange = figures.latencies.of(f"{exchange}/{market}", "exchangeToCommit")
        self._receive = figures.latencies.of(f"{exchange}/{market}", "receiveToCommit")
        self._exchange_histogram = exchange_to_commit.labels(exchange, market)
        self._receive_histogram = receive_to_commit.labels(exchange, market)
        behind.labels(shard).set_function(partial(_commits_or_nan, self.figures))
        behind_seconds.labels(shard).set_function(partial(_seconds_or_nan, self.figures))
        self._tables: dict[str, tuple[Counter, Counter]] = {}
        """Table -> its counters of rows and of duplicates. Looking a label up costs more than counting."""
        self._observed = 0.0

    def committed(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        figures = self.figures
        inserted = 0
        for table, count in outcome.stored.inserted.items():
            doubled = outcome.stored.given[table] - count
            if not count and not doubled:
                continue
            counters = self._tables.get(table)
            if counters is None:
                counters = self._tables[table] = (rows.labels(table), duplicates.labels(table))
            if count:
                counters[0].inc(count)
                inserted += count
            if doubled:
                counters[1].inc(doubled)
                figures.duplicates += doubled
        for (table, reason), count in outcome.refused.items():
            refused.labels(table, reason).inc(count)
            figures.refused += count
        for reason, count in outcome.letters.items():
            dead_letters.labels(reason).inc(count)
        figures.dead_letters += outcome.letters.total()
        if batch.loss is not None and batch.loss.certain:
            lost_commits.inc(max(1, batch.loss.last - batch.loss.first + 1))
        commits.inc()
        size = batch.count
        batch_rows.observe(size)
        commit_seconds.observe(seconds)
        figures.commits += 1
        figures.rows += inserted
        figures.batch_rows = size
        figures.n = batch.n
        self._latency(batch)

    def _latency(self, batch: Batch) -> None:
        now = now_ns()
        exchange, receive = self._exchange.current, self._receive.current
        for sample in batch.samples:
            if sample.exchange_ns:
                exchange.add(now - sample.exchange_ns, sample.weight)
            receive.add(now - sample.receive_ns, sample.weight)
        # The Prometheus histogram costs more per value: one a commit, the oldest, and at most 100 a second.
        at = monotonic()
        if batch.samples and at - self._observed >= 0.01:
            self._observed = at
            first = batch.samples[0]
            if first.exchange_ns:
                self._exchange_histogram.observe(max(0.0, (now - first.exchange_ns) / 1e9))
            self._receive_histogram.observe(max(0.0, (now - first.receive_ns) / 1e9))

    def followed(self, took: Sequence[Took]) -> None:
        """Traced batches that were stored: the histograms name their traces."""
        for each in took:
            if each.exchange is not None:
                self._exchange_histogram.observe(max(0.0, each.exchange), each.span.exemplar)
            if each.receive is not None:
                self._receive_histogram.observe(max(0.0, each.receive), each.span.exemplar)

    def close(self) -> None:
        """The shard is no longer this process's to report on."""
        for gauge in (behind, behind_seconds):
            with contextlib.suppress(KeyError):
                gauge.remove(self.shard)

    def lag(self, commits: int, oldest_ms: int) -> None:
        """``oldest_ms``: when the oldest commit not stored came into the stream; 0 = all is stored."""
        self.figures.behind, self.figures.oldest_ms = commits, oldest_ms


def _commits_or_nan(figures: ShardFigures) -> float:
    return math.nan if figures.behind is None else figures.behind


def _seconds_or_nan(figures: ShardFigures) -> float:
    seconds = figures.behind_seconds
    return math.nan if seconds is None else seconds
