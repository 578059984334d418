"""Arbitration of trades: ids without holes (class contiguous). Pure.

Whatever session brings an id first wins. What arrives is emitted at once; a number left out is a hole, and a hole that
no session fills within the grace time is a gap. One before the first ever (two receivers began while Redis was away) is
the first from then on, and what lies between is a hole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

import msgspec

from feedmill.distributor.gaps import CLOSED, LATE, OPEN, cut, joined, new_gap, within, without
from feedmill.shared.clock import SECOND
from feedmill.shared.events import Flag, Gap, Trade

CHANNEL = "Trades"
MAX_HOLES = 1000
"""Holes remembered per instrument; the oldest is forgotten beyond that (its gap row stays open)."""
RENUMBERED_AFTER_NS = 300 * SECOND
"""A number that falls back although its exchange time is this much later: the venue counts anew."""
MAY_COME = frozenset({"sequence", "redis_lost"})
"""Causes of a hole that others may fill. Any other one says that no connection was there."""
_LATE = int(Flag.LATE)


class Hole(msgspec.Struct, array_like=True):
    """Numbers left out. ``revision`` 0 = not a gap yet."""

    from_seq: int
    to_seq: int
    missing: list[tuple[int, int]]
    from_ns: int
    to_ns: int
    cause: str
    revision: int = 0
    given_up: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """What of the missing numbers the venue no longer offers."""
    said: bool = False
    """That nothing of it can be had any more was told."""
    silent: bool = False
    """Its row is the processor's (see ``TradeTrack.lack``)."""

    @property
    def wanted(self) -> list[tuple[int, int]]:
        """What is missing and may still be had by REST."""
        return without(self.missing, self.given_up) if self.given_up else self.missing

    def fill(self, trade: Trade) -> bool:
        """Take a number out; False = it was not missing."""
        rest = cut(self.missing, trade.id)
        if rest is None:
            return False
        self.missing = rest
        trade.flags |= _LATE
        return True

    def give_up(self, low: int, high: int) -> None:
        self.given_up = joined([*self.given_up, *within(self.missing, low, high)])

    def gap(self, shard: str, symbol: str, repaired_by: str) -> Gap:
        """The row as it stands, under the next revision."""
        self.revision += 1
        return Gap(
            id=f"{shard}/{symbol}/{CHANNEL}/{self.from_seq}",
            symbol=symbol,
            channel=CHANNEL,
            cause=self.cause,
            state=OPEN if self.missing else CLOSED,
            from_seq=self.from_seq,
            to_seq=self.to_seq,
            missing=self.missing,
            from_ns=self.from_ns,
            to_ns=self.to_ns,
            repaired_by="" if self.missing else repaired_by,
            revision=self.revision,
            detected_ns=self.to_ns,
        )


class TradeTrack(msgspec.Struct, array_like=True):
    """State of one instrument's trades; is its own checkpoint field."""

    symbol: str
    last: Trade
    """The one with the highest id."""
    holes: list[Hole] = msgspec.field(default_factory=list)
    """By number, ascending; gaps not yet repaired included."""
    cause: str = ""
    cause_after: int = -1
    """A connection ended (cause) after this id: a hole that begins here is its doing."""
    first: int = -1
    """The lowest id ever; -1 = not known (written by an older version)."""
    first_ns: int = 0
    """Its receive time."""

    @classmethod
    def begin(cls, trade: Trade) -> TradeTrack:
        return cls(trade.symbol, trade, first=trade.id, first_ns=trade.receive_ns)

    @property
    def waiting(self) -> bool:
        """Whether a hole is not a gap yet."""
        return any(hole.revision == 0 for hole in self.holes)

    @property
    def owes(self) -> bool:
        """Whether the next trade will tell a gap: no connection covered the instrument after the last one."""
        return self.cause_after == self.last.id

    def ended(self, shard: str, at_ns: int) -> Gap | None:
        """No trade follows any more; answers the row of what may be missing after the last one."""
        if not self.owes:
            return None
        gap = new_gap(shard, self.symbol, CHANNEL, self.cause, self.last.id + 1, self.last.receive_ns, at_ns)
        gap.state, gap.to_ns = CLOSED, at_ns
        self.cause, self.cause_after = "", -1
        return gap

    def interrupted(self, cause: str) -> None:
        """No connection covers the instrument any more, or what did has lost something."""
        if self.cause_after != self.last.id:
            self.cause, self.cause_after = cause, self.last.id

    def accept(self, trade: Trade, shard: str, gaps: list[Gap]) -> bool:
        """Judge a trade that is not simply the next one; True = emit it. Revised gaps are added to ``gaps``."""
        last = self.last
        number = trade.id
        if number > last.id:
            if number > last.id + 1:
                self._hole(trade, shard, gaps)
            self.last = trade
            return True
        if trade.exchange_ns > last.exchange_ns + RENUMBERED_AFTER_NS:
            # Otherwise everything from now on would be taken for known. Holes of the old numbers stay gaps for ever.
            gaps.extend(hole.gap(shard, self.symbol, "") for hole in self.holes if hole.revision == 0)
            self.last, self.holes, self.cause_after = trade, [], -1
            self.first, self.first_ns = number, trade.receive_ns
            return True
        if number < self.first:
            if number < self.first - 1:
                low, high = number + 1, self.first - 1
                between = Hole(low, high, [(low, high)], trade.receive_ns, self.first_ns, "sequence")
                self.holes.insert(0, between)
                self._limit_holes(shard, gaps)
            self.first, self.first_ns = number, trade.receive_ns
            trade.flags |= _LATE
            return True
        for hole in self.holes:
            if hole.from_seq <= number <= hole.to_seq:
                if not hole.fill(trade):
                    return False
                if hole.revision and not hole.silent:
                    gaps.append(hole.gap(shard, self.symbol, LATE))
                if not hole.missing:
                    self.holes.remove(hole)
                return True
        return False

    def fill(self, trades: Iterable[Trade], shard: str, gaps: list[Gap], repaired_by: str) -> list[Trade]:
        """Judge what was asked for; answers what to emit. A gap is revised once, however many of its numbers came."""
        # What is beyond the last one the stream brings itself, in order.
        came = deque(sorted((trade for trade in trades if trade.id <= self.last.id), key=lambda trade: trade.id))
        taken: list[Trade] = []
        if came and came[0].id < self.first:
            first = came.popleft()
            if self.accept(first, shard, gaps):
                taken.append(first)
        revised: dict[int, Hole] = {}
        begins = [hole.from_seq for hole in self.holes]
        for trade in came:
            place = bisect_right(begins, trade.id) - 1
            if place >= 0 and self.holes[place].fill(trade):
                taken.append(trade)
                revised[place] = self.holes[place]
        told = [hole for hole in revised.values() if hole.revision and not hole.silent]
        gaps.extend(hole.gap(shard, self.symbol, repaired_by) for hole in told)
        if revised:
            self.holes = [hole for hole in self.holes if hole.missing]
        return taken

    def lack(self, ranges: list[tuple[int, int]], from_ns: int, to_ns: int) -> bool:
        """PostgreSQL lacks these numbers, whether they were seen here or not: they are wanted again. True = something
        changed. Their row is the processor's, so nothing is told of them."""
        wanted = within(joined([(low, high) for low, high in ranges if low <= high]), 0, self.last.id)
        for hole in self.holes:
            wanted = without(wanted, hole.missing)
        if not wanted:
            return False
        if wanted[0][0] < self.first:
            self.first, self.first_ns = wanted[0][0], from_ns
        # Numbers that a hole had and that came meanwhile are missing in it again; others are holes of their own.
        for hole in self.holes:
            if again := within(wanted, hole.from_seq, hole.to_seq):
                hole.missing = joined([*hole.missing, *again])
                wanted = without(wanted, again)
        begins = [hole.from_seq for hole in self.holes]
        apart: dict[int, list[tuple[int, int]]] = {}
        for low, high in wanted:
            apart.setdefault(bisect_right(begins, low), []).append((low, high))
        self.holes += [
            Hole(parts[0][0], parts[-1][1], parts, from_ns, to_ns, "restore", revision=1, silent=True)
            for parts in apart.values()
        ]
        self.holes.sort(key=lambda hole: hole.from_seq)
        del self.holes[: max(0, len(self.holes) - MAX_HOLES)]
        return True

    @property
    def told(self) -> list[Hole]:
        """Holes that are gaps."""
        return [hole for hole in self.holes if hole.revision]

    def _hole(self, trade: Trade, shard: str, gaps: list[Gap]) -> None:
        last = self.last
        low, high = last.id + 1, trade.id - 1
        cause = self.cause if self.cause_after == last.id else "sequence"
        self.holes.append(Hole(low, high, [(low, high)], last.receive_ns, trade.receive_ns, cause))
        self._limit_holes(shard, gaps)

    def _limit_holes(self, shard: str, gaps: list[Gap]) -> None:
        if len(self.holes) > MAX_HOLES:
            oldest = self.holes.pop(0)
            if not oldest.revision:
                gaps.append(oldest.gap(shard, self.symbol, ""))

    def expire(self, before_ns: int, shard: str, gaps: list[Gap]) -> None:
        """Holes found at or before ``before_ns`` (receive time) become gaps, and at once those of a time when no
        connection covered the instrument: there is nobody who may still fill them."""
        due = [
            hole
            for hole in self.holes
            if hole.revision == 0 and (hole.to_ns <= before_ns or hole.cause not in MAY_COME)
        ]
        gaps.extend(hole.gap(shard, self.symbol, "") for hole in due)
