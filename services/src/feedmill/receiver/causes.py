"""Why a connection could not be made, in words for people and a short stable cause for metrics."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from picows import WSError, WSHandshakeError


@dataclass(frozen=True, slots=True)
class ConnectFailure:
    """``cause``: dns | tls | refused | timeout | rate_limited | http_<status> | handshake | network | internal."""

    host: str
    cause: str
    detail: str
    retry_after: float | None = None
    """Seconds the server asked to wait (HTTP 429 and 418)."""

    def __str__(self) -> str:
        return f"{self.host}: {self.cause}: {self.detail}"


def host_of(url: str) -> str:
    """``host:port`` of a URL: never its path, query or credentials, which may be secrets."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname or '?'}:{port or (443 if parts.scheme in ('wss', 'https') else 80)}"


def explain(url: str, error: BaseException) -> ConnectFailure:
    """Name what went wrong. Never repeats the URL."""
    host = host_of(url)
    if isinstance(error, WSHandshakeError):
        response = error.response
        if response is not None and int(response.status) != 101:
            status = int(response.status)
            detail = f"the server answered HTTP {status} to the WebSocket handshake"
            wait = retry_after(response.headers)
            if status in (418, 429):
                return ConnectFailure(host, "rate_limited", detail, wait)
            return ConnectFailure(host, f"http_{status}", detail, wait)
        return ConnectFailure(host, "handshake", str(error)[:160])
    if isinstance(error, WSError):
        return ConnectFailure(host, "handshake", str(error)[:160])
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        return ConnectFailure(host, "tls", str(said)[:160])
    if isinstance(error, socket.gaierror):
        return ConnectFailure(host, "dns", f"the name cannot be resolved ({error.strerror})")
    if isinstance(error, ConnectionRefusedError):
        return ConnectFailure(host, "refused", "nothing accepts connections there")
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return ConnectFailure(host, "timeout", "no answer in time")
    if isinstance(error, OSError):
        text = str(error)
        cause = "refused" if "111" in text or "refused" in text.lower() else "network"
        return ConnectFailure(host, cause, (text or type(error).__name__)[:160])
    return ConnectFailure(host, "internal", f"{type(error).__name__}: {error}"[:160])


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds from a ``Retry-After`` header; None when there is none or it is a date."""
    if headers is None:
        return None
    for key, value in headers.items():
        if key.lower() == "retry-after":
            try:
                return max(0.0, float(value))
            except ValueError:
                return None
    return None
