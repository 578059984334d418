"""Spans of one commit: of each traced batch that is in it, from its reading to the commit's answer; and of what the
commit asks of receivers, whose trace begins here. Made only where there is something traced."""

from __future__ import annotations

from collections.abc import Sequence

from feedmill.distributor.traced import Traced
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.control import Command
from feedmill.shared.traceparent import TraceRef
from feedmill.shared.tracing import TRACES, Span, Value

ASKED = frozenset({"trades", "book_snapshot"})
"""Commands that are traced: what is missing, and how it comes back."""


class CommitSpans:
    """``refs`` go into the events entry."""

    def __init__(
        self, shard: str, found: Sequence[Traced], commands: Sequence[Command] = (), mapped_ns: int = 0
    ) -> None:
        """``mapped_ns``: when all that was read was mapped, and the commit before was waited for."""
        self._batches: list[tuple[Traced, Span]] = []
        for each in found:
            origin = each.origin
            attributes: dict[str, Value] = {
                "feedmill.shard": shard,
                "feedmill.session": origin.session,
                "feedmill.batch": origin.batch,
                "feedmill.raw_entry": origin.stream_id,
                "feedmill.events": each.events,
            }
            named: dict[str, Value] = {
                "feedmill.trades": each.trades,
                "feedmill.fills": each.fills,
                "feedmill.command": origin.command,
            }
            attributes |= {name: value for name, value in named.items() if value}
            span = TRACES.begin("distribute", origin.read_ns, "consumer", attributes, origin.parent)
            span.event("mapped", mapped_ns or now_ns())
            self._batches.append((each, span))
        self._asked = [_asked(shard, command) for command in commands if command.kind in ASKED and TRACES.rare()]
        self._commits: list[Span] = []
        self.refs = [TraceRef(span.traceparent, each.exchange_ns, each.receive_ns) for each, span in self._batches]

    @property
    def trace_ids(self) -> list[str]:
        """For the log."""
        return [span.trace_id for _, span in self._batches]

    def sent(self, number: int, commit_id: str) -> None:
        """The commit is under way. ``number``: of the events entry, 0 = none."""
        at = now_ns()
        attributes: dict[str, Value] = {
            "db.system.name": "redis",
            "feedmill.commit": number,
            "feedmill.commit_id": commit_id,
        }
        self._commits = [span.child("commit", at, "client", attributes) for _, span in self._batches]

    def committed(self) -> list[tuple[float, Span]]:
        """Answers how many seconds passed since a traced batch was received, and its span."""
        at = now_ns()
        took: list[tuple[float, Span]] = []
        for (each, span), commit in zip(self._batches, self._commits, strict=True):
            commit.end(at)
            if each.receive_ns:
                took.append((max(0, at - each.receive_ns) / SECOND, span))
                span.set({"feedmill.receive_to_dispatch_seconds": took[-1][0]})
            if each.exchange_ns:
                span.set({"feedmill.exchange_to_dispatch_seconds": (at - each.exchange_ns) / SECOND})
            span.end(at)
        for span in self._asked:
            span.end(at)
        return took

    def failed(self, why: str) -> None:
        """What is read again after a failure has a span of its own."""
        at = now_ns()
        for span in (*self._commits, *(span for _, span in self._batches), *self._asked):
            span.end(at, why)


def _asked(shard: str, command: Command) -> Span:
    attributes: dict[str, Value] = {
        "feedmill.shard": shard,
        "feedmill.command": command.id,
        "feedmill.symbol": command.symbol,
        "feedmill.reason": command.reason,
        "feedmill.again": command.living is not None,
    }
    if command.kind == "trades":
        attributes |= {"feedmill.from": command.from_id, "feedmill.to": command.to_id}
    span = TRACES.begin(f"ask for {command.kind}", command.issued_ns, "producer", attributes)
    command.trace = span.traceparent
    return span
