"""A trace begins with a batch: its span tells from the first frame's arrival to Redis' word that it has the batch.

Of sampled batches only, one by one. What the batch brings later hangs below this span by the ``traceparent`` in it.
"""

from __future__ import annotations

from feedmill.receiver.packer import Contents
from feedmill.shared.clock import now_ns
from feedmill.shared.frames import RunKind
from feedmill.shared.tracing import TRACES, Span, Value


class BatchTrace:
    """Of one batch, until Redis has it or it left memory."""

    __slots__ = ("_append", "_span", "attempts")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._append: Span | None = None
        self.attempts = 0

    @property
    def parent(self) -> str:
        """What the batch carries."""
        return self._span.traceparent

    @property
    def trace_id(self) -> str:
        return self._span.trace_id

    @property
    def exemplar(self) -> dict[str, str]:
        return self._span.exemplar

    def sent(self) -> None:
        """An append is under way."""
        self.attempts += 1
        if self._append is not None:
            self._append.end(now_ns(), "no answer: sent again")
        self._append = self._span.child("append", now_ns(), "client", {"db.system.name": "redis"})

    def appended(self) -> None:
        """Redis has it."""
        at = now_ns()
        self._span.set({"feedmill.append.attempts": self.attempts})
        if self._append is not None:
            self._append.end(at)
        self._span.end(at)

    def spilled(self) -> None:
        """It is on disk and goes to Redis from there, at some time."""
        at = now_ns()
        if self._append is not None:
            self._append.end(at, "not taken")
        self._span.set({"feedmill.append.attempts": self.attempts, "feedmill.spilled": True})
        self._span.end(at)


def begin(shard: str, session: str, n: int, contents: Contents) -> BatchTrace | None:
    """The trace of a batch that is being sealed; None = it is not sampled, or nothing in it came from the venue."""
    if not (contents.frames or contents.rest) or not TRACES.sampled():
        return None
    runs = [run for run in contents.runs if run.kind != RunKind.CONTROL]
    attributes: dict[str, Value] = {
        "feedmill.shard": shard,
        "feedmill.session": session,
        "feedmill.batch": n,
        "feedmill.frames": contents.frames,
        "feedmill.answers": contents.rest,
        "feedmill.bytes": sum(len(frame) for run in runs for frame in run.frames),
        "feedmill.connections": sorted({run.conn for run in runs if run.kind == RunKind.FRAMES}),
    }
    span = TRACES.begin("receive", runs[0].times[0], "producer", attributes)
    span.event("sealed", now_ns())
    return BatchTrace(span)
