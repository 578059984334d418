"""Arbitration of tickers: monotonic ids (Binance), or none (Deribit: one source at a time). Pure.

Ids jump, so what a connection missed is known by its extent only: the gap runs from the last one before to the first
one after, both excluded.
"""

from __future__ import annotations

import msgspec

from feedmill.distributor.gaps import GapState, new_gap
from feedmill.shared.clock import MS
from feedmill.shared.events import Flag, Gap, Ticker

CHANNEL = "Ticker"
WINDOW = 16
"""Ids remembered: a swapped message is late within it, a repeated one is known."""
KEPT = 64
"""Tickers of other sources that are kept while one is primary."""
_LATE = int(Flag.LATE)


class TickerTrack(msgspec.Struct, array_like=True):
    """State of one instrument's tickers; is its own checkpoint field."""

    symbol: str
    last: Ticker
    """By id the highest, or by exchange time the latest."""
    recent: list[int] = msgspec.field(default_factory=list)
    """Ids emitted last, in the order of emission."""
    gaps: GapState = msgspec.field(default_factory=GapState)
    source: str = ""
    """Class primary: the connection that counts."""

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
        if number < min(window):
            return False
        ticker.flags |= _LATE
        self.remember(number)
        return True

    def accept_primary(self, ticker: Ticker, gaps: list[Gap]) -> bool:
        """Judge one of the primary source; True = emit. ``seq`` is a hash, order is by exchange time."""
        later = ticker.exchange_ns >= self.last.exchange_ns
        if later:
            self._close(ticker.exchange_ns // MS, ticker, gaps)
        if ticker.seq in self.recent[-WINDOW:]:
            return False
        if later:
            self.last = ticker
        else:
            ticker.flags |= _LATE
        self.remember(ticker.seq)
        return True

    def _close(self, to_seq: int, ticker: Ticker, gaps: list[Gap]) -> None:
        if self.gaps.current is not None and (closed := self.gaps.close(to_seq, ticker.receive_ns, "")) is not None:
            gaps.append(closed)

    def interrupted(self, cause: str, shard: str, detected_ns: int, gaps: list[Gap], *, by_time: bool) -> None:
        """No connection covers the instrument any more: a gap opens after the last ticker."""
        last = self.last
        from_seq = last.exchange_ns // MS if by_time else last.seq
        gap = self.gaps.open(new_gap(shard, self.symbol, CHANNEL, cause, from_seq, last.receive_ns, detected_ns))
        if gap is not None:
            gaps.append(gap)
