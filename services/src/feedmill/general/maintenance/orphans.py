"""Streams in Redis that are of no feed or account any more: which of them may go. Pure.

Whose feed a stream was Redis does not say, so each pipeline keeps a list of its feeds there (``keys.feeds_key``): what
was never on it is not ours to remove. A feed that is gone stays on the list until its streams are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feedmill.resources.collection import Key
from feedmill.shared.clock import MS
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import id_of


@dataclass(frozen=True, slots=True)
class Listed:
    """A feed on a pipeline's list."""

    shards: int
    seen_ns: int
    """When a manifest held it last."""

    def __str__(self) -> str:
        return f"{self.shards} {self.seen_ns}"

    @classmethod
    def parse(cls, text: str) -> Listed:
        """Raises ValueError."""
        shards, _, seen = text.partition(" ")
        return cls(int(shards), int(seen))


def field_of(feed: Key) -> str:
    """How a feed is written on the list."""
    return ".".join(feed)


def read_list(fields: Mapping[bytes, bytes]) -> dict[Key, Listed]:
    """A pipeline's list; what cannot be read (of a later version) is left out, so it is not ours to judge."""
    found: dict[Key, Listed] = {}
    for name, value in fields.items():
        namespace, _, feed = name.decode(errors="replace").partition(".")
        try:
            found[namespace, feed] = Listed.parse(value.decode())
        except ValueError:
            continue
    return found


def gone(listed: Mapping[Key, Listed], feeds: Mapping[Key, int], now: int, gone_for: int) -> list[Key]:
    """Feeds that no manifest held for ``gone_for`` ns."""
    return sorted(key for key, item in listed.items() if key not in feeds and now - item.seen_ns >= gone_for)


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of a shard or an account as they stand. Entry ids; empty = nothing ever."""

    shard: ShardRef
    captured: str
    dispatched: str
    emitted: str
    stored: str
    """By PostgreSQL."""
    commit: str
    """Id of the distributor's last commit."""
    stored_commit: str
    """Id of the last commit that PostgreSQL has."""
    owner: str
    """Of accounts: id of the account."""
    raw_entries: int
    event_entries: int
    held: bool
    """Some process has a lease on it."""

    @property
    def state(self) -> tuple[str, ...]:
        """What must still be so when they are removed, the last one: no lease."""
        return self.captured, self.dispatched, self.emitted, self.commit, self.owner, "0"

    def in_use(self, now: int, gone_for: int) -> bool:
        """Not an orphan, or not for long: a process works on it (of a manifest elsewhere), or wrote to it lately.

        ``now``, ``gone_for``: ns.
        """
        newest = max((id_of(each)[0] for each in (self.captured, self.emitted) if each), default=0)
        return self.held or now - newest * MS < gone_for

    @property
    def left(self) -> str:
        """What would be lost with it; empty = nothing."""
        if self.captured and self.captured != self.dispatched:
            return f"captured frames were not dispatched ({self.raw_entries} entries)"
        if self.emitted and self.emitted != self.stored:
            return f"events were not stored ({self.event_entries} entries)"
        return ""

    @property
    def lost_ns(self) -> tuple[int | None, int]:
        """From when to when what was not stored was received, ns since the epoch; None = from the beginning."""
        behind = self.dispatched if self.captured != self.dispatched else self.stored
        end = max((id_of(each)[0] for each in (self.captured, self.emitted) if each), default=0)
        return (id_of(behind)[0] * MS or None) if behind else None, end * MS
