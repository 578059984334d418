"""Ids of stream entries."""

from __future__ import annotations

BEGIN = "0-0"
"""Before the first entry of any stream."""


def id_of(stream_id: str) -> tuple[int, int]:
    """A stream entry's id (``ms-number``) as numbers, for comparison."""
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number or 0)
