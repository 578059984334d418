"""Gap rows: how they are named, opened and revised. Pure.

A gap's id is made of shard, symbol, channel and the number it begins at, so the same gap found again after a restart is
the same row; a higher revision replaces a lower one.
"""

from __future__ import annotations

import msgspec

from feedmill.shared.events import Gap

OPEN = "open"
CLOSED = "closed"
LATE = "late"


class GapState(msgspec.Struct, array_like=True):
    """The gap an unnumbered channel is in or was last in. Kept in the checkpoint."""

    current: Gap | None = None
    """Open now."""
    closed: Gap | None = None
    """The one closed last: two gaps can begin at the same number, and then they are one row."""

    def open(self, gap: Gap) -> Gap | None:
        """Open ``gap`` unless one is open already; answers what to emit."""
        if self.current is not None:
            return None
        if self.closed is not None and gap.id == self.closed.id:
            gap.revision = self.closed.revision + 1
        self.current = gap
        return msgspec.structs.replace(gap)

    def close(self, to_seq: int, to_ns: int, repaired_by: str) -> Gap | None:
        """Close the open gap; answers what to emit."""
        gap = self.current
        if gap is None:
            return None
        self.current = None
        gap.state, gap.to_seq, gap.to_ns, gap.repaired_by = CLOSED, to_seq, to_ns, repaired_by
        gap.revision += 1
        self.closed = gap
        return msgspec.structs.replace(gap)

    def shrink(self, number: int) -> Gap | None:
        """``number`` came late, from within the gap closed last: that ends before it; answers what to emit."""
        gap = self.closed
        if gap is None or not gap.from_seq < number < gap.to_seq:
            return None
        gap.to_seq = number
        gap.revision += 1
        return msgspec.structs.replace(gap)


def new_gap(shard: str, symbol: str, channel: str, cause: str, from_seq: int, from_ns: int, detected_ns: int) -> Gap:
    """An open gap without an end; revision 1."""
    return Gap(
        id=f"{shard}/{symbol}/{channel}/{from_seq}",
        symbol=symbol,
        channel=channel,
        cause=cause,
        state=OPEN,
        from_seq=from_seq,
        to_seq=-1,
        missing=[],
        from_ns=from_ns,
        to_ns=0,
        repaired_by="",
        revision=1,
        detected_ns=detected_ns,
    )


def within(ranges: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    """What of ``ranges`` lies between ``low`` and ``high``, both included."""
    return [(max(a, low), min(b, high)) for a, b in ranges if a <= high and b >= low]


def without(ranges: list[tuple[int, int]], cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """``ranges`` less ``cuts``; both ascending and without overlap."""
    left = []
    place = 0
    for low, high in ranges:
        while place < len(cuts) and cuts[place][1] < low:
            place += 1
        at = place
        while at < len(cuts) and cuts[at][0] <= high:
            if cuts[at][0] > low:
                left.append((low, cuts[at][0] - 1))
            low = cuts[at][1] + 1
            at += 1
        if low <= high:
            left.append((low, high))
    return left


def joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers, ascending, as few ranges as can be."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def cut(ranges: list[tuple[int, int]], number: int) -> list[tuple[int, int]] | None:
    """``ranges`` without ``number``; None when it is in none of them."""
    for place, (low, high) in enumerate(ranges):
        if low <= number <= high:
            rest = [part for part in ((low, number - 1), (number + 1, high)) if part[0] <= part[1]]
            return [*ranges[:place], *rest, *ranges[place + 1 :]]
    return None
