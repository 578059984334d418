"""Spans to an OTLP collector over HTTP, by OpenTelemetry. Imported only where traces are on.

Spans wait in a bounded queue and are sent by a thread of their own: a collector that is away costs spans and nothing
else. What was made and not sent is what is lost.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from prometheus_client import Counter

from feedmill import __version__
from feedmill.shared import log
from feedmill.shared.traceparent import join, split
from feedmill.shared.tracing import Attributes

TIMEOUT = 3.0
"""Seconds for sending spans, retries among them: the process's end waits for the last ones."""
QUEUE, AT_ONCE = 2048, 512
"""Spans that wait at most, and that one request has at most."""
EVERY_MS = 1000
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

made = Counter("feedmill_tracing_spans_total", "Spans made.")
sent = Counter("feedmill_tracing_sent_spans_total", "Spans that the collector took.")


class Sender:
    """Makes spans and sends them."""

    def __init__(
        self, endpoint: str, service: str, instance: str, namespace: str = "", *, exporter: SpanExporter | None = None
    ) -> None:
        """``endpoint``: without ``/v1/traces``; headers and certificates are those of ``OTEL_EXPORTER_OTLP_*``.
        ``exporter``: another one than by HTTP to there."""
        # Each of its tries is told as a warning, each batch given up as an error: we tell of both once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        named = {"service.name": service, "service.version": __version__, "service.instance.id": instance}
        named |= {"host.name": socket.gethostname()}
        if namespace:
            named["service.namespace"] = namespace
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        by_http = exporter or OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT)
        self._provider.add_span_processor(
            _Queue(
                _Told(by_http, endpoint),
                max_queue_size=QUEUE,
                max_export_batch_size=AT_ONCE,
                schedule_delay_millis=EVERY_MS,
                export_timeout_millis=TIMEOUT * 1000,
            )
        )
        self.tracer = self._provider.get_tracer("feedmill", __version__)

    def begin(self, name: str, start_ns: int, kind: str, attributes: Attributes | None, parent: str) -> tuple[Any, str]:
        """(span, its ``traceparent``)."""
        context = None
        above = split(parent)
        if above is not None:
            context = set_span_in_context(NonRecordingSpan(SpanContext(*above, is_remote=True, trace_flags=_SAMPLED)))
        span = self.tracer.start_span(name, context, _KINDS[kind], attributes, start_time=start_ns)
        own = span.get_span_context()
        return span, join(own.trace_id, own.span_id)

    def mark_failed(self, span: Any, error: str) -> None:
        span.set_status(Status(StatusCode.ERROR, log.redact(error)[:300]))

    def close(self) -> None:
        """Send what waits, for ``TIMEOUT`` seconds at most. Blocks: call it in a thread, or when the loop has ended."""
        # OpenTelemetry's own end has each request try for that long.
        end = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        end.start()
        end.join(TIMEOUT)


class _Queue(BatchSpanProcessor):
    """Counts every span, also those that the operator makes by OpenTelemetry's own means."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        super().on_start(span, parent_context)
        made.inc()


class _Told(SpanExporter):
    """Counts what became of the spans, and tells when the collector goes away and comes back."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            result, why = SpanExportResult.FAILURE, type(error).__name__
        else:
            why = "the collector does not take them"
        away = result is not SpanExportResult.SUCCESS
        if not away:
            sent.inc(len(spans))
        if away and not self._away:
            log.get_logger().warning(
                "tracing.collector_away", endpoint=self._endpoint, reason=why, effect="spans are lost, nothing else is"
            )
        elif self._away and not away:
            log.get_logger().info("tracing.collector_back", endpoint=self._endpoint)
        self._away = away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))
