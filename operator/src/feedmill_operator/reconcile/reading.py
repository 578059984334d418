"""Reading what processes say: whatever is missing or of another form is unknown, and no secret comes through. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedmill.shared.log import redact

LONGEST = 200


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def words(value: Any, longest: int = LONGEST) -> str:
    """One line, at most so long."""
    if not isinstance(value, str):
        return ""
    text = " ".join(redact(value).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
