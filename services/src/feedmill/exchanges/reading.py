"""Small readers every venue shares: decoding failures as MapErrors, ids of answers, Retry-After."""

from __future__ import annotations

import re

import msgspec

from feedmill.exchanges.base import MapError
from feedmill.shared.log import redact


def map_error(error: Exception) -> MapError:
    """What a decoder raised, as bad_json | bad_text | not_an_object | missing_field | bad_field."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return MapError("bad_text", text)
    if not isinstance(error, msgspec.ValidationError):
        return MapError("bad_json", text)
    if "missing required field" in text:
        return MapError("missing_field", text)
    if text.startswith("Expected `object`") and " - at" not in text:
        return MapError("not_an_object", text)
    return MapError("bad_field", text)


DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes it cannot read."""


def request_id(value: object) -> int | None:
    """The id of a request of ours: a number, also where the venue echoes it as text."""
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def seconds(text: str, default: float) -> float:
    """A Retry-After header; ``default`` where it is absent or no plain number of seconds."""
    return float(text) if text.isascii() and text.isdigit() else default


_LONG = re.compile(r"[A-Za-z0-9+/=_-]{16,}")
_LOOKED_AT = 10_000


def safe_text(text: str) -> str:
    """A venue's message, short, without anything that may be a key or a signature: some repeat what they were sent.

    Short keys (Deribit's client ids) are known by being registered. What is left is cut last: half a key is one too.
    """
    return _LONG.sub("...", redact(text[:_LOOKED_AT]))[:200]
