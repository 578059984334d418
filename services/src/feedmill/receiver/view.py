"""Which connections and topics are live at a place in a session, as its control records tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from feedmill.shared import control


@dataclass(slots=True)
class _Live:
    name: str
    asked: dict[str, control.TopicRef]
    """Subscribed or going to be, those that ended since included."""
    topics: dict[str, control.TopicRef] = field(default_factory=dict)


class LiveView:
    """Which connections and topics are live after a prefix of the records; told again when a session is replaced."""

    def __init__(self) -> None:
        self._conns: dict[int, _Live] = {}

    @classmethod
    def of(cls, records: Iterable[tuple[int, control.Control]]) -> LiveView:
        """What :meth:`records` told."""
        view = cls()
        for _, record in records:
            view.apply(record)
        return view

    def copy(self) -> LiveView:
        return self.of(self.records())

    def apply(self, record: control.Control) -> None:
        if isinstance(record, control.Connected):
            self._conns[record.conn] = _Live(record.name, {topic.topic: topic for topic in record.topics})
        elif isinstance(record, control.Disconnected):
            self._conns.pop(record.conn, None)
        elif isinstance(record, control.Subscribing):
            if (live := self._conns.get(record.conn)) is not None:
                live.asked.update((topic.topic, topic) for topic in record.topics)
        elif isinstance(record, control.Subscribed | control.Unsubscribed | control.Rejected):
            live = self._conns.get(record.conn)
            if live is None:
                return
            for topic in record.topics:
                if isinstance(record, control.Subscribed):
                    live.topics[topic.topic] = topic
                else:
                    live.topics.pop(topic.topic, None)

    def records(self) -> list[tuple[int, control.Control]]:
        """(conn, record) to bring a reader from nothing to this state."""
        told: list[tuple[int, control.Control]] = []
        for conn, live in self._conns.items():
            told.append((conn, control.Connected(conn, live.name, list(live.asked.values()))))
            if live.topics:
                told.append((conn, control.Subscribed(conn, list(live.topics.values()))))
        return told
