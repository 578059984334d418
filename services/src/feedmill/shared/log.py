"""Structured logs: JSON lines (or readable lines on a terminal), secrets redacted, written off the event loop."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import io
import logging
import logging.handlers
import os
import queue
import re
import select
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from json import dumps as json_text
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from feedmill.shared.lean import import_without
from feedmill.shared.log_repeats import Repeats

if TYPE_CHECKING:
    import structlog
else:
    structlog = import_without("structlog", "rich", "better_exceptions", "greenlet")

REDACTED = "[redacted]"
_secrets: list[str] = []
"""The longest first: one that contains another must not be left half shown."""
_userinfo = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s:@]*):(?P<password>(?!password@)[^/\s\"']+)@", re.IGNORECASE
)
"""user:password@ as a message shows the form of a URL stays."""
_HEADERS = "X-MBX-APIKEY|(?:Proxy-)?Authorization"
_NAMES = (
    "(?:client_)?signature|listen_?key|(?:access_|refresh_|listen_?)?token|(?:api|client|secret|private)_?(?:key|secret)|"
    f"secret|passphrase|password|{_HEADERS}"
)
_HINTS = ("://", "/ws/", "signature", "key", "token", "secret", "passphrase", "password", "authorization")
"""A text without any of them is left alone: searching by the patterns below is dear."""
_HIDDEN = rf"(?![\"'\\]{{0,5}}{re.escape(REDACTED)})"
"""Not where something stands hidden already."""
_signed = re.compile(
    rf"(?P<key>(?:\b|(?<=%26|%3F))(?:{_NAMES})(?:=|%3D)(?:b?[\"'])?){_HIDDEN}[^&\s\"']+", re.IGNORECASE
)


def _pair(names: str, between: str) -> re.Pattern[str]:
    """A quoted name and its quoted value, also where the quotes are escaped (JSON within a text)."""
    return re.compile(
        rf"(?P<key>b?(?P<mark>\\{{0,4}}[\"'])(?:{names})(?P=mark)\s*{between}\s*b?)"
        rf"(?P<quote>\\{{0,4}}[\"']){_HIDDEN}(?:(?!(?P=quote)).)*(?P=quote)",
        re.IGNORECASE | re.DOTALL,
    )


_quoted = _pair(_NAMES, ":")
_listed = _pair(_HEADERS, ",")
"""Of a list of headers: (b'Authorization', b'...')."""
_header = re.compile(
    rf"(?P<key>\b(?:X-MBX-APIKEY|(?:Proxy-)?Authorization):[ \t]*(?:(?:Bearer|Basic)[ \t]+)?){_HIDDEN}[^\s\"',]+",
    re.IGNORECASE,
)
_path = re.compile(r"(?P<key>/ws/)[A-Za-z0-9]{40,}")
"""A listen key as Binance takes it, in the path."""
_pem = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_threshold = 20
"""Least level of the lines written; see :func:`set_level`."""
QUEUE = 10_000
"""Lines that wait to be written; more are dropped and counted."""
FINISH = 2.0
"""Seconds that a process that ends gives to whoever reads its lines."""
_OURS = "feedmill"
"""Logger of lines that structlog has rendered already."""


def register_secret(value: str) -> None:
    """From now on ``value`` is replaced wherever a log line would show it (short values are not registered).

    So are its forms in URLs and in JSON, and each line of one that has several (a PEM text).
    """
    forms = {value, quote(value, safe=""), quote_plus(value), json_text(value)[1:-1], json_text(json_text(value))[3:-3]}
    forms |= {line.strip() for line in value.splitlines() if not line.startswith("-----")}
    known = set(_secrets)
    _secrets.extend(form for form in forms if len(form) >= 6 and form not in known)
    _secrets.sort(key=len, reverse=True)


def redact(text: str) -> str:
    """Text without registered secrets, passwords in URLs, values of signed queries, login messages and headers."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    lower = text.lower()
    if not any(word in lower for word in _HINTS):
        return text
    text = _userinfo.sub(lambda m: f"{m['scheme']}{m['user']}:{REDACTED}@", text)
    text = _pem.sub(REDACTED, text)
    text = _path.sub(lambda m: m["key"] + REDACTED, text)
    text = _header.sub(lambda m: m["key"] + REDACTED, text)
    text = _signed.sub(lambda m: m["key"] + REDACTED, text)
    for pair in (_quoted, _listed):
        text = pair.sub(lambda m: m["key"] + m["quote"] + REDACTED + m["quote"], text)
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, dict):
        return {redact(str(key)): REDACTED if _secret_name(key) else _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    return redact(str(value))


_secret = re.compile(_NAMES, re.IGNORECASE)


def _secret_name(name: object) -> bool:
    """Whether what stands under this name is hidden whatever it is."""
    return _secret.fullmatch(name.decode("latin1") if isinstance(name, bytes) else str(name)) is not None


def redact_processor(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = REDACTED if _secret_name(key) else _clean(value)
    return event


def configure(
    service: str, *, level: str = "info", json: bool | None = None, stream: Any = None, instance: str = ""
) -> Callable[[], None]:
    """Set up structlog for this process. ``json`` defaults to: not on a terminal. ``instance``: which one of its
    service it is, named in each line, and by its traces too.

    Returns what writes out the queued lines and ends the writing; it is called at the process's exit anyway.
    """
    out = stream or sys.stderr
    as_json = json if json is not None else not out.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    handler = _writer_to(out)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # A bounded queue and its own thread: a slow terminal or disk never holds the event loop.
    lines: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE)
    rendering: list[Any] = [
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact_processor,
        renderer,
    ]
    limiter = _Limiter(lines, rendering)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        limiter,
        *rendering,
    ]
    listener = _Listener(lines, handler, limiter)
    listener.start()
    finish = functools.cache(listener.stop)  # once: a second stop() fails on Python 3.11
    atexit.register(finish)
    root = logging.getLogger()
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
    structlog.contextvars.bind_contextvars(service=service, **({"instance": instance} if instance else {}))
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


def _writer_to(out: Any) -> logging.Handler:
    try:
        return _Descriptor(out.fileno())
    except (AttributeError, OSError, io.UnsupportedOperation):
        return _Stream(out)


class _Descriptor(logging.Handler):
    """Writes to a file descriptor, past Python's own buffer and its lock: while a reader that stopped holds the writing
    thread, the process can end all the same."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def createLock(self) -> None:
        self.lock = None  # One thread writes, and logging's own end must not wait for it.

    def emit(self, record: logging.LogRecord) -> None:
        data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        try:
            while data:
                try:
                    data = data[os.write(self._number, data) :]
                except BlockingIOError:
                    select.select([], [self._number], [])
        except OSError:
            pass  # The reader is gone: there is nobody to tell.


class _Stream(logging.StreamHandler[Any]):
    """Writes to what is no file."""

    def handleError(self, record: logging.LogRecord) -> None:
        # Of one that is closed there is nobody to tell: not those either who read standard error by now.
        if not getattr(self.stream, "closed", False):
            super().handleError(record)


_WAKE = logging.makeLogRecord({})
"""Tells the writing thread that there is something to be looked after in a while."""
LOOK_AFTER = 1.0
"""Seconds between two looks for lines that were left out and have their turn."""


class _Limiter:
    """Leaves out lines that repeat what others just said (:mod:`feedmill.shared.log_repeats`): a step before rendering
    them."""

    def __init__(self, lines: queue.Queue[logging.LogRecord], rendering: list[Any]) -> None:
        self._repeats = Repeats()
        self._lock = threading.Lock()
        self._lines = lines
        self._rendering = rendering

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        global repeated_lines
        level = str(event.get("level", ""))
        if level == "debug":
            return event
        line = dict(event)
        error = _raised(line.pop("exc_info", None))
        if error is not None:
            # Without the frames: a line may be kept for a while.
            line["exception"] = f"{type(error).__name__}: {error}"
        with self._lock:
            waited = self._repeats.waiting
            before = self._repeats.admit(level, line, time.monotonic())
        if before is None:
            repeated_lines += 1
            if not waited:
                with contextlib.suppress(queue.Full):  # Then the thread is awake.
                    self._lines.put_nowait(_WAKE)
            raise structlog.DropEvent
        if before:
            event["repeated"] = before
        return event

    @property
    def waiting(self) -> bool:
        return self._repeats.waiting

    def tell(self, *, everything: bool = False) -> None:
        """Put lines that have their turn into the queue."""
        with self._lock:
            due: list[Any] = list(self._repeats.due(time.monotonic(), everything=everything))
        for event in due:
            for process in self._rendering:
                event = process(None, str(event["level"]) if isinstance(event, dict) else "", event)
            _enqueue(self._lines, logging.makeLogRecord({"name": _OURS, "msg": event}))


def _raised(exc_info: object) -> object:
    """The error that ``exc_info`` of a line stands for."""
    if not exc_info or isinstance(exc_info, BaseException):
        return exc_info or None
    return exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1]


class _Listener(logging.handlers.QueueListener):
    """Ends within ``FINISH`` seconds, also when nobody reads what it writes."""

    def __init__(self, lines: queue.Queue[logging.LogRecord], handler: logging.Handler, limiter: _Limiter) -> None:
        super().__init__(lines, handler)
        self._lines = lines
        self._limiter = limiter
        self._looked = 0.0

    def dequeue(self, block: bool) -> logging.LogRecord:
        while True:
            if self._limiter.waiting and time.monotonic() - self._looked >= LOOK_AFTER:
                self._looked = time.monotonic()
                self._limiter.tell()
            try:
                record = self._lines.get(block, LOOK_AFTER if self._limiter.waiting else None)
            except queue.Empty:
                continue
            if record is not _WAKE:
                return record

    def stop(self) -> None:
        self._limiter.tell(everything=True)
        thread, self._thread = self._thread, None
        until = time.monotonic() + FINISH
        while thread is not None:
            try:
                self.enqueue_sentinel()
            except queue.Full:
                if time.monotonic() >= until:
                    return
                time.sleep(0.01)
            else:
                thread.join(max(0.0, until - time.monotonic()))
                return


dropped_lines = 0
"""Since the process began: nobody read the ones before."""
repeated_lines = 0
"""The same: they were left out, since they repeated what others just said."""


def _enqueue(lines: queue.Queue[logging.LogRecord], record: logging.LogRecord) -> None:
    """Never blocks the loop: a full queue (``QUEUE``) drops the line."""
    global dropped_lines
    try:
        lines.put_nowait(record)
    except queue.Full:
        dropped_lines += 1


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """What libraries log (asyncio's "exception was never retrieved", aiohttp) takes the same form, and is redacted and
    limited alike."""

    def __init__(self, lines: queue.Queue[logging.LogRecord], processors: list[Any]) -> None:
        super().__init__(lines)
        self._lines = lines
        self._processors = processors

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.enqueue(self.prepare(record))
        except structlog.DropEvent:
            pass
        except Exception:
            self.handleError(record)

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
        _enqueue(self._lines, record)


def get_logger(**bind: Any) -> Any:
    return structlog.get_logger(**bind)
