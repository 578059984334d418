"""Ranges of a rising id that no source has brought so far, although a later one was brought already. Pure.

Ids of tickers jump, so only the source that brought two of them one after the other knows that there is nothing in
between. A source's first one tells nothing of what came before it: that range is a seam. Others that were there
earlier may fill it (their batches can reach Redis later, however old they are); what nobody fills is a gap row.
"""

from __future__ import annotations

import msgspec

from feedmill.distributor.gaps import CLOSED, LATE
from feedmill.shared.events import Gap

CHANNEL = "Ticker"
MAX_SEAMS = 8
"""Remembered per instrument; the oldest is told and forgotten beyond that."""
BEGINNING = -1


class Seam(msgspec.Struct, array_like=True):
    """Ids between ``lo`` and ``hi``, both excluded; ``lo`` -1 = whatever was before the first one ever."""

    lo: int
    hi: int
    from_ns: int
    to_ns: int
    """Receive time of ``hi``."""
    cause: str
    source: str = ""
    """The connection whose first one is ``hi``."""
    id: str = ""
    revision: int = 0
    """Of its gap row; 0 = it is none."""
    detected_ns: int = 0
    changed: bool = False
    """The row says too much by now."""

    @property
    def waiting(self) -> bool:
        """Whether it will be a row if nobody fills it."""
        return self.revision == 0 and self.lo != BEGINNING

    @property
    def unsettled(self) -> bool:
        return self.changed if self.revision else self.lo != BEGINNING

    @property
    def filled(self) -> bool:
        return self.hi - self.lo <= 1

    @classmethod
    def of(cls, gap: Gap, source: str) -> Seam:
        """What a closed gap row leaves open: somebody may have it still."""
        return cls(
            gap.from_seq, gap.to_seq, gap.from_ns, gap.to_ns, gap.cause, source, gap.id, gap.revision, gap.detected_ns
        )

    def row(self, shard: str, symbol: str, before: Gap | None) -> Gap:
        """The row as it stands, under the next revision. ``before``: the row closed last, which may be the same."""
        if not self.revision:
            self.id = f"{shard}/{symbol}/{CHANNEL}/{self.lo}"
            if before is not None and before.id == self.id:
                self.revision = before.revision
        self.revision += 1
        self.changed = False
        return Gap(
            id=self.id,
            symbol=symbol,
            channel=CHANNEL,
            cause=self.cause,
            state=CLOSED,
            from_seq=self.lo,
            to_seq=self.lo if self.filled else self.hi,
            missing=[],
            from_ns=self.from_ns,
            to_ns=self.to_ns,
            repaired_by=LATE if self.filled else "",
            revision=self.revision,
            detected_ns=self.detected_ns or self.to_ns,
        )


def within(seams: list[Seam], number: int) -> bool:
    """Whether nobody has brought that number, nor said that it does not exist."""
    return any(seam.lo < number < seam.hi for seam in seams)


def fill(seams: list[Seam], low: int, high: int, source: str, at_ns: int) -> None:
    """``source`` knows ``low``..``high``, both included: it brought the ends, and there is nothing else in between.

    ``at_ns``: when it received the newer of what it tells.
    """
    for seam in list(seams):
        if high <= seam.lo or low >= seam.hi:
            continue
        rest_above = seam.hi - high > 1
        if low - seam.lo > 1:
            if rest_above:
                above = Seam(high, seam.hi, at_ns, seam.to_ns, seam.cause, seam.source)
                seams.insert(seams.index(seam) + 1, above)
            seam.hi, seam.source, seam.to_ns = low, source, min(seam.to_ns, at_ns)
        elif rest_above:
            seam.lo, seam.from_ns = high, at_ns
        else:
            seam.lo = seam.hi
            if not seam.revision:
                seams.remove(seam)
        seam.changed = seam.revision > 0


def settle(seams: list[Seam], before_ns: int, shard: str, symbol: str, before: Gap | None, gaps: list[Gap]) -> None:
    """Seams found at or before ``before_ns`` (receive time) become rows, rows that say too much are revised."""
    for seam in list(seams):
        if (seam.changed and seam.revision) or (seam.waiting and seam.to_ns <= before_ns):
            gaps.append(seam.row(shard, symbol, before))
        if seam.filled:
            seams.remove(seam)
    found = [seam for seam in seams if seam.lo != BEGINNING]
    for seam in found[: max(0, len(found) - MAX_SEAMS)]:
        if seam.unsettled:
            gaps.append(seam.row(shard, symbol, before))
        seams.remove(seam)
