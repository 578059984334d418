"""All of the venue's candles of a shard: which track one goes to, which connection counts, what ends with it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from feedmill.distributor.candles import CHANNEL, CandleTrack
from feedmill.distributor.output import Output
from feedmill.distributor.sources import Sources
from feedmill.exchanges.base import ChannelName
from feedmill.shared.events import Candle


class VenueCandles:
    """``touched``: checkpoint fields that the next commit writes, as the engine keeps them."""

    def __init__(
        self,
        shard: str,
        tracks: dict[tuple[str, str], CandleTrack],
        out: Output,
        sources: Sources,
        touched: dict[str, Any],
        is_retired: Callable[[ChannelName, str, str], bool],
    ) -> None:
        """``is_retired``: whether a topic (channel, symbol, interval) is wanted no longer."""
        self.tracks = tracks
        """(symbol, interval) -> its candles."""
        self._shard = shard
        self._out = out
        self._sources = sources
        self._touched = touched
        self._is_retired = is_retired

    def take(self, candle: Candle, source: str) -> None:
        symbol, interval = candle.symbol, candle.interval
        block = self._out.events
        track = self.tracks.get((symbol, interval))
        if track is None:
            if self._is_retired(ChannelName.CANDLES, symbol, interval):
                return
            track = self.tracks[symbol, interval] = CandleTrack(candle, source)
            block.candles.append(candle)
        elif source != track.source and track.source and self._sources.is_live(track.source):
            self._out.duplicates += 1
            if not track.show(candle, source):
                return
        else:
            if source != track.source:
                self._taken_over(track, source)
            if not track.accept(candle, source, self._shard, block.candles, block.gaps):
                self._out.duplicates += 1
        self._touched[field_of(symbol, interval)] = track

    def lost(self, symbol: str, source: str, cause: str, others: Iterable[str], until_ns: int) -> None:
        """A connection brings them no more, or has lost some; ``until_ns``: until when it is known to have brought all
        (:func:`feedmill.distributor.sources.brought_until`)."""
        for (name, interval), track in self.tracks.items():
            if name == symbol and (track.source == source or source in track.beside):
                if (heir := track.ended(source, cause, others, until_ns)) is not None:
                    self._taken_over(track, heir)
                self._touched[field_of(name, interval)] = track

    def _taken_over(self, track: CandleTrack, source: str) -> None:
        since_ns = self._sources.brings_since(source, (CHANNEL, track.last.symbol, track.last.interval))
        block = self._out.events
        track.take_over(source, self._shard, block.candles, block.gaps, since_ns=since_ns)

    def forget(self, symbol: str, interval: str, *, ended: bool) -> bool:
        """Drop what is known of it; False = there is nothing, or it is kept as it owes a gap and has not ``ended``."""
        track = self.tracks.get((symbol, interval))
        if track is None or (track.cause and not ended):
            return False
        del self.tracks[symbol, interval]
        return True


def field_of(symbol: str, interval: str) -> str:
    """Its checkpoint field."""
    return f"c:{symbol}/{interval}"
