"""Tickers without ids of connections that do not count, kept until the one that does has passed them. Pure.

When the one that counts ends, or its last batches never come, what the next one had brought by then is not lost. One
that is ahead by more than can be kept takes over, if it is known to have missed nothing: the other lags.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from feedmill.shared.events import Ticker

MOST = 256
"""Kept of a connection."""
SOURCES = 16
"""Connections remembered, those of sessions that are over included."""


class Held(msgspec.Struct, array_like=True):
    """Of one instrument; is part of its checkpoint field."""

    kept: dict[str, list[Ticker]] = msgspec.field(default_factory=dict)
    """Connection -> what it brought that is news, as it came."""
    level: list[str] = msgspec.field(default_factory=list)
    """Connections that have brought something that was no news: they have missed nothing since."""
    lost: dict[str, int] = msgspec.field(default_factory=dict)
    """Connection -> exchange time (ns) up to which there were too many to keep."""

    def show(self, source: str, ticker: Ticker) -> bool:
        """One that is news. True = there are too many, and the connection is to count from now on.

        Where it may have missed some before, all of that connection are given up instead.
        """
        kept = self.kept.setdefault(source, [])
        kept.append(ticker)
        if len(kept) <= MOST:
            return False
        if source in self.level and source not in self.lost:
            return True
        del self.kept[source]
        self.lost[source] = ticker.exchange_ns
        return False

    def known(self, source: str) -> bool:
        """It brought one that is no news; True = that is worth remembering."""
        if source in self.level:
            return False
        self.level.append(source)
        del self.level[:-SOURCES]
        return True

    def passed(self, exchange_ns: int, seq: int) -> None:
        """The connection that counts is at that time, and has just brought ``seq``. Of one ms it may owe more."""
        for source, kept in list(self.kept.items()):
            gone = 0
            while gone < len(kept) and (kept[gone].exchange_ns < exchange_ns or kept[gone].seq == seq):
                gone += 1
            if gone:
                del kept[:gone]
                self.known(source)
            if not kept:
                del self.kept[source]
        for source, until_ns in list(self.lost.items()):
            if until_ns < exchange_ns:
                del self.lost[source]
                self.known(source)

    def take(self, source: str) -> tuple[list[Ticker], bool]:
        """(what is kept of it, whether it is known to have missed nothing before that). The others' stay."""
        return self.kept.pop(source, []), source in self.level

    def most_of(self, sources: Iterable[str]) -> str | None:
        """Which of ``sources`` has brought most; None = nothing is kept of them."""
        return max((each for each in sources if each in self.kept), key=lambda each: len(self.kept[each]), default=None)

    def forget(self, source: str) -> None:
        """It brings the instrument no more, or has lost some of it."""
        self.kept.pop(source, None)
        self.lost.pop(source, None)
        if source in self.level:
            self.level.remove(source)
