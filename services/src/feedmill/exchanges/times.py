"""Exchange times as integers, and field types that keep what follows inside 63 bits."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_MS = 9_223_372_036_854
"""The last ms that still fits in 63 bits as ns (the year 2262). What is larger can only be µs."""

Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""An id: PostgreSQL's bigint and MessagePack hold no more, so a larger one is refused in the mapper."""

Time = Annotated[int, Meta(ge=0, le=9_223_372_036_854_775)]
"""ms or µs since the epoch."""


def to_ns(time: int) -> int:
    """ms or µs (told apart by magnitude) -> ns."""
    return time * 1_000_000 if time <= MAX_MS else time * 1_000
