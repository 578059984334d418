"""Base URLs as people write them: with or without the venue's own path at their end."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit


def join(base: str, known: Sequence[str], path: str) -> str:
    """``base`` without trailing slashes and without the path endings in ``known``, followed by ``path``.

    What a proxy put before them stays, and so does a query: ``wss://p/x/stream?timeUnit=MICROSECOND`` with ``known``
    ``("/stream",)`` and ``path`` ``/stream`` gives itself.
    """
    parts = urlsplit(base)
    own = parts.path.rstrip("/")
    while ending := next((end for end in known if own.endswith(end)), ""):
        own = own[: -len(ending)].rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, own + path, parts.query, ""))
