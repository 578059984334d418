"""Which batches are traced, what becomes of the spans, and a process in which tracing is off."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY

from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared import otlp, tracing
from feedmill.shared.otlp import Sender
from feedmill.shared.tracing import PER_SECOND, TRACES, Identity, Sampling, Tracing, TracingSettings, TracingUnavailable

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WHO = Identity("receiver", "default/main", "default/btc/0/r0")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last spans are sent however long a busy machine takes for it."""
    monkeypatch.setattr(otlp, "TIMEOUT", 60.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tracing, "monotonic", made)
    return made


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender("http://127.0.0.1:1", "feedmill-test", "x", exporter=Unreachable())
    yield made
    made.close()


class Unreachable(SpanExporter):
    """A collector that is away, or not."""

    def __init__(self) -> None:
        self.away = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE if self.away else SpanExportResult.SUCCESS


class Hanging(SpanExporter):
    """One that does not answer until it is let."""

    def __init__(self) -> None:
        self.asked, self.let = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.let.wait()
        return SpanExportResult.FAILURE


# which batches


def test_nothing_is_sampled_while_it_is_off() -> None:
    off = Tracing()
    assert not off.on
    assert not off.sampled()
    assert not off.rare()


@pytest.mark.parametrize(("percent", "least", "most"), [(0, 0, 0), (10, 100, 300), (100, 2000, 2000)])
def test_the_share_sampled_is_the_one_asked_for(
    percent: int, least: int, most: int, clock: Clock, sender: Sender
) -> None:
    traces = Tracing()
    traces.use(sender, percent)
    found = 0
    for _ in range(2000):
        clock.now += 1.0  # So that the bound of a second plays no part.
        found += traces.sampled()
    assert least <= found <= most


def test_no_more_than_so_many_begin_in_a_second(clock: Clock, sender: Sender) -> None:
    traces = Tracing()
    traces.use(sender, 100)
    assert sum(traces.sampled() for _ in range(5000)) == PER_SECOND
    clock.now += 0.9
    assert not traces.sampled()
    clock.now += 0.1
    assert traces.sampled()


def test_what_is_rare_is_traced_whatever_the_share_unless_it_is_nought(clock: Clock, sender: Sender) -> None:
    traces = Tracing()
    traces.use(sender, 1)
    assert all(traces.rare() for _ in range(PER_SECOND))
    traces.use(sender, 0)
    clock.now += 1.0
    assert not traces.rare()


# spans


def test_a_span_begins_a_trace_or_goes_on_with_one(traced: Any) -> None:
    root = TRACES.begin("receive", 1_000, "producer", {"feedmill.batch": 7, "feedmill.connections": [1, 2]})
    child = root.child("append", 2_000, "client")
    root.event("sealed", 1_500)
    child.end(3_000, "no answer")
    root.end(4_000)
    TRACES.begin("distribute", 5_000, "consumer", {}, PARENT).end(6_000)
    TRACES.begin("store", 7_000, "consumer", {}, "not a traceparent").end(8_000)
    append, receive, distribute, store = traced.spans()
    assert root.traceparent == f"00-{receive.context.trace_id:032x}-{receive.context.span_id:016x}-01"
    assert root.exemplar == {
        "trace_id": f"{receive.context.trace_id:032x}", "span_id": f"{receive.context.span_id:016x}",
    }  # fmt: skip
    assert receive.parent is None
    assert (receive.start_time, receive.end_time, receive.kind) == (1_000, 4_000, SpanKind.PRODUCER)
    assert receive.attributes == {"feedmill.batch": 7, "feedmill.connections": (1, 2)}
    assert [(event.name, event.timestamp) for event in receive.events] == [("sealed", 1_500)]
    assert append.parent.span_id == receive.context.span_id
    assert append.context.trace_id == receive.context.trace_id
    assert (append.status.status_code, append.status.description) == (StatusCode.ERROR, "no answer")
    assert f"{distribute.context.trace_id:032x}" == PARENT[3:35]
    assert f"{distribute.parent.span_id:016x}" == PARENT[36:52]
    assert store.parent is None


def test_a_collector_that_goes_and_comes_is_told_once_each() -> None:
    exporter = Unreachable()
    sender = Sender("http://otel:4318", "feedmill-test", "x", exporter=exporter)
    before = _counts()

    def send() -> None:
        span, _ = sender.begin("x", 1, "internal", None, "")
        span.end(2)
        assert sender._provider.force_flush()

    with structlog.testing.capture_logs() as lines:
        send()
        send()
        exporter.away = False
        send()
        send()
    sender.close()
    assert [(line["event"], line["endpoint"]) for line in lines] == [
        ("tracing.collector_away", "http://otel:4318"),
        ("tracing.collector_back", "http://otel:4318"),
    ]
    assert [now - then for now, then in zip(_counts(), before, strict=True)] == [4, 2]


def test_spans_made_by_other_means_are_counted_too() -> None:
    """As the operator makes them: what was sent is never more than what was made."""
    exporter = Unreachable()
    exporter.away = False
    sender = Sender("http://otel:4318", "feedmill-test", "x", exporter=exporter)
    before = _counts()
    with sender.tracer.start_as_current_span("reconcile"):
        pass
    sender.close()
    assert [now - then for now, then in zip(_counts(), before, strict=True)] == [1, 1]


def _counts() -> list[float]:
    names = ("feedmill_tracing_spans_total", "feedmill_tracing_sent_spans_total")
    return [REGISTRY.get_sample_value(name) or 0.0 for name in names]


def test_a_collector_that_hangs_does_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "TIMEOUT", 0.05)
    exporter = Hanging()
    sender = Sender("http://otel:4318", "feedmill-test", "x", exporter=exporter)
    span, _ = sender.begin("x", 1, "internal", None, "")
    span.end(2)
    sender.close()
    assert exporter.asked.wait(60)
    assert not exporter.let.is_set()
    exporter.let.set()


# what the manifest says


def pipeline(**tracing: Any) -> FeedPipeline:
    return FeedPipeline.model_validate(
        {
            "metadata": {"name": "main"},
            "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}, "monitoring": {"tracing": tracing}}
            if tracing
            else {"redis": {"managed": {}}, "postgres": {"managed": {}}},
        }
    )


def test_settings_are_those_of_the_pipeline() -> None:
    assert TracingSettings.of(pipeline()) is None
    found = TracingSettings.of(pipeline(otlpEndpoint="http://otel:4318", samplingPercent=7))
    assert found == TracingSettings("http://otel:4318", 7)


def test_sampling_is_taken_up_changed_and_ended(collector: Any) -> None:
    url = collector.url
    sampling = Sampling(WHO)
    sampling.start(None)
    assert not TRACES.on
    assert sampling.document() == {"on": False}
    sampling.start(TracingSettings(url + "/", 100))
    assert TRACES.on
    TRACES.begin("receive", 1, "producer").end(2)
    # Another share, the same collector: who sends stays.
    same = TracingSettings(url + "/", 5)
    sender = sampling.prepare(same)
    assert sampling.take_up(same, sender) is None
    assert sampling.document() == {"on": True, "endpoint": url + "/", "samplingPercent": 5}
    unused = sampling.take_up(None, sampling.prepare(None))
    assert unused is sender
    assert not TRACES.on
    assert unused is not None
    unused.close()
    sampling.close()
    (span,) = collector.spans()
    assert (span.service, span.instance, span.name) == ("feedmill-receiver", "default/btc/0/r0", "receive")
    assert b"default/main" in collector.bodies[0]  # service.namespace


def test_without_opentelemetry_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "feedmill.shared.otlp", None)
    with pytest.raises(TracingUnavailable, match=r"spec\.monitoring\.tracing: .* install it .*feedmill\[tracing\]"):
        Sampling(WHO).start(TracingSettings("http://otel:4318", 1))
    assert not TRACES.on


def test_services_load_nothing_of_it_while_tracing_is_off() -> None:
    code = """
import sys
import feedmill.receiver.main, feedmill.distributor.main, feedmill.processor.main, feedmill.pool.main
import feedmill.shared.service, feedmill.shared.reload, feedmill.cli.run
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf", "requests"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
