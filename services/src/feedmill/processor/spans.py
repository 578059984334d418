"""Spans of one transaction: of each traced commit in it, from its reading to the rows' being there.

Made only where something in it is traced. The time from the exchange to the row is told of exactly the batch that is
followed, and goes to the latency histograms with the trace as exemplar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.traceparent import MOST, TraceRef
from feedmill.shared.tracing import TRACES, Span


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace that an entry of the events stream goes on with."""

    ref: TraceRef
    n: int
    """Of its commit."""
    commit_id: str
    stream_id: str
    events: int
    """Of the entry."""
    read_ns: int


@dataclass(frozen=True, slots=True)
class Took:
    """How long it was until a traced batch was stored, seconds; None where the time before is not known."""

    exchange: float | None
    receive: float | None
    span: Span


class StoreSpans:
    """From just before the transaction to its end."""

    def __init__(self, shard: str, found: Sequence[Traced]) -> None:
        at = now_ns()
        self._batches: list[tuple[Traced, Span, Span]] = []
        for each in found[:MOST]:
            attributes: dict[str, str | int] = {
                "feedmill.shard": shard,
                "feedmill.commit": each.n,
                "feedmill.commit_id": each.commit_id,
                "feedmill.events_entry": each.stream_id,
                "feedmill.events": each.events,
            }
            span = TRACES.begin("store", each.read_ns, "consumer", attributes, each.ref.parent)
            transaction = span.child("transaction", at, "client", {"db.system.name": "postgresql"})
            self._batches.append((each, span, transaction))

    @property
    def trace_ids(self) -> list[str]:
        """For the log."""
        return [span.trace_id for _, span, _ in self._batches]

    def stored(self, commits: int, rows: Mapping[str, int]) -> list[Took]:
        """``commits`` the transaction has; ``rows``: new ones, of each table."""
        at = now_ns()
        told = {f"feedmill.rows.{table}": count for table, count in rows.items() if count}
        took: list[Took] = []
        for each, span, transaction in self._batches:
            transaction.set({"feedmill.commits": commits, **told})
            transaction.end(at)
            since = Took(_seconds(at, each.ref.exchange_ns), _seconds(at, each.ref.receive_ns), span)
            if since.exchange is not None:
                span.set({"feedmill.exchange_to_commit_seconds": since.exchange})
            if since.receive is not None:
                span.set({"feedmill.receive_to_commit_seconds": since.receive})
            span.end(at)
            took.append(since)
        return took

    def failed(self, why: str) -> None:
        """What is read again after a failure has a span of its own."""
        at = now_ns()
        for _, span, transaction in self._batches:
            transaction.end(at, why)
            span.end(at, why)


def _seconds(at: int, since_ns: int) -> float | None:
    return (at - since_ns) / SECOND if since_ns else None
