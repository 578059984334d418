"""A line of a process's log for people. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

LEVELS = ("debug", "info", "warning", "error", "critical")
_HIDDEN = frozenset({"service", "timestamp", "level", "event", "exception", "stack"})
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the kubelet gave it."""

    stamp: str
    """When it was written (RFC 3339), by the kubelet; sorts as text among lines of UTC nodes."""
    raw: str
    """As the process wrote it."""
    level: str
    """Of LEVELS; empty = it did not say."""
    time: str
    """Of the day, ms, UTC."""
    message: str
    """For people."""
    trace: tuple[str, ...] = ()
    """Lines of its traceback."""


def read(line: bytes) -> Line:
    """A line of ``log?timestamps=true``."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    found = _STAMP.match(text)
    stamp, raw = (found[1], found[2]) if found else ("", text)
    plain = _ANSI.sub("", raw)
    record = _record(plain)
    if record is None:
        return Line(stamp, raw, "", _clock(stamp), plain)
    level = str(record.get("level", "")).lower()
    details = [f"{key}={_value(value)}" for key, value in record.items() if key not in _HIDDEN]
    trace = str(record.get("exception") or "").strip()
    return Line(
        stamp,
        raw,
        "error" if level == "exception" else level,
        _clock(str(record.get("timestamp") or stamp)),
        " ".join([str(record["event"]), *details]),
        tuple(trace.splitlines()),
    )


def weight(level: str) -> int:
    """What did not say its level is never hidden."""
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def _record(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if value and not re.search(r"[\s=\"]", value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _clock(stamp: str) -> str:
    """``2026-11-26T00:01:02.345678Z`` -> ``00:01:02.345``."""
    day, _, rest = stamp.partition("T")
    if not rest or not day:
        return ""
    clock, _, fraction = rest.rstrip("Z").partition("+")[0].partition(".")
    return f"{clock}.{(fraction + '000')[:3]}"
