"""Structured logs: JSON lines (or readable lines on a terminal), secrets redacted, written off the event loop."""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import queue
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

REDACTED = "[redacted]"
_secrets: set[str] = set()
_userinfo = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s:@]*):(?P<password>[^/\s@]+)@", re.IGNORECASE)
_signed = re.compile(
    r"(?P<key>\b(?:signature|listenKey|access_token|refresh_token|client_secret|apiKey|token)=)[^&\s\"']+"
)


def register_secret(value: str) -> None:
    """From now on ``value`` is replaced wherever a log line would show it (short values are not registered)."""
    if len(value) >= 6:
        _secrets.add(value)


def redact(text: str) -> str:
    """Text without registered secrets, passwords in URLs and signed query values."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    text = _userinfo.sub(lambda m: f"{m['scheme']}{m['user']}:{REDACTED}@", text)
    return _signed.sub(lambda m: m["key"] + REDACTED, text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    return redact(str(value))


def redact_processor(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _clean(value)
    return event


def configure(service: str, *, level: str = "info", json: bool | None = None, stream: Any = None) -> None:
    """Set up structlog for this process. ``json`` defaults to: not on a terminal."""
    out = stream or sys.stderr
    as_json = json if json is not None else not out.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # A bounded queue and its own thread: a slow terminal or disk never holds the event loop.
    lines: queue.Queue[logging.LogRecord] = queue.Queue(10_000)
    listener = logging.handlers.QueueListener(lines, handler)
    listener.start()
    atexit.register(listener.stop)
    root = logging.getLogger()
    root.handlers = [_DroppingQueueHandler(lines)]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp.access", "alembic.runtime.plugins"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact_processor,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Never blocks the loop: a full queue drops the line (the queue holds 10,000)."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            pass


def get_logger(**bind: Any) -> Any:
    return structlog.get_logger(**bind)
