"""Arbitration of tickers: monotonic ids (Binance), or none (Deribit: one source at a time). Pure.

Ids jump, so what a connection missed is known by its extent only: the gap runs from the last one before to the first
one after, both excluded. Batches of two receivers reach Redis in any order, also minutes apart when Redis was away:
what comes late is kept wherever no source has told yet what there was (:mod:`feedmill.distributor.seams`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping

import msgspec

from feedmill.distributor.gaps import CLOSED, GapState, new_gap
from feedmill.distributor.held import Held
from feedmill.distributor.seams import BEGINNING, Seam, fill, settle, within
from feedmill.distributor.sources import SESSION_LOST, brought_until
from feedmill.shared.clock import MS
from feedmill.shared.events import Flag, Gap, Ticker

CHANNEL = "Ticker"
WINDOW = 16
"""Ids remembered: a swapped message is late within it, a repeated one is known."""
SOURCES = 16
"""Connections whose highest id is remembered."""
_LATE = int(Flag.LATE)


class Opening(msgspec.Struct, array_like=True):
    """Class primary: a source that does not count, but brings what came before the first ticker ever."""

    until_ns: int
    """Exchange time of what was the first one so far."""
    last_ns: int
    """Exchange time of the one it brought last."""
    receive_ns: int


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
    floor_ns: int = 0
    """Exchange time up to which a source before has brought what there was."""
    seams: list[Seam] = msgspec.field(default_factory=list)
    """Ascending. The first one begins at -1 and ends at the first ticker ever."""
    reached: dict[str, int] = msgspec.field(default_factory=dict)
    """Class monotonic: connection -> the highest id it brought."""
    whole: dict[str, int] = msgspec.field(default_factory=dict)
    """Class monotonic: connection that brought nothing yet -> id after which it will have missed nothing."""
    since: dict[str, int] = msgspec.field(default_factory=dict)
    """Class monotonic: connection -> when (ns) it was subscribed at the latest."""
    first_ns: int = 0
    """Class primary: exchange time of the first ticker ever; 0 = not known."""
    openings: dict[str, Opening] = msgspec.field(default_factory=dict)
    held: Held = msgspec.field(default_factory=Held)
    ended_ns: int = 0
    """Class primary: until when (ns, receive time) the connection that counted is known to have brought everything,
    once it has ended; 0 = not known."""

    @classmethod
    def begin(
        cls, ticker: Ticker, source: str, unseen: Gap | None, *, by_time: bool, others: Mapping[str, int]
    ) -> TickerTrack:
        """``unseen``: the gap row that ends with it. ``others``: connections subscribed too -> when they were made."""
        track = cls(ticker.symbol, ticker, [ticker.seq], source=source)
        place = ticker.exchange_ns // MS if by_time else ticker.seq
        beginning = Seam(BEGINNING, place, 0, ticker.receive_ns, "sequence", source)
        if unseen is not None:
            beginning = Seam.of(unseen, source)
        if by_time:
            track.first_ns = ticker.exchange_ns
            track.seams = [beginning] if unseen is not None else []
        else:
            track.seams = [beginning]
            track.reached[source] = ticker.seq
            track.since = {other: max(made_ns, ticker.receive_ns) for other, made_ns in others.items()}
        return track

    @property
    def unsettled(self) -> bool:
        """Whether :meth:`settle` has something to do, now or once time has passed."""
        seams = self.seams
        if len(seams) == 1:
            return seams[0].unsettled  # Nearly always: the beginning.
        return any(seam.unsettled for seam in seams)

    def settle(self, before_ns: int, shard: str, gaps: list[Gap]) -> None:
        """Tell what nobody filled (found at or before ``before_ns``, receive time), revise what was told too much."""
        settle(self.seams, before_ns, shard, self.symbol, self.gaps.closed, gaps)

    def remember(self, number: int) -> None:
        self.recent.append(number)
        if len(self.recent) > 2 * WINDOW:
            del self.recent[:-WINDOW]

    # class monotonic
    def accept_monotonic(self, ticker: Ticker, source: str, gaps: list[Gap]) -> bool:
        """Judge by id; True = emit. A gap that ends here is added to ``gaps``."""
        number, last, seams = ticker.seq, self.last, self.seams
        prev = self.reached.get(source)
        if prev is None:
            self.reached[source] = number
            self._limit_sources()
            whole = self.whole.pop(source, None)
            if whole is not None and whole <= number:
                prev = whole
        elif number > prev:
            self.reached[source] = number
        if number > last.seq:
            if self.gaps.current is not None:
                self._close(number, ticker, gaps)
                self._leave_open(source)
            elif prev is None and number - last.seq > 1:
                seams.append(Seam(last.seq, number, last.receive_ns, ticker.receive_ns, "sequence", source))
            if prev is not None and seams and prev < seams[-1].hi:
                fill(seams, prev, number, source, ticker.receive_ns)
            self.last = ticker
            self.remember(number)
            return True
        window = self.recent[-WINDOW:]
        known = number in window
        if known and number == last.seq and self.gaps.current is not None:
            self._close(number, ticker, gaps)
        behind = bool(seams) and (number if prev is None or number < prev else prev) < seams[-1].hi
        if known and not behind:
            return False
        new = not known and (number >= window[0] or (behind and within(seams, number)))
        if behind and (prev is not None or within(seams, number)):
            low, high = (number, number) if prev is None else (min(prev, number), max(prev, number))
            fill(seams, low, high, source, ticker.receive_ns)
        if new:
            ticker.flags |= _LATE
            insort(self.recent, number)
            if len(self.recent) > 2 * WINDOW:
                del self.recent[:-WINDOW]
        return new

    def _leave_open(self, source: str) -> None:
        gap = self.gaps.closed
        if gap is not None and gap.to_seq - gap.from_seq > 1:
            self.seams.append(Seam.of(gap, source))

    def _limit_sources(self) -> None:
        if len(self.reached) > SOURCES:
            del self.reached[min(self.reached, key=self.reached.__getitem__)]

    def subscribed(self, source: str, at_ns: int) -> None:
        """A connection brings it from now on."""
        if source not in self.reached:
            self.since[source] = at_ns

    def source_lost(self, source: str, cause: str, at_ns: int, others: list[str], *, in_order: bool) -> None:
        """A connection brings it no more, or has lost some. ``in_order``: it brought all there was until then.

        Another one that was there before is whole from there on, whatever it brings first.
        """
        reached = self.reached.get(source)
        alive_ns = brought_until(cause, at_ns, in_order=in_order)
        if reached is not None and alive_ns:
            for other in others:
                if self.since.get(other, alive_ns) >= alive_ns:
                    continue
                first = self.reached.get(other)
                if first is None:
                    self.whole[other] = min(reached, self.whole.get(other, reached))
                    continue
                for seam in [seam for seam in self.seams if seam.source == other and seam.to_ns > alive_ns]:
                    if reached < seam.hi <= first:
                        fill(self.seams, reached, seam.hi, other, at_ns)
        for seam in self.seams:
            if seam.waiting:
                seam.cause = cause
        self.since.pop(source, None)
        self.whole.pop(source, None)
        if cause != SESSION_LOST:
            # A session that fell silent, or was replaced, may bring more of the same.
            self.reached.pop(source, None)

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

    def is_news(self, ticker: Ticker) -> bool:
        """Whether nothing emitted is as late, or is the same."""
        last = self.last.exchange_ns
        at = ticker.exchange_ns
        return at > last or (at == last and ticker.seq not in self.recent[-WINDOW:])

    def primary_ended(self, cause: str, at_ns: int, *, in_order: bool) -> None:
        """The connection that counts brings it no more, or has lost some."""
        self.source, self.cause = "", cause
        self.ended_ns = brought_until(cause, at_ns, in_order=in_order)

    def take_over(self, source: str, shard: str, at_ns: int, gaps: list[Gap], *, whole: bool) -> None:
        """Another source counts from now on. ``whole``: it has, and gives, all that came after the last one emitted."""
        if not whole:
            self.interrupted(self.cause or "disconnected", shard, at_ns, gaps, by_time=True)
        self.source, self.cause, self.floor_ns = source, "", self.last.exchange_ns
        self.ended_ns = 0

    def is_before(self, ticker: Ticker, source: str) -> bool:
        """Whether a source that does not count brings what came before the first one ever, or goes on with that."""
        return source in self.openings or ticker.exchange_ns < self.first_ns

    def accept_before(self, ticker: Ticker, source: str) -> bool:
        """Judge one of those; True = emit, as late."""
        at = ticker.exchange_ns
        opening = self.openings.get(source)
        if opening is None:
            opening = self.openings[source] = Opening(self.first_ns, at, ticker.receive_ns)
            self.first_ns = at
            if self.seams:
                self.seams[0].hi, self.seams[0].changed = at // MS, True
        elif at >= opening.until_ns:
            del self.openings[source]
            return False
        opening.last_ns, opening.receive_ns = at, ticker.receive_ns
        ticker.flags |= _LATE
        return True

    def end_opening(self, source: str, cause: str, shard: str, at_ns: int, gaps: list[Gap]) -> None:
        """The source ended before it had come to where the first one was: nobody else has what is between."""
        opening = self.openings.pop(source, None)
        if opening is None:
            return
        gap = new_gap(shard, self.symbol, CHANNEL, cause, opening.last_ns // MS, opening.receive_ns, at_ns)
        gap.state, gap.to_seq, gap.to_ns = CLOSED, opening.until_ns // MS, at_ns
        gaps.append(gap)

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
