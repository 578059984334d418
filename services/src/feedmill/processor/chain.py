"""Continuity of the commits in an events stream. Pure.

Each entry names the commit before it. While that is the one last read, nothing is missing. When it is not, the server
has forgotten a part or was trimmed: the whole stream is read again from its beginning, which the natural keys make
harmless, and what is missing even so is a loss (see ``losses``). So is a chain that begins anew: the server, and with
it the distributor's memory, was wiped.
"""

from __future__ import annotations

from dataclasses import dataclass

from feedmill.shared.redis.ids import BEGIN, id_of


class Break(Exception):
    """The next entry does not follow the last one read."""


@dataclass(frozen=True, slots=True)
class Link:
    """What an entry says of itself."""

    n: int
    commit_id: str
    before: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Commits that are gone."""

    first: int
    """The number after the last one read."""
    last: int
    """-1 = not known: the chain began anew."""
    after: str
    """Entry id of the last commit before; BEGIN = there was none."""
    until: str
    """Entry id of the commit that came instead."""
    certain: bool = True
    """False: perhaps a chain known before is only being read again; the numbers of its events will tell."""


class Chain:
    """Where reading stands: the last commit read, and whether the stream is being read again."""

    def __init__(self, n: int, commit_id: str, stream_id: str) -> None:
        self.n = n
        self.commit_id = commit_id
        self.cursor = stream_id
        """Entry id after which to read."""
        self.rereading = False
        self._last = stream_id
        """Entry id of the last commit read."""

    def reread(self) -> None:
        """Begin again at the start of the stream."""
        self.rereading = True
        self.cursor = BEGIN

    def tip_reached(self) -> None:
        """Everything in the stream was read: from here on each entry must follow the last one."""
        self.rereading = False

    def judge(self, link: Link, stream_id: str) -> Loss | None:
        """Whether commits are missing before this entry. Raises Break when the stream must be read again first."""
        if link.before == self.commit_id:
            return None
        if not self.rereading:
            raise Break(f"commit {link.n} follows {link.before or 'nothing'}, not {self.commit_id or 'nothing'}")
        if link.n > self.n + 1:
            return Loss(self.n + 1, link.n - 1, self._last, stream_id)
        if link.n == 1 and not link.before:
            # One written after what was read last begins a new chain. One written before it is either the beginning of
            # the same chain, still in the stream, or a server's whose clock is behind.
            return Loss(self.n + 1, -1, self._last, stream_id, certain=id_of(stream_id) > id_of(self._last))
        return None

    def follow(self, link: Link, stream_id: str) -> None:
        """Take the entry that was judged."""
        self.n, self.commit_id, self.cursor, self._last = link.n, link.commit_id, stream_id, stream_id

    def skip(self, stream_id: str) -> None:
        """Pass over an entry that is no commit."""
        self.cursor = stream_id
