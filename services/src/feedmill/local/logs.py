"""What a service writes: kept in a bounded file, its last error remembered, passed on where asked."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from feedmill.shared.log import redact

MAX_BYTES = 8 << 20
"""Of one log file; one older file is kept beside it (``.log.1``)."""
_ERRORS = frozenset({"error", "critical", "exception"})
_HIDDEN = frozenset({"service", "instance", "timestamp", "level", "event", "exception"})
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

Echo = Callable[[str, str], None]
"""(service, readable line)."""


def readable(line: str) -> tuple[str, bool]:
    """(one line for people, is it an error) of a line of a service's log: JSON, or anything else it printed."""
    text = _ANSI.sub("", line).strip()
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            record = _decoder.decode(text)
            if isinstance(record, dict) and "event" in record:
                return _from_record(record)
    return text, False


def _from_record(record: dict[str, Any]) -> tuple[str, bool]:
    level = str(record.get("level", "info"))
    details = [f"{key}={value}" for key, value in record.items() if key not in _HIDDEN]
    trace = record.get("exception")
    if isinstance(trace, str) and trace.strip():
        details.append(trace.strip().splitlines()[-1])
    shown = " ".join([str(record["event"]), *details])
    mark = "" if level == "info" else f"{level.upper()} "
    return mark + shown, level in _ERRORS


class ServiceLog:
    """Takes a service's output as it comes. ``last_error`` is the last line of level error, or of a traceback."""

    def __init__(self, name: str, path: Path, *, echo: Echo | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.name = name
        self.path = path
        self.last_error: str | None = None
        self.last_line: str | None = None
        self._echo = echo
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._size = 0
        self._in_traceback = False

    def write(self, line: bytes) -> None:
        """Keep one line. A file that cannot be written (disk full) must not stop the service: the line is let go."""
        with contextlib.suppress(OSError):
            self._append(line if line.endswith(b"\n") else line + b"\n")
        text = line.decode("utf-8", "replace").rstrip()
        if not text:
            return
        shown, is_error = readable(text)
        shown = redact(shown)[:500]
        self.last_line = shown
        if is_error:
            self.last_error = shown
        self._follow_traceback(text, shown)
        if self._echo is not None:
            self._echo(self.name, shown)

    def _follow_traceback(self, text: str, shown: str) -> None:
        """A bare traceback's last line (``ValueError: ...``, not indented) says what went wrong."""
        if text.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        elif self._in_traceback and not text.startswith(" "):
            self.last_error = shown
            self._in_traceback = False

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._size = self._file.tell()
        if self._size + len(data) > self._max_bytes:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("ab", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
