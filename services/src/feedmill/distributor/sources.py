"""Sessions and their connections: what covers what, told by the control records of the raw stream. Pure.

A source is one connection of one session, named ``session/conn``. Whoever keeps state per instrument is told when a
source begins or stops to bring a topic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from feedmill.shared import control
from feedmill.shared.clock import SECOND
from feedmill.shared.control import TopicRef

REMOVED = "removed"
"""Cause of a loss that is none: the manifest no longer wants the topic."""
SESSION_LOST = "session_lost"
BROKEN = frozenset({"redis_lost", "shed", SESSION_LOST})
"""Causes after which it is not known what the connection brought last."""
HALF_OPEN_NS = 90 * SECOND
"""A connection that did not end in order may have brought nothing for so long: no receiver bears a longer silence."""
REMEMBERED = 16
"""Ended sessions whose last batch number is kept, so that a batch of theirs that comes again is known."""


class Listener(Protocol):
    """Told of every change of coverage."""

    def covered(self, topic: TopicRef, source: str, at_ns: int) -> None: ...

    def lost(self, topic: TopicRef, source: str, cause: str, at_ns: int, others: list[str]) -> None:
        """``others``: sources that still bring it."""


class Connection(msgspec.Struct, array_like=True):
    """A live connection."""

    name: str
    topics: dict[str, TopicRef] = msgspec.field(default_factory=dict)
    since_ns: int = 0
    """Receive time of its Connected record; 0 = not known."""
    asked: dict[str, TopicRef] = msgspec.field(default_factory=dict)
    """What was ever asked for on it: frames of those may stand anywhere until its end."""
    since: dict[str, int] = msgspec.field(default_factory=dict)
    """Native topic -> receive time (ns) since which it is brought without a break."""


class Session(msgspec.Struct, array_like=True):
    """A session as its records tell; is its own checkpoint field."""

    id: str
    replica: str
    started_ns: int
    conns: dict[int, Connection] = msgspec.field(default_factory=dict)
    silent: bool = False
    """Nothing was heard of it for so long that its connections count as lost."""


TopicKey = tuple[str, str, str]
"""(channel, symbol, interval of candles)."""


def key_of(topic: TopicRef) -> TopicKey:
    return topic.channel, topic.symbol, topic.interval


def source_of(session: str, conn: int) -> str:
    return f"{session}/{conn}"


def brought_until(cause: str, at_ns: int, *, in_order: bool) -> int:
    """Until when (ns, receive time) a connection ended at ``at_ns`` is known to have brought all. 0 = not known."""
    if cause in BROKEN:
        return 0
    return at_ns if in_order else at_ns - HALF_OPEN_NS


def replica_of(session: str) -> str:
    return session.rpartition("-")[0]


def age_of(session: str) -> tuple[int, str]:
    """A session's id ends in its start (hex, ms) and random digits: the greatest is the newest."""
    digits = session.rpartition("-")[2]
    return len(digits), digits


class Sources:
    """All sessions of a shard. ``touched`` and ``gone`` name what the next commit must write and delete."""

    def __init__(
        self, listener: Listener, sessions: Iterable[Session] = (), batches: dict[str, int] | None = None
    ) -> None:
        self._listener = listener
        self.sessions = {session.id: session for session in sessions}
        self.batches = dict(batches or {})
        """Session -> number of its last batch, ended sessions included."""
        self.touched: set[str] = set()
        self.counted: set[str] = set()
        """Sessions whose batch number moved."""
        self.gone: set[str] = set()
        """Sessions ended since the last commit."""
        self.forgotten: set[str] = set()
        """Ended sessions whose batch number need not be kept any longer."""
        self.heard: dict[str, float] = {}
        """Session -> monotonic time when something of it was last handled."""
        self._live: dict[tuple[str, str, str], dict[str, TopicRef]] = {}
        for session in self.sessions.values():
            if not session.silent:
                for number, conn in session.conns.items():
                    for topic in conn.topics.values():
                        self._live.setdefault(_key(topic), {})[source_of(session.id, number)] = topic

    @property
    def connections(self) -> int:
        return sum(len(session.conns) for session in self.sessions.values() if not session.silent)

    def live(self, topic: TopicRef) -> list[str]:
        return list(self._live.get(_key(topic), ()))

    def bringing(self, key: TopicKey) -> list[str]:
        """Connections subscribed to a topic."""
        return list(self._live.get(key, ()))

    def is_live(self, source: str) -> bool:
        """Whether the connection is open as far as its records tell."""
        session_id, _, conn = source.rpartition("/")
        session = self.sessions.get(session_id)
        return session is not None and not session.silent and int(conn) in session.conns

    def living(self) -> list[str]:
        """Sessions that are heard of."""
        return [session.id for session in self.sessions.values() if not session.silent]

    def covered(self) -> set[TopicKey]:
        """What some connection brings."""
        return {key_of(topic) for live in self._live.values() for topic in live.values()}

    def refs(self) -> list[TopicRef]:
        """Every topic that a frame still to come may be of."""
        conns = [conn for session in self.sessions.values() for conn in session.conns.values()]
        return [topic for conn in conns for topic in (*conn.asked.values(), *conn.topics.values())]

    def connected_ns(self, source: str) -> int:
        """When a connection was made; 0 = not known."""
        found = self._conn(source)
        return found.since_ns if found is not None else 0

    def brings_since(self, source: str, key: TopicKey) -> int:
        """Since when (ns, receive time) a connection brings a topic without a break; 0 = not known, or it does not."""
        found = self._conn(source)
        if found is None or not self.is_live(source):
            return 0
        names = [name for name, topic in found.topics.items() if key_of(topic) == key]
        return max((found.since.get(name, 0) for name in names), default=0)

    def _conn(self, source: str) -> Connection | None:
        session_id, _, conn = source.rpartition("/")
        session = self.sessions.get(session_id)
        return session.conns.get(int(conn)) if session is not None else None

    def batch(self, session_id: str, n: int, at_ns: int, now: float) -> bool:
        """A batch comes; False = it was handled before. A number left out means that the server lost some."""
        last = self.batches.get(session_id)
        if last is not None and n <= last:
            return False
        session = self.sessions.get(session_id)
        if session is None and last is not None:
            # It has ended: what was left of it counts as data, but it covers nothing any more.
            self.batches[session_id] = n
            self.counted.add(session_id)
            return True
        if session is None:
            session = self.sessions[session_id] = Session(session_id, replica_of(session_id), 0)
            self.touched.add(session_id)
        self.heard[session_id] = now
        if session.silent:
            session.silent = False
            self.touched.add(session_id)
            for number, conn in session.conns.items():
                self._cover(source_of(session_id, number), conn, conn.topics.values(), at_ns)
        if last is not None and n > last + 1:
            self.interrupt(session_id, None, "redis_lost", at_ns)
        self.batches[session_id] = n
        self.counted.add(session_id)
        self.forgotten.discard(session_id)
        return True

    def apply(self, session_id: str, record: control.AnyControl, at_ns: int) -> None:
        """A control record of a session; it names its connection itself."""
        session = self.sessions[session_id]
        if isinstance(record, control.Session):
            session.replica, session.started_ns = record.replica, record.started_ns
            self.touched.add(session_id)
            for other in list(self.sessions.values()):
                older = other.replica == session.replica and other.started_ns < session.started_ns
                if other.id == record.lost_session or (older and other is not session):
                    self.end(other.id, "session_lost", at_ns)
        elif isinstance(record, control.SessionEnd):
            self.end(session_id, record.cause, at_ns)
        elif isinstance(record, control.Connected):
            asked = {topic.topic: topic for topic in record.topics}
            session.conns[record.conn] = Connection(record.name, since_ns=at_ns, asked=asked)
            self.touched.add(session_id)
        elif isinstance(record, control.Subscribing):
            conn = session.conns.setdefault(record.conn, Connection(""))
            conn.asked.update((topic.topic, topic) for topic in record.topics)
            self.touched.add(session_id)
        elif isinstance(record, control.Disconnected):
            self._disconnected(session, record.conn, f"{_CAUSES.get(record.cause, 'disconnected')}", at_ns)
        elif isinstance(record, control.Subscribed):
            conn = session.conns.setdefault(record.conn, Connection(""))
            new = [topic for topic in record.topics if topic.topic not in conn.topics]
            conn.topics.update((topic.topic, topic) for topic in new)
            self.touched.add(session_id)
            self._cover(source_of(session_id, record.conn), conn, new, at_ns)
        elif isinstance(record, control.Unsubscribed | control.Rejected):
            conn = session.conns.setdefault(record.conn, Connection(""))
            final = isinstance(record, control.Unsubscribed) and record.final
            ended = [conn.topics.pop(topic.topic) for topic in record.topics if topic.topic in conn.topics]
            for topic in ended:
                conn.since.pop(topic.topic, None)
            self.touched.add(session_id)
            self._uncover(source_of(session_id, record.conn), ended, REMOVED if final else "unsubscribed", at_ns)
        elif isinstance(record, control.Shed):
            self.interrupt(session_id, record.conn or None, "shed", at_ns)

    def _disconnected(self, session: Session, number: int, cause: str, at_ns: int) -> None:
        conn = session.conns.pop(number, None)
        self.touched.add(session.id)
        if conn is not None:
            self._uncover(source_of(session.id, number), conn.topics.values(), cause, at_ns)

    def end(self, session_id: str, cause: str, at_ns: int) -> None:
        """A session is over: with it all its connections."""
        session = self.sessions.pop(session_id, None)
        if session is None:
            return
        if not session.silent:
            for number, conn in session.conns.items():
                self._uncover(source_of(session_id, number), conn.topics.values(), cause, at_ns)
        self.heard.pop(session_id, None)
        self.touched.discard(session_id)
        self.gone.add(session_id)
        ended = sorted((known for known in self.batches if known not in self.sessions), key=age_of)
        for known in ended[:-REMEMBERED]:
            del self.batches[known]
            self.counted.discard(known)
            self.forgotten.add(known)

    def interrupt(self, session_id: str, conn: int | None, cause: str, at_ns: int) -> None:
        """A connection (None: all of the session) goes on but has lost something."""
        session = self.sessions[session_id]
        numbers = list(session.conns) if conn is None else [conn]
        for number in numbers:
            found = session.conns.get(number)
            if found is not None:
                source = source_of(session_id, number)
                self._uncover(source, found.topics.values(), cause, at_ns)
                self._cover(source, found, found.topics.values(), at_ns)
                self.touched.add(session_id)

    def silence(self, longer_than: float, now: float, at_ns: int) -> list[str]:
        """Sessions not heard of for that many seconds lose their connections until they are heard of again."""
        ended = []
        for session in self.sessions.values():
            since = self.heard.setdefault(session.id, now)
            if not session.silent and session.conns and now - since > longer_than:
                session.silent = True
                self.touched.add(session.id)
                ended.append(session.id)
                for number, conn in session.conns.items():
                    self._uncover(source_of(session.id, number), conn.topics.values(), "session_lost", at_ns)
        return ended

    def _cover(self, source: str, conn: Connection, topics: Iterable[TopicRef], at_ns: int) -> None:
        for topic in topics:
            conn.since[topic.topic] = at_ns
            self._live.setdefault(_key(topic), {})[source] = topic
            self._listener.covered(topic, source, at_ns)

    def _uncover(self, source: str, topics: Iterable[TopicRef], cause: str, at_ns: int) -> None:
        for topic in topics:
            key = _key(topic)
            live = self._live.get(key, {})
            live.pop(source, None)
            if not live:
                self._live.pop(key, None)
            self._listener.lost(topic, source, cause, at_ns, list(live))


_CAUSES = {"shed": "shed"}
"""Causes of the receiver that are gap causes of their own; every other one is a connection that ended."""


def _key(topic: TopicRef) -> tuple[str, str, str]:
    """Candles of several intervals are topics of their own; elsewhere two names (raw, 100ms) are the same topic."""
    return topic.channel, topic.symbol, topic.topic if topic.channel == "Candles" else ""
