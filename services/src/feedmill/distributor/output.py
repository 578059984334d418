"""What processing has brought about since the last commit: events, book changes, commands, touched state."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from feedmill.distributor.traced import Traced
from feedmill.shared.control import Command
from feedmill.shared.events import DeltaBlock, EventBlock, Gap
from feedmill.shared.traceparent import MOST


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A gap of trades that the venue no longer offers: it stays open."""

    gap: str
    trades: int


@dataclass(slots=True)
class Output:
    """Collected between two commits. Touched state is named by checkpoint field and encoded when it is taken."""

    events: EventBlock = field(default_factory=EventBlock)
    deltas: DeltaBlock = field(default_factory=DeltaBlock)
    commands: list[Command] = field(default_factory=list)
    given_up: list[GivenUp] = field(default_factory=list)
    backfilled: int = 0
    """Trades that came by REST."""
    duplicates: int = 0
    """Events dropped because they were emitted before."""
    frames: int = 0
    oldest_ns: int = 0
    """Receive time of the first frame, ns; 0 = none."""
    traces: list[Traced] = field(default_factory=list)
    """Of the batches and answers that are traced, ``traceparent.MOST`` at most."""

    def trace(self, found: Traced) -> None:
        if len(self.traces) < MOST:
            self.traces.append(found)

    def gap(self, gap: Gap) -> None:
        self.events.gaps.append(gap)

    def command(
        self,
        kind: str,
        symbol: str,
        native: str,
        channel: str,
        now_ns: int,
        reason: str,
        again: str = "",
        living: list[str] | None = None,
        **bounds: int,
    ) -> str:
        """Ask the receivers for something; answers the command's id. ``again``: the id of one that is issued anew."""
        number = again or secrets.token_hex(8)
        self.commands.append(
            Command(number, kind, symbol, native, channel, now_ns, reason, **bounds, living=living, trace="")
        )
        return number


@dataclass(slots=True)
class Taken:
    """One commit, encoded."""

    pos: str
    floor: str
    """Raw entries before it are needed no longer; empty = nothing new is free."""
    en: int
    """Number of the events entry; 0 = there is none."""
    eid_before: str
    events: bytes
    deltas: bytes
    fields: dict[str, bytes]
    deleted: list[str]
    images: dict[str, bytes]
    commands: list[bytes]
    given_up: list[GivenUp]
    backfilled: int
    block: EventBlock
    duplicates: int
    frames: int
    oldest_ns: int
