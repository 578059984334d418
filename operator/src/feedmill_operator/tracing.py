"""A span per reconcile, where OpenTelemetry is installed and an endpoint is given; nothing is imported otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from feedmill_operator.config import BadOption
from feedmill_operator.reconcile.queue import Key

Span = Callable[[Key], AbstractContextManager[Any]]


def spans(endpoint: str, instance: str) -> tuple[Span, Callable[[], None]]:
    """(what opens a span, what sends the last ones). ``endpoint``: URL of an OTLP collector over HTTP; empty = none.

    Raises BadOption where OpenTelemetry is not installed.
    """
    if not endpoint:
        return (lambda key: nullcontext()), (lambda: None)
    try:
        from feedmill.shared.otlp import Sender
    except ImportError as error:
        raise BadOption(
            f"--otlp-endpoint {endpoint}: {error.name} is not installed: "
            'install it (pip install "feedmill[operator,tracing]"), or leave the option out'
        ) from error
    sender = Sender(endpoint, "feedmill-operator", instance)
    return opener(sender.tracer), sender.close


def opener(tracer: Any) -> Span:
    """Spans of an OpenTelemetry tracer: one around each reconcile; one that fails is marked with its error."""

    @contextmanager
    def span(key: Key) -> Iterator[None]:
        attributes = {"k8s.namespace.name": key.namespace, "feedmill.kind": key.kind, "feedmill.name": key.name}
        with tracer.start_as_current_span(f"reconcile {key.kind}", attributes=attributes):
            yield

    return span
