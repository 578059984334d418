"""A span per reconcile, where OpenTelemetry is installed and an endpoint is given; nothing is imported otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from feedmill import __version__
from feedmill_operator.config import BadOption
from feedmill_operator.reconcile.queue import Key

Span = Callable[[Key], AbstractContextManager[Any]]
_TIMEOUT = 3.0
"""Seconds for sending spans, retries among them: the process's end waits for the last ones."""


def spans(endpoint: str, instance: str) -> tuple[Span, Callable[[], None]]:
    """(what opens a span, what sends the last ones). ``endpoint``: URL of an OTLP collector over HTTP; empty = none.

    Raises BadOption where OpenTelemetry is not installed.
    """
    if not endpoint:
        return (lambda key: nullcontext()), (lambda: None)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BadOption(
            f"--otlp-endpoint {endpoint}: {error.name} is not installed: "
            'install it (pip install "feedmill[operator,tracing]"), or leave the option out'
        ) from error
    # Each of its tries is told as a warning; that a batch was given up is an error, and enough.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    resource = Resource.create(
        {"service.name": "feedmill-operator", "service.version": __version__, "service.instance.id": instance}
    )
    provider = TracerProvider(resource=resource)
    url = f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT)))
    return opener(provider.get_tracer("feedmill_operator", __version__)), provider.shutdown


def opener(tracer: Any) -> Span:
    """Spans of an OpenTelemetry tracer: one around each reconcile; one that fails is marked with its error."""

    @contextmanager
    def span(key: Key) -> Iterator[None]:
        attributes = {"k8s.namespace.name": key.namespace, "feedmill.kind": key.kind, "feedmill.name": key.name}
        with tracer.start_as_current_span(f"reconcile {key.kind}", attributes=attributes):
            yield

    return span
