"""Continuity of the commits in an events stream. Pure.

Each entry names the commit before it. While that is the one last read, nothing is missing. When it is not, the server
has forgotten a part or was trimmed: the whole stream is read again from its beginning, which the natural keys make
harmless, and what is missing even so becomes a gap.
"""

from __future__ import annotations

from dataclasses import dataclass

from feedmill.shared.events import Gap
from feedmill.shared.keys import ShardRef

BEGIN = "0-0"


class Break(Exception):
    """The next entry does not follow the last one read."""


@dataclass(frozen=True, slots=True)
class Link:
    """What an entry says of itself."""

    n: int
    commit_id: str
    before: str


def id_of(stream_id: str) -> tuple[int, int]:
    """A stream entry's id as numbers, for comparison."""
    ms, _, seq = stream_id.partition("-")
    return int(ms), int(seq or 0)


class Chain:
    """Where reading stands: the last commit read, and whether the stream is being read again."""

    def __init__(self, shard: ShardRef, n: int, commit_id: str, stream_id: str) -> None:
        self.shard = shard
        self.n = n
        self.commit_id = commit_id
        self.cursor = stream_id
        """Entry id after which to read."""
        self.rereading = False

    def reread(self) -> None:
        """Begin again at the start of the stream."""
        self.rereading = True
        self.cursor = BEGIN

    def tip_reached(self) -> None:
        """Everything in the stream was read: from here on each entry must follow the last one."""
        self.rereading = False

    def follow(self, link: Link, stream_id: str, now_ns: int) -> Gap | None:
        """Take the next entry. Raises Break when the stream must be read again; answers a gap for lost commits."""
        gap: Gap | None = None
        if link.before != self.commit_id:
            if not self.rereading:
                raise Break(f"commit {link.n} follows {link.before or 'nothing'}, not {self.commit_id or 'nothing'}")
            if link.n > self.n + 1:
                gap = self._lost(self.n + 1, link.n - 1, now_ns)
        self.n, self.commit_id, self.cursor = link.n, link.commit_id, stream_id
        return gap

    def skip(self, stream_id: str) -> None:
        """Pass over an entry that is no commit."""
        self.cursor = stream_id

    def _lost(self, first: int, last: int, now_ns: int) -> Gap:
        return Gap(
            id=f"{self.shard}/events/{first}",
            symbol="",
            channel="events",
            cause="redis_lost",
            state="open",
            from_seq=first,
            to_seq=last,
            missing=[(first, last)],
            from_ns=0,
            to_ns=0,
            repaired_by="",
            revision=1,
            detected_ns=now_ns,
        )
