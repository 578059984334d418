"""All tickers of a shard: which track a ticker goes to, which connection counts, what ends with a connection. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feedmill.distributor.output import Output
from feedmill.distributor.sources import SESSION_LOST, Sources
from feedmill.distributor.tickers import CHANNEL, TickerTrack
from feedmill.shared.clock import MS
from feedmill.shared.events import Gap, Ticker

_EVER = 2**63 - 1


class Quotes:
    """``touched``: checkpoint fields that the next commit writes, as the engine keeps them."""

    def __init__(
        self,
        shard: str,
        tracks: dict[str, TickerTrack],
        out: Output,
        sources: Sources,
        touched: dict[str, Any],
        begins: Callable[[str, int, int], tuple[bool, Gap | None]],
        *,
        by_time: bool,
    ) -> None:
        """``begins``: whether a first ticker (symbol, place, receive time) is wanted, and the gap that ends with it.
        ``by_time``: class primary."""
        self.tracks = tracks
        self.unsettled = {symbol: track for symbol, track in tracks.items() if track.unsettled}
        """Tracks with a seam that is not a gap yet, or a gap that is to be revised."""
        self._shard = shard
        self._out = out
        self._sources = sources
        self._touched = touched
        self._begins = begins
        self._by_time = by_time

    def take(self, ticker: Ticker, source: str) -> None:
        symbol = ticker.symbol
        gaps = self._out.events.gaps
        track = self.tracks.get(symbol)
        if track is None:
            by_time = self._by_time
            first = ticker.exchange_ns // MS if by_time else ticker.seq
            wanted, unseen = self._begins(symbol, first, ticker.receive_ns)
            if not wanted:
                return
            key = (CHANNEL, symbol, "")
            live = {each: self._sources.connected_ns(each) for each in self._sources.bringing(key)}
            track = self.tracks[symbol] = TickerTrack.begin(ticker, source, unseen, by_time=by_time, others=live)
            accepted = True
        elif not self._by_time:
            accepted = track.accept_monotonic(ticker, source, gaps)
            seams = track.seams
            if (len(seams) > 1 or (seams and seams[0].changed)) and track.unsettled:
                self.unsettled[symbol] = track
        elif source != track.source and track.is_before(ticker, source):
            accepted = track.accept_before(ticker, source)
            if track.unsettled:
                self.unsettled[symbol] = track
        else:
            if source != track.source:
                if track.source and self._sources.is_live(track.source):
                    self._out.duplicates += 1
                    if track.is_news(ticker):
                        if track.held.show(source, ticker):
                            self._taken_over(track, source, None)
                        self._touched["k:" + symbol] = track
                    elif track.held.known(source):
                        self._touched["k:" + symbol] = track
                    return
                self._taken_over(track, source, ticker)
            accepted = track.accept_primary(ticker, gaps)
            track.held.passed(track.last.exchange_ns, ticker.seq)
        self._touched["k:" + symbol] = track
        if accepted:
            self._out.events.tickers.append(ticker)
        else:
            self._out.duplicates += 1

    def _taken_over(self, track: TickerTrack, source: str, ticker: Ticker | None) -> None:
        """``source`` counts from now on, ``ticker`` included: first what it brought while another one did."""
        kept, whole = track.held.take(source)
        kept = [each for each in kept if track.is_news(each)]
        first = kept[0] if kept else ticker
        if first is None:
            return
        since = self._sources.brings_since(source, (CHANNEL, track.symbol, ""))
        whole = whole or 0 < since <= track.ended_ns
        # One of the same ms proves nothing: there may have been others of it between.
        whole = whole or first.exchange_ns < track.last.exchange_ns or first.seq == track.last.seq
        whole = whole and source not in track.held.lost
        track.take_over(source, self._shard, first.receive_ns, self._out.events.gaps, whole=whole)
        for each in kept:
            if track.accept_primary(each, self._out.events.gaps):
                self._out.events.tickers.append(each)

    def subscribed(self, symbol: str, source: str, at_ns: int) -> None:
        """A connection brings it from now on."""
        if not self._by_time and (track := self.tracks.get(symbol)) is not None:
            track.subscribed(source, at_ns)
            self._touched["k:" + symbol] = track

    def lost(self, symbol: str, source: str, cause: str, at_ns: int, others: list[str], *, in_order: bool) -> None:
        """A connection brings it no more, or has lost some (see :meth:`TickerTrack.source_lost`)."""
        track = self.tracks.get(symbol)
        if track is None:
            return
        gaps, by_time = self._out.events.gaps, self._by_time
        if not by_time:
            track.source_lost(source, cause, at_ns, others, in_order=in_order)
            if track.unsettled:
                self.unsettled[track.symbol] = track
        else:
            track.end_opening(source, cause, self._shard, at_ns, gaps)
            if track.source == source:
                track.primary_ended(cause, at_ns, in_order=in_order)
                if (heir := track.held.most_of(others)) is not None:
                    self._taken_over(track, heir, None)
            if cause != SESSION_LOST:
                track.held.forget(source)
        if not others:
            track.interrupted(cause, self._shard, at_ns, gaps, by_time=by_time)
        self._touched["k:" + track.symbol] = track

    def settle(self, before_ns: int) -> None:
        """Seams found before that receive time become gaps."""
        for symbol, track in list(self.unsettled.items()):
            track.settle(before_ns, self._shard, self._out.events.gaps)
            self._touched["k:" + symbol] = track
            if not track.unsettled:
                del self.unsettled[symbol]

    def forget(self, symbol: str) -> bool:
        """Drop what is known of it; False = there is nothing, or it is kept as it owes a gap."""
        track = self.tracks.get(symbol)
        if track is None:
            return False
        track.settle(_EVER, self._shard, self._out.events.gaps)
        self.unsettled.pop(symbol, None)
        if track.gaps.current is not None:
            return False
        del self.tracks[symbol]
        return True
