"""The list that a feed's processes agree on: one hash in Redis, a new version at each change.

It is kept for as long as Redis keeps it, so that a venue which does not answer costs no instrument at a restart. Who
writes names the version it has read: of two who believe to be the one that may, one is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from feedmill.resources.collection import Key
from feedmill.shared.redis.wire import Script
from feedmill.shared.selection.pick import Chosen

READ = Script("""#!lua flags=allow-oom
local version = redis.call('HGET', KEYS[1], 'version') or ''
if version == ARGV[1] then return {version} end
return {version, redis.call('HGET', KEYS[1], 'list') or ''}
""")
"""KEYS record; ARGV version that is known (empty = none) -> [version], and the list where it is another one."""
WRITE = Script("""#!lua flags=allow-oom
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'list', ARGV[3])
return 1
""")
"""KEYS record; ARGV version that was read, the new one, the list -> 1, or 0 when it is another one by now."""


class Record(msgspec.Struct):
    """What was chosen last, and by which criteria."""

    criteria: str
    """``Criteria.key``."""
    at_ns: int
    """When the venue's list was read that this came of."""
    instruments: list[Chosen]

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(each.symbol for each in self.instruments)


def record_key(feed: Key) -> str:
    return f"fm:{{{'.'.join(feed)}}}:selection"


def lease_key(feed: Key) -> str:
    """Who reads the venue's list."""
    return f"fm:{{{'.'.join(feed)}}}:selection:lease"


def encode(record: Record) -> bytes:
    return msgspec.json.encode(record)


def read_answer(answer: Any) -> tuple[str, Record | None]:
    """What READ answered: (version, the record; None = there is none, it cannot be read, or it is the known one)."""
    version = answer[0].decode()
    if len(answer) < 2 or not answer[1]:
        return version, None
    try:
        return version, msgspec.json.decode(answer[1], type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return version, None


def next_version(version: str, now_ns: int) -> str:
    """One that no record of the feed ever had, also after Redis lost them all."""
    number = int(version) if version.isascii() and version.isdigit() else 0
    return str(max(number + 1, now_ns // 1_000_000))
