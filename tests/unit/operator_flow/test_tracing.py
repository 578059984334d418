"""Spans: one a reconcile, sent where the user says; and an operator without OpenTelemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop
from aiohttp import web
from flow_world import FEED_TEXT, PIPELINE_TEXT, World
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from feedmill import __version__
from feedmill.shared import otlp
from feedmill_operator import tracing
from feedmill_operator.config import BadOption
from feedmill_operator.kube.api import ApiError
from feedmill_operator.reconcile.queue import Key


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(memory: InMemorySpanExporter) -> AsyncIterator[World]:
    """An operator whose spans are kept in memory."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    made = World(span=tracing.opener(provider.get_tracer("test")))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def told(span: ReadableSpan) -> tuple[Any, ...]:
    assert span.attributes is not None
    names = ("feedmill.kind", "k8s.namespace.name", "feedmill.name")
    return (span.name, *(span.attributes[name] for name in names))


async def test_each_reconcile_is_a_span(traced: World, memory: InMemorySpanExporter) -> None:
    await traced.secret()
    await traced.make(PIPELINE_TEXT)
    await traced.make(FEED_TEXT)
    await traced.settle()
    spans = memory.get_finished_spans()
    assert {told(span) for span in spans} == {
        ("reconcile FeedPipeline", "FeedPipeline", "ns", "main"),
        ("reconcile ExchangeFeed", "ExchangeFeed", "ns", "btc"),
    }
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    memory.clear()
    traced.controller.queue.add(Key("ExchangeFeed", "ns", "btc"))
    await traced.settle(1)
    assert len(memory.get_finished_spans()) == 1


async def test_one_that_fails_is_marked_with_its_error(traced: World, memory: InMemorySpanExporter) -> None:
    traced.api.fail["get", "btc"] = [ApiError(503, "ServiceUnavailable", "etcd is away")]
    await traced.make(FEED_TEXT)
    await traced.settle()
    first, *others = memory.get_finished_spans()
    assert first.status.status_code is StatusCode.ERROR
    assert "etcd is away" in str(first.status.description)
    assert [event.name for event in first.events] == ["exception"]
    assert others
    assert {span.status.status_code for span in others} == {StatusCode.UNSET}


def test_spans_are_sent_to_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """By HTTP to a real server, the last ones when the operator ends."""
    monkeypatch.setattr(otlp, "TIMEOUT", 60.0)  # A busy machine may take longer than an operator that ends.
    requests: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        requests.append((request.path, await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            port = runner.addresses[0][1]
            span, finish = tracing.spans(f"http://127.0.0.1:{port}/", "pod-1")
            with span(Key("ExchangeFeed", "ns", "btc")):
                pass
            await asyncio.to_thread(finish)
        finally:
            await runner.cleanup()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    ((path, body),) = requests
    assert path == "/v1/traces"
    sent = ExportTraceServiceRequest.FromString(body)
    (resource,) = sent.resource_spans
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes["service.name"] == "feedmill-operator"
    assert attributes["service.version"] == __version__
    assert attributes["service.instance.id"] == "pod-1"
    (span,) = resource.scope_spans[0].spans
    assert span.name == "reconcile ExchangeFeed"
    assert {each.key: each.value.string_value for each in span.attributes}["feedmill.name"] == "btc"


def test_without_an_endpoint_there_are_none_and_nothing_is_imported() -> None:
    code = """
import sys
sys.modules.update({"opentelemetry": None, "opentelemetry.sdk": None})
from feedmill_operator import main, tracing
from feedmill_operator.reconcile.queue import Key
span, finish = tracing.spans("", "me")
with span(Key("ExchangeFeed", "ns", "btc")):
    print("worked")
finish()
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.", "google.protobuf"))
             and sys.modules[name] is not None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["worked", "[]"]


def test_an_endpoint_without_the_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "feedmill.shared.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(BadOption) as error:
        tracing.spans("http://otel:4318", "me")
    assert "--otlp-endpoint http://otel:4318" in str(error.value)
    assert "feedmill[operator,tracing]" in str(error.value)
