"""What is gathered for one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedmill.processor.chain import Loss
from feedmill.processor.losses import Notes
from feedmill.processor.rows import CommitKey, Deferred, Letter, Rows
from feedmill.processor.spans import Traced
from feedmill.shared.events import EventBlock, Flag, decode_events


@dataclass(slots=True)
class Entry:
    """One commit of the distributor as it stands in the events stream."""

    stream_id: str
    n: int
    commit_id: str
    before: str
    """Id of the commit before it."""
    payload: bytes
    """Its events, still packed: they take a fifth of the memory, and are needed again only when a row is refused."""

    @property
    def key(self) -> CommitKey:
        return self.n, self.commit_id

    def events(self) -> EventBlock:
        """What could be read of it."""
        return decode_events(self.payload) if self.payload else EventBlock()


@dataclass(slots=True)
class Sample:
    """Times of one event that stand for ``weight`` events, ns."""

    exchange_ns: int
    receive_ns: int
    weight: int


@dataclass(slots=True)
class Batch:
    """Commits in the order of the stream and their rows."""

    entries: list[Entry] = field(default_factory=list)
    rows: Rows = field(default_factory=Rows)
    deferred: list[Deferred] = field(default_factory=list)
    made: list[Letter] = field(default_factory=list)
    """Dead letters that are no event of a commit: entries that could not be read."""
    loss: Loss | None = None
    """Commits that are gone before the first entry."""
    notes: Notes | None = None
    """What tells the extent of losses; None while there is none to be told."""
    samples: list[Sample] = field(default_factory=list)
    traces: list[Traced] = field(default_factory=list)
    size: int = 0
    """Bytes."""
    count: int = 0
    """Events."""
    n: int = 0
    commit_id: str = ""
    stream_id: str = ""
    """Where the position stands once this is stored."""

    @property
    def empty(self) -> bool:
        return not self.stream_id

    def stand(self, n: int, commit_id: str, stream_id: str) -> None:
        self.n, self.commit_id, self.stream_id = n, commit_id, stream_id

    def add_samples(self, block: EventBlock) -> None:
        """The first event of each kind, the oldest, stands for all of its commit: a commit spans few ms. What was asked
        for by REST long after it happened says nothing."""
        for events in (block.trades, block.tickers):
            first = next((event for event in events if not event.flags & Flag.BACKFILL), None)
            if first is not None:
                self.samples.append(Sample(first.exchange_ns, first.receive_ns, len(events)))
