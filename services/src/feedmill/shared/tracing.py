"""Traces of sampled batches: what a service needs to make spans. OpenTelemetry is loaded only where they are on.

Like the log and the metrics, tracing belongs to the process: :data:`TRACES`. While it is off, a batch costs one look at
``TRACES.on``. Whether a batch is traced is decided once, where its trace begins; who comes later goes on with the
``traceparent`` of the entry and asks nobody. All times are ns since the epoch, UTC.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedmill.shared.clock import monotonic

if TYPE_CHECKING:
    from feedmill.resources.pipeline import FeedPipeline
    from feedmill.shared.otlp import Sender

PER_SECOND = 100
"""Traces a process begins at most: with many small batches a large share of them would cost more than the work."""
Value = str | int | float | bool | Sequence[str] | Sequence[int]
Attributes = Mapping[str, Value]


class TracingUnavailable(ValueError):
    """Traces are asked for and OpenTelemetry is not installed; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where spans go, and of which share of the batches."""

    endpoint: str
    """URL of an OTLP collector over HTTP, without ``/v1/traces``."""
    percent: int

    @classmethod
    def of(cls, pipeline: FeedPipeline) -> TracingSettings | None:
        """None = the pipeline has no tracing."""
        wanted = pipeline.spec.monitoring.tracing
        return None if wanted is None else cls(wanted.otlp_endpoint, wanted.sampling_percent)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes the spans, as their resource tells it."""

    service: str
    """Role, such as receiver."""
    pipeline: str
    """namespace/name."""
    instance: str
    """Which one of its role, such as default/btc/0/r0."""


class Span:
    """One span that is not ended yet."""

    __slots__ = ("_sender", "_span", "trace_id", "traceparent")

    def __init__(self, sender: Sender, span: Any, traceparent: str) -> None:
        self._sender = sender
        self._span = span
        self.traceparent = traceparent
        self.trace_id = traceparent[3:35]

    @property
    def exemplar(self) -> dict[str, str]:
        """Labels of an exemplar of a Prometheus histogram."""
        return {"trace_id": self.trace_id, "span_id": self.traceparent[36:52]}

    def child(self, name: str, start_ns: int, kind: str = "internal", attributes: Attributes | None = None) -> Span:
        return Span(self._sender, *self._sender.begin(name, start_ns, kind, attributes, self.traceparent))

    def event(self, name: str, at_ns: int, attributes: Attributes | None = None) -> None:
        """Something that happened at one moment."""
        self._span.add_event(name, attributes, at_ns)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, at_ns: int, error: str = "") -> None:
        """``error``: why it failed, without secrets."""
        if error:
            self._sender.mark_failed(self._span, error)
        self._span.end(at_ns)


class Tracing:
    """What one process traces. Off until it is given a sender."""

    __slots__ = ("_begun", "_percent", "_second", "_sender", "on")

    def __init__(self) -> None:
        self.on = False
        """Whether spans are made."""
        self._percent = 0.0
        self._sender: Sender | None = None
        self._second = 0.0
        self._begun = 0

    def use(self, sender: Sender | None, percent: float) -> None:
        """Send spans there from now on; None = make none."""
        self._sender, self._percent = sender, percent
        self.on = sender is not None

    def sampled(self) -> bool:
        """Whether the batch at hand is to be traced."""
        return self.on and random.random() * 100 < self._percent and self._may_begin()

    def rare(self) -> bool:
        """The same for what happens seldom and is always worth a trace, such as a gap being filled."""
        return self.on and self._percent > 0 and self._may_begin()

    def _may_begin(self) -> bool:
        now = monotonic()
        if now - self._second >= 1.0:
            self._second, self._begun = now, 0
        self._begun += 1
        return self._begun <= PER_SECOND

    def begin(
        self, name: str, start_ns: int, kind: str = "internal", attributes: Attributes | None = None, parent: str = ""
    ) -> Span:
        """A span. ``kind``: internal, producer, consumer or client; ``parent``: a ``traceparent``, anything else = the
        span begins a trace. To be called while tracing is ``on``."""
        assert self._sender is not None
        return Span(self._sender, *self._sender.begin(name, start_ns, kind, attributes, parent))


TRACES = Tracing()
"""Of this process."""


_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def check_installed() -> None:
    """Whether OpenTelemetry is there, without loading it. Raises TracingUnavailable."""
    for name in _NEEDED:
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            found = None
        if found is None:
            raise _unavailable(name)


def load() -> None:
    """Load OpenTelemetry, which takes a while. Raises TracingUnavailable."""
    try:
        import feedmill.shared.otlp  # noqa: F401
    except ImportError as error:
        raise _unavailable(error.name) from error


def _unavailable(name: str | None) -> TracingUnavailable:
    return TracingUnavailable(
        f"spec.monitoring.tracing: {name} is not installed: install it (pip install 'feedmill[tracing]'),"
        " or leave tracing out"
    )


class Sampling:
    """What the manifests say of tracing, carried out in this process."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._settings: TracingSettings | None = None
        self._sender: Sender | None = None

    def start(self, wanted: TracingSettings | None) -> None:
        """Before the event loop begins. Raises TracingUnavailable."""
        self.take_up(wanted, self.prepare(wanted))

    def prepare(self, wanted: TracingSettings | None) -> Sender | None:
        """What sends the spans; the one there is where it still does. Blocks. Raises TracingUnavailable."""
        if wanted is None:
            return None
        if self._settings is not None and self._settings.endpoint == wanted.endpoint:
            return self._sender
        load()
        from feedmill.shared.otlp import Sender

        who = self._identity
        return Sender(wanted.endpoint, f"feedmill-{who.service}", who.instance, who.pipeline)

    def take_up(self, wanted: TracingSettings | None, sender: Sender | None) -> Sender | None:
        """Trace so from now on. Answers a sender that is no longer used: close it in a thread."""
        before, self._sender, self._settings = self._sender, sender, wanted
        TRACES.use(sender, wanted.percent if wanted is not None else 0)
        return before if before is not sender else None

    def close(self) -> None:
        """Send what waits, for a few seconds at most. Blocks."""
        if (sender := self.take_up(None, None)) is not None:
            sender.close()

    def document(self) -> dict[str, Any]:
        """The section ``tracing`` of ``/health``."""
        wanted = self._settings
        if wanted is None:
            return {"on": False}
        return {"on": TRACES.on, "endpoint": wanted.endpoint, "samplingPercent": wanted.percent}
