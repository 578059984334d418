"""Structured logs: JSON lines (or readable lines on a terminal), secrets redacted, written off the event loop."""

from __future__ import annotations

import atexit
import copy
import functools
import logging
import logging.handlers
import queue
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from feedmill.shared.lean import import_without

if TYPE_CHECKING:
    import structlog
else:
    structlog = import_without("structlog", "rich", "better_exceptions")

REDACTED = "[redacted]"
_secrets: list[str] = []
"""The longest first: one that contains another must not be left half shown."""
_userinfo = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s:@]*):(?P<password>(?!password@)[^/\s\"']+)@", re.IGNORECASE
)
"""user:password@ as a message shows the form of a URL stays."""
_NAMES = "signature|listenKey|access_token|refresh_token|client_secret|apiKey|token|password"
_signed = re.compile(rf"(?P<key>\b(?:{_NAMES})=)[^&\s\"']+")
_quoted = re.compile(rf"(?P<key>[\"'](?:{_NAMES})[\"']:\s*)(?P<quote>[\"'])(?:(?!(?P=quote)).)*(?P=quote)")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_threshold = 20
"""Least level of the lines written; see :func:`set_level`."""
_OURS = "feedmill"
"""Logger of lines that structlog has rendered already."""


def register_secret(value: str) -> None:
    """From now on ``value`` is replaced wherever a log line would show it (short values are not registered)."""
    if len(value) >= 6 and value not in _secrets:
        _secrets.append(value)
        _secrets.sort(key=len, reverse=True)


def redact(text: str) -> str:
    """Text without registered secrets, passwords in URLs and values of signed queries and login messages."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    text = _userinfo.sub(lambda m: f"{m['scheme']}{m['user']}:{REDACTED}@", text)
    text = _signed.sub(lambda m: m["key"] + REDACTED, text)
    return _quoted.sub(lambda m: m["key"] + m["quote"] + REDACTED + m["quote"], text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, dict):
        return {redact(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    return redact(str(value))


def redact_processor(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _clean(value)
    return event


def configure(service: str, *, level: str = "info", json: bool | None = None, stream: Any = None) -> Callable[[], None]:
    """Set up structlog for this process. ``json`` defaults to: not on a terminal.

    Returns what writes out the queued lines and ends the writing; it is called at the process's exit anyway.
    """
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
    finish = functools.cache(listener.stop)  # once: a second stop() fails on Python 3.11
    atexit.register(finish)
    root = logging.getLogger()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact_processor,
        renderer,
    ]
    root.handlers = [_DroppingQueueHandler(lines, processors)]
    set_level(level)
    for noisy in ("asyncio", "aiohttp.access", "alembic.runtime.plugins"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[_drop_below, *processors],
        # The wrapper's level is fixed when a logger is bound: what may change is the processor's.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: logging.getLogger(_OURS),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)
    return finish


def set_level(level: str) -> None:
    """From now on lines below ``level`` (debug, info, warning, error) are dropped, of all loggers there are."""
    global _threshold
    _threshold = _LEVELS[level]
    logging.getLogger().setLevel(_threshold)


def _drop_below(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _LEVELS.get(method, 50) < _threshold:
        raise structlog.DropEvent
    return event


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Never blocks the loop: a full queue drops the line (the queue holds 10,000).

    What libraries log (asyncio's "exception was never retrieved", aiohttp) takes the same form, and is redacted alike.
    """

    def __init__(self, lines: queue.Queue[logging.LogRecord], processors: list[Any]) -> None:
        super().__init__(lines)
        self._processors = processors

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        text: Any = record.getMessage()
        if record.name != _OURS:
            event: Any = {"event": text, "logger": record.name}
            if record.exc_info and record.exc_info[0] is not None:
                event["exc_info"] = record.exc_info
            for process in self._processors:
                event = process(None, record.levelname.lower(), event)
            text = event
        done = copy.copy(record)
        done.msg, done.args, done.exc_info, done.exc_text, done.stack_info = text, None, None, None, None
        return done

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            pass


def get_logger(**bind: Any) -> Any:
    return structlog.get_logger(**bind)
