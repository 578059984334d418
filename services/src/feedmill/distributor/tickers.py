"""Arbitration of tickers: monotonic ids (Binance), or none (Deribit: one source at a time). Pure.

Ids jump, so what a connection missed is known by its extent only: the gap runs from the last one before to the first
one after, both excluded.
"""

from __future__ import annotations

from bisect import insort

import msgspec

from feedmill.distributor.gaps import GapState, new_gap
from feedmill.shared.clock import MS
from feedmill.shared.events import Flag, Gap, Ticker

CHANNEL = "Ticker"
WINDOW = 16
"""Ids remembered: a swapped message is late within it, a repeated one is known."""
_LATE = int(Flag.LATE)


class TickerTrack(msgspec.Struct, array_like=True):
    """State of one instrument's tickers; is its own checkpoint field."""

    symbol: str
    last: Ticker
    """By id the highest, or by exchange time the latest."""
    recent: list[int] = msgspec.field(default_factory=list)
    """Class monotonic: the highest ids emitted, ascending. Class primary: the hashes emitted last."""
    gaps: GapState = msgspec.field(default_factory=GapState)
    source: str = ""
    """Class primary: the connection that counts; empty = the next one that brings something."""
    cause: str = ""
    """Why the one before ended."""
    ahead: tuple[int, int] = (0, 0)
    """Exchange time and hash of the latest ticker that another source has shown and this one had not; 0 = none."""
    floor_ns: int = 0
    """Exchange time up to which a source before has brought what there was."""

    @classmethod
    def begin(cls, ticker: Ticker, source: str = "") -> TickerTrack:
        return cls(ticker.symbol, ticker, [ticker.seq], source=source)

    def remember(self, number: int) -> None:
        self.recent.append(number)
        if len(self.recent) > 2 * WINDOW:
            del self.recent[:-WINDOW]

    def accept_monotonic(self, ticker: Ticker, gaps: list[Gap]) -> bool:
        """Judge by id; True = emit. A gap that ends here is added to ``gaps``."""
        number = ticker.seq
        if number > self.last.seq:
            self._close(number, ticker, gaps)
            self.last = ticker
            self.remember(number)
            return True
        window = self.recent[-WINDOW:]
        if number in window:
            if number == self.last.seq:
                self._close(number, ticker, gaps)
            return False
        if number < window[0]:
            return False
        self._late(number, ticker, gaps)
        insort(self.recent, number)
        return True

    def accept_primary(self, ticker: Ticker, gaps: list[Gap]) -> bool:
        """Judge one of the primary source; True = emit. ``seq`` is a hash, order is by exchange time."""
        if ticker.exchange_ns < self.floor_ns:
            return False
        later = ticker.exchange_ns >= self.last.exchange_ns
        if later:
            self._close(ticker.exchange_ns // MS, ticker, gaps)
        if ticker.seq in self.recent[-WINDOW:]:
            return False
        if later:
            self.last = ticker
        else:
            self._late(ticker.exchange_ns // MS, ticker, gaps)
        self.remember(ticker.seq)
        return True

    def show(self, ticker: Ticker) -> bool:
        """A source that does not count brings one; True = it is news, which must not be lost if the primary ends."""
        at, last = ticker.exchange_ns, self.last.exchange_ns
        if at < max(last, self.ahead[0]) or ticker.seq == self.ahead[1] or ticker.seq in self.recent[-WINDOW:]:
            return False
        self.ahead = (at, ticker.seq)
        return True

    def take_over(self, source: str, shard: str, at_ns: int, gaps: list[Gap]) -> None:
        """Another source counts from now on. What others have shown meanwhile and none will show again is a gap."""
        at, seq = self.ahead
        if at >= self.last.exchange_ns and seq not in self.recent[-WINDOW:]:
            self.interrupted(self.cause or "disconnected", shard, at_ns, gaps, by_time=True)
        self.source, self.cause, self.ahead, self.floor_ns = source, "", (0, 0), self.last.exchange_ns

    def _close(self, to_seq: int, ticker: Ticker, gaps: list[Gap]) -> None:
        if self.gaps.current is not None and (closed := self.gaps.close(to_seq, ticker.receive_ns, "")) is not None:
            gaps.append(closed)

    def _late(self, place: int, ticker: Ticker, gaps: list[Gap]) -> None:
        ticker.flags |= _LATE
        if (gap := self.gaps.shrink(place)) is not None:
            gaps.append(gap)

    def interrupted(self, cause: str, shard: str, detected_ns: int, gaps: list[Gap], *, by_time: bool) -> None:
        """No connection covers the instrument any more: a gap opens after the last ticker."""
        last = self.last
        from_seq = last.exchange_ns // MS if by_time else last.seq
        gap = self.gaps.open(new_gap(shard, self.symbol, CHANNEL, cause, from_seq, last.receive_ns, detected_ns))
        if gap is not None:
            gaps.append(gap)
