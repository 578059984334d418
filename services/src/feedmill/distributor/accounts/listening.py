"""Whether an account is listened to, by the records of its raw stream. Pure.

The newest session is the one that counts: who takes an account over cannot know what the one before still had, so it
reconciles. What an older session brings late is data all the same.
"""

from __future__ import annotations

from typing import Protocol

from feedmill.distributor.accounts.state import Line
from feedmill.distributor.sources import age_of, replica_of
from feedmill.shared import control
from feedmill.shared.frames import RawBatch

REMEMBERED = 16
"""Sessions whose last batch is kept, so that one that comes again is known."""
_CAUSES = {"expired": "expired", "shutdown": "shutdown", "killed": "killed", "redis_lost": "redis_lost"}

_DOUBTFUL = frozenset(("silent", "unanswered", "error"))
"""Ends of a connection that nobody told of."""


def _is_older(session: str, than: str) -> bool:
    """Only of two sessions of one replica: the clocks of two may differ."""
    return replica_of(session) == replica_of(than) and age_of(session) < age_of(than)


class Listener(Protocol):
    def lost(self, cause: str, from_ns: int, to_ns: int, at_ns: int, *, doubtful: bool = False) -> None:
        """Something may be missing from ``from_ns`` (0: ever) to ``to_ns`` (0: it goes on being missed).

        ``doubtful``: the connection may have been dead for a while before ``from_ns``.
        """

    def back(self, at_ns: int) -> None:
        """It is listened to again."""


class Listening:
    """Works on ``line``, which is in the checkpoint."""

    def __init__(self, line: Line, listener: Listener) -> None:
        self.line = line
        self._listener = listener

    def knows(self, batch: RawBatch) -> bool:
        """Whether it was handled before."""
        return batch.n <= self.line.batches.get(batch.session, 0)

    def is_current(self, session: str) -> bool:
        return session == self.line.session

    def batch(self, batch: RawBatch, at_ns: int) -> None:
        """One that is not known comes."""
        line = self.line
        last = line.batches.get(batch.session)
        line.batches[batch.session] = batch.n
        if last is None:
            while len(line.batches) > REMEMBERED:
                del line.batches[next(iter(line.batches))]
            if _is_older(batch.session, line.session):
                return  # All of it is late: it had to wait for Redis, and the one after it had not.
            cause = "session_lost" if line.session else "first"
            if line.conn or not line.session:
                self._listener.lost(cause, line.heard_ns, 0, at_ns)
            line.session, line.conn, line.silent = batch.session, 0, False
        elif batch.session != line.session:
            return
        elif line.silent:
            line.silent = False
            if line.conn:
                self._listener.back(at_ns)
        if last is not None and batch.n > last + 1 and line.conn:
            self._listener.lost("redis_lost", line.heard_ns, at_ns, at_ns)
        line.heard_ns = max(line.heard_ns, at_ns)

    def frames_of(self, conn: int, at_ns: int) -> None:
        """Frames show that a connection is there, also where the record of it was lost with the server."""
        if conn > self.line.conn:
            self._connected(conn, at_ns)
        self.line.heard_ns = max(self.line.heard_ns, at_ns)

    def record(self, record: control.AnyControl, at_ns: int) -> None:
        line = self.line
        if isinstance(record, control.Connected):
            self._connected(record.conn, at_ns)
        elif isinstance(record, control.Disconnected):
            if line.conn == record.conn:
                doubtful = record.cause in _DOUBTFUL
                self._ended(_CAUSES.get(record.cause, "disconnected"), at_ns, doubtful=doubtful)
        elif isinstance(record, control.SessionEnd):
            self._ended(_CAUSES.get(record.cause, "disconnected"), at_ns)
        elif isinstance(record, control.Shed):
            self._listener.lost("shed", record.from_ns, record.to_ns if line.conn else 0, at_ns)

    def _connected(self, conn: int, at_ns: int) -> None:
        if self.line.conn:
            self._ended("disconnected", at_ns)
        self.line.conn = conn
        self._listener.back(at_ns)

    def _ended(self, cause: str, at_ns: int, *, doubtful: bool = False) -> None:
        if self.line.conn:
            self.line.conn = 0
            # What it brought before this record is all there was: the last sign of it is now.
            from_ns = at_ns if cause != "killed" else self.line.heard_ns
            self._listener.lost(cause, from_ns, 0, at_ns, doubtful=doubtful)

    def silence(self, at_ns: int) -> None:
        """Nothing was heard of the session for too long."""
        if self.line.conn and not self.line.silent:
            self.line.silent = True
            self._listener.lost("session_lost", self.line.heard_ns, 0, at_ns, doubtful=True)
