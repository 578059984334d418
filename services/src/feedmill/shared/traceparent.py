"""W3C trace context as it stands in the entries of the streams: of sampled batches only. Pure."""

from __future__ import annotations

import re

import msgspec

MOST = 16
"""Traces that one commit or transaction goes on with; what more there are end before it."""
_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class TraceRef(msgspec.Struct, array_like=True, frozen=True):
    """A trace that an events entry goes on with, and when what it follows happened. Times in ns, 0 = not known."""

    parent: str
    """``traceparent`` of the span that wrote the entry."""
    exchange_ns: int = 0
    """Exchange time of the oldest event of the traced batch."""
    receive_ns: int = 0
    """Receive time of the oldest event of the traced batch."""


def split(traceparent: str) -> tuple[int, int] | None:
    """(trace id, span id); None for what is no traceparent: what stands in a stream may be anything."""
    if not _FORM.fullmatch(traceparent):
        return None
    return int(traceparent[3:35], 16), int(traceparent[36:52], 16)


def join(trace_id: int, span_id: int) -> str:
    """The ``traceparent`` of a sampled span."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"


def trace_id(traceparent: str) -> str:
    """As people look for it. Empty for what is no traceparent."""
    return traceparent[3:35] if _FORM.fullmatch(traceparent) else ""
