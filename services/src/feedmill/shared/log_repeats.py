"""Which lines of a log say again what others just said. Pure, but for the clock it is given.

Two bounds. Alike are lines of one event, one subject and one kind of cause: a few are written at once, then one in half
a minute. And of one event, whatever its subject (a thousand accounts of which each loses its connection), some hundreds
at once, then one a second. What is left out is counted, and the last one of its kind is written when its turn comes,
with how many there were: nothing that goes on is silent, and how a thing ended is always there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

ALIKE, ALIKE_EVERY = 5, 30.0
"""Lines alike at once, and seconds between two after that."""
OF_EVENT, OF_EVENT_EVERY = 200, 1.0
"""The same of one event, whatever its subject."""
REMEMBERED = 2000
"""Kinds of lines; what was heard longest ago is forgotten first."""

SUBJECTS = frozenset({
    "account", "backup", "channel", "code", "exchange", "folder", "gauge", "hash", "host", "instance", "kind", "lease",
    "market", "name", "part", "path", "process", "section", "segment", "server", "session", "shard", "slot", "socket",
    "stage", "state", "status", "step", "subject", "symbol", "table", "topic", "venue",
})  # fmt: skip
"""Fields that say what a line is about; all others say how it stands, or are numbers that only grow (connections,
batches, gaps): the next one is no other subject."""
CAUSES = ("cause", "error", "exception", "logger", "reason", "why")
"""Fields that say why, of which the beginning counts: numbers and details in it change from line to line."""
_kind = re.compile(r"[^0-9:]*")

Key = tuple[str, ...]
Line = dict[str, Any]


@dataclass(slots=True)
class _Bucket:
    """Tokens: one a line, made again with time."""

    most: int
    every: float
    left: float
    at: float

    def any(self, now: float) -> bool:
        self.left = min(float(self.most), self.left + (now - self.at) / self.every)
        self.at = now
        return self.left >= 1.0


@dataclass(slots=True)
class _Kept:
    """The last line of those left out, and how many."""

    line: Line
    event: str
    count: int


class Repeats:
    """Not for several threads at once: its owner sees to that."""

    def __init__(self) -> None:
        self._alike: OrderedDict[Key, _Bucket] = OrderedDict()
        self._events: OrderedDict[str, _Bucket] = OrderedDict()
        self._kept: dict[Key, _Kept] = {}

    @property
    def waiting(self) -> bool:
        """Whether lines were left out that nothing has told of yet."""
        return bool(self._kept)

    def admit(self, level: str, line: Mapping[str, Any], now: float) -> int | None:
        """None = leave it out; else how many alike were left out before it. ``now``: seconds."""
        event = str(line.get("event", ""))
        key = key_of(level, line)
        whole = _bucket(self._events, event, OF_EVENT, OF_EVENT_EVERY, now)
        alike = _bucket(self._alike, key, ALIKE, ALIKE_EVERY, now)
        if whole.any(now) and alike.any(now):
            whole.left -= 1.0
            alike.left -= 1.0
            before = self._kept.pop(key, None)
            return before.count if before is not None else 0
        if whole.left < 1.0 or (len(self._kept) >= REMEMBERED and key not in self._kept):
            key = (event,)  # One line will tell of all its subjects.
        kept = self._kept.get(key)
        if kept is None:
            self._kept[key] = _Kept(dict(line), event, 1)
        else:
            kept.line, kept.count = dict(line), kept.count + 1
        return None

    def due(self, now: float, *, everything: bool = False) -> list[Line]:
        """Lines that were left out and have their turn; ``everything``: all there are. ``repeated`` in one of them is
        how many alike were left out before it."""
        lines: list[Line] = []
        for key, kept in list(self._kept.items()):
            whole = _bucket(self._events, kept.event, OF_EVENT, OF_EVENT_EVERY, now)
            alike = whole if key == (kept.event,) else _bucket(self._alike, key, ALIKE, ALIKE_EVERY, now)
            if not (everything or (whole.any(now) and alike.any(now))):
                continue
            whole.left -= 1.0
            if alike is not whole:
                alike.left -= 1.0
            del self._kept[key]
            lines.append({**kept.line, "repeated": kept.count - 1} if kept.count > 1 else kept.line)
        return lines


Name = TypeVar("Name", bound=Hashable)


def _bucket(buckets: OrderedDict[Name, _Bucket], key: Name, most: int, every: float, now: float) -> _Bucket:
    found = buckets.get(key)
    if found is None:
        found = buckets[key] = _Bucket(most, every, float(most), now)
        if len(buckets) > REMEMBERED:
            buckets.popitem(last=False)
    else:
        buckets.move_to_end(key)
    return found


def key_of(level: str, line: Mapping[str, Any]) -> Key:
    """What makes two lines alike."""
    event = str(line.get("event", ""))
    # What libraries log has its details in the text.
    parts = [level, _cut(event) if "logger" in line else event]
    parts += [f"{name}={line[name]}"[:200] for name in sorted(SUBJECTS & line.keys())]
    parts += [_cut(str(line[name])) for name in CAUSES if name in line]
    return tuple(parts)


def _cut(text: str) -> str:
    found = _kind.match(text)
    return (found[0] if found else "")[:80]
