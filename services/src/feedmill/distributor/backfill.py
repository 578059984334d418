"""Gaps of trades are asked for by REST: what, when, how often, and when to stop. Pure.

A hole that became a gap is asked for a page at a time, oldest numbers first, since those are the first that a venue
drops. Each page is one command and one answer. What was asked is part of the checkpoint and goes into the same commit
as the command, so a crash of anyone in between only means that it is asked again; numbers that come twice
are known. A request that failed is made again for ever, ever more seldom; numbers that the venue left out of answers,
or refuses, are given up after a few of these, and their gap stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

import msgspec

from feedmill.distributor.gaps import joined, within, without
from feedmill.distributor.output import GivenUp, Output
from feedmill.distributor.trades import CHANNEL, TradeTrack
from feedmill.shared.clock import MS, SECOND

PER_INSTRUMENT = 8
"""Pages of one instrument that are asked for or wait to be asked for again."""
IN_ALL = 1000
"""The same of a shard."""
UNDER_WAY = 16
"""Commands of a shard without an answer: bounds what answers bring at a time."""
LOOK_NS = 100 * MS
LOOKED_AT = 64
"""Instruments a look takes in, so that it stays short."""
OVERDUE_NS = 180 * SECOND
"""A command without an answer for so long is lost: longer than receivers try. Where one of them ended with what it had
claimed, that is known at once (:meth:`Backfill.again`)."""
RETRY_NS = 2 * SECOND
MAX_RETRY_NS = 120 * SECOND
ABSENT = 5
"""Answers without a number, or refusals, after which it is given up. A venue's history may be a little late."""
ABSENT_AMONG = 2
"""The same where the answers had later numbers."""
ABSENT_NS = (0, SECOND, 5 * SECOND, 30 * SECOND, 120 * SECOND)
"""Wait after so many answers without it."""


class Ask(msgspec.Struct, array_like=True):
    """One page."""

    low: int
    high: int
    command: str = ""
    """Under way; empty = to be asked (again) at ``due_ns``."""
    due_ns: int = 0
    """When it is overdue, or to be asked."""
    failures: int = 0
    """Requests in a row that brought no answer."""
    absent: int = 0
    """Answers in a row that brought nothing of it, and refusals."""


class Filling(msgspec.Struct, array_like=True):
    """What is asked for of one instrument; is its own checkpoint field."""

    symbol: str
    asks: list[Ask] = msgspec.field(default_factory=list)
    """Ascending, without overlap."""


class Backfill:
    """Of one shard. ``touched`` and ``gone`` name what the next commit must write and delete, ``tracks`` whose tracks
    changed."""

    def __init__(
        self,
        shard: str,
        page: int,
        tracks: Mapping[str, TradeTrack],
        fillings: dict[str, Filling],
        out: Output,
        native: Callable[[str], str],
    ) -> None:
        """``page``: most trades of a request; 0 = nothing is asked for. ``native``: the venue's name of a symbol."""
        self._shard = shard
        self._page = page
        self._tracks = tracks
        self._out = out
        self._native = native
        self.fillings = fillings
        self.touched: set[str] = set()
        self.gone: set[str] = set()
        self.tracks: set[str] = set()
        self._wanting: dict[str, None] = {}
        """Instruments to look at, the one that waited longest first."""
        self._look_ns = 0
        for symbol, track in tracks.items():
            if symbol in fillings or track.told:
                self.want(symbol)

    def want(self, symbol: str) -> None:
        """A gap was told."""
        if self._page:
            self._wanting[symbol] = None

    @property
    def waiting(self) -> int:
        """Pages asked for or to be asked for again."""
        return sum(len(filling.asks) for filling in self.fillings.values())

    @property
    def under_way(self) -> int:
        return sum(bool(ask.command) for filling in self.fillings.values() for ask in filling.asks)

    def tick(self, now_ns: int, read_ns: int) -> None:
        """Ask for what is due. ``read_ns``: everything that came before that time was read."""
        if not self._wanting or 0 <= now_ns - self._look_ns < LOOK_NS:
            return
        self._look_ns = now_ns
        free = UNDER_WAY - self.under_way
        room = IN_ALL - self.waiting
        for symbol in list(islice(self._wanting, LOOKED_AT)):
            del self._wanting[symbol]
            issued, added = self._look(symbol, now_ns, read_ns, free, room)
            free -= issued
            room -= added

    def _look(self, symbol: str, now_ns: int, read_ns: int, free: int, room: int) -> tuple[int, int]:
        """Answers how many commands were issued, and how many pages are new."""
        track = self._tracks.get(symbol)
        wanted = [part for hole in track.told for part in hole.wanted] if track is not None else []
        filling = self.fillings.get(symbol) or Filling(symbol)
        before = len(filling.asks)
        filling.asks = [ask for ask in filling.asks if within(wanted, ask.low, ask.high)]
        for ask in filling.asks:
            if ask.command and read_ns >= ask.due_ns:
                self._failed(filling, ask, now_ns)
        added = self._add(filling, wanted, min(room, PER_INSTRUMENT - len(filling.asks)))
        issued = 0
        for ask in filling.asks:
            if issued < free and not ask.command and now_ns >= ask.due_ns:
                assert track is not None
                self._issue(track, ask, now_ns)
                issued += 1
        if track is not None:
            self._say(track)
        if wanted:
            self._wanting[symbol] = None
            if issued or added or len(filling.asks) != before:
                self._changed(filling)
        elif self.fillings.pop(symbol, None) is not None:
            self.touched.discard(symbol)
            self.gone.add(symbol)
        return issued, added

    @property
    def idle(self) -> bool:
        """Nothing is wanted that may still be had."""
        return not self._wanting

    def _add(self, filling: Filling, wanted: list[tuple[int, int]], most: int) -> int:
        """Cut pages out of what nobody asks for yet; answers how many."""
        left = without(wanted, [(ask.low, ask.high) for ask in filling.asks])
        begun = len(filling.asks)
        while left and len(filling.asks) - begun < most:
            low = left[0][0]
            end = min((ask.low for ask in filling.asks if ask.low > low), default=low + self._page)
            high = within(left, low, min(low + self._page, end) - 1)[-1][1]
            filling.asks = sorted([*filling.asks, Ask(low, high)], key=lambda ask: ask.low)
            left = without(left, [(low, high)])
        return len(filling.asks) - begun

    def again(self, living: list[str], now_ns: int) -> None:
        """Sessions began or ended: what is under way is issued once more, for those that live to carry out if the one
        that had claimed it does not. It is the same command, so one that lives and works on it goes on."""
        for filling in self.fillings.values():
            track = self._tracks.get(filling.symbol)
            for ask in filling.asks:
                if ask.command and track is not None:
                    self._issue(track, ask, now_ns, living)
                    self.touched.add(filling.symbol)

    def _issue(self, track: TradeTrack, ask: Ask, now_ns: int, living: list[str] | None = None) -> None:
        between = [hole for hole in track.told if hole.from_seq <= ask.high and hole.to_seq >= ask.low]
        ask.command = self._out.command(
            "trades", track.symbol, self._native(track.symbol), CHANNEL, now_ns, "gap", ask.command, living,
            from_id=ask.low, to_id=ask.high,
            from_ns=between[0].from_ns if between else 0, to_ns=between[-1].to_ns if between else 0,
        )  # fmt: skip
        ask.due_ns = now_ns + OVERDUE_NS

    # answers
    def failed(self, command: str, symbol: str, status: int, now_ns: int) -> None:
        """A command was given up by the receivers; ``status``: the venue refused it."""
        filling, ask = self._asked(command, symbol)
        if filling is None or ask is None:
            return
        if status:
            self._missed(filling, ask, (), now_ns)
        else:
            self._failed(filling, ask, now_ns)

    def answered(self, command: str, symbol: str, numbers: Iterable[int], stored: int, now_ns: int) -> None:
        """A command's answer had these ``numbers``, of which ``stored`` were missing."""
        filling, ask = self._asked(command, symbol)
        if filling is None or ask is None:
            return
        left = self._left(symbol, ask.low, ask.high)
        if not left:
            filling.asks.remove(ask)
        elif stored:
            # More may follow at once: the venue gives fewer at a time, or what is left is not there.
            ask.low, ask.command, ask.due_ns, ask.failures, ask.absent = left[0][0], "", now_ns, 0, 0
        else:
            self._missed(filling, ask, numbers, now_ns)
        self._changed(filling)

    def _missed(self, filling: Filling, ask: Ask, numbers: Iterable[int], now_ns: int) -> None:
        """An answer without anything that was asked for."""
        found = sorted(numbers)
        left = self._left(filling.symbol, ask.low, ask.high)
        ask.absent += 1
        ask.failures, ask.command = 0, ""
        among = bool(found and left and left[-1][1] < found[-1])
        if ask.absent < (ABSENT_AMONG if among else ABSENT):
            ask.due_ns = now_ns + ABSENT_NS[ask.absent]
        else:
            # Where the history begins later than what was asked for, nothing before that is there either.
            self._give_up(filling.symbol, ask.low, max(ask.high, found[0] - 1) if found else ask.high)
            filling.asks.remove(ask)
        self._changed(filling)

    def _give_up(self, symbol: str, low: int, high: int) -> None:
        track = self._tracks.get(symbol)
        for hole in track.told if track is not None else ():
            if within(hole.wanted, low, high):
                hole.give_up(low, high)
                self.tracks.add(symbol)

    def _say(self, track: TradeTrack) -> None:
        """Once for each gap that stays open."""
        for hole in track.told:
            if hole.given_up and not hole.said and not hole.wanted:
                hole.said = True
                self.tracks.add(track.symbol)
                count = sum(b - a + 1 for a, b in hole.missing)
                self._out.given_up.append(GivenUp(f"{self._shard}/{track.symbol}/{CHANNEL}/{hole.from_seq}", count))

    def _failed(self, filling: Filling, ask: Ask, now_ns: int) -> None:
        ask.failures += 1
        ask.command, ask.due_ns = "", now_ns + min(RETRY_NS << min(ask.failures - 1, 10), MAX_RETRY_NS)
        self._changed(filling)

    def _asked(self, command: str, symbol: str) -> tuple[Filling | None, Ask | None]:
        filling = self.fillings.get(symbol)
        if filling is None or not command:
            return None, None
        return filling, next((ask for ask in filling.asks if ask.command == command), None)

    def _left(self, symbol: str, low: int, high: int) -> list[tuple[int, int]]:
        track = self._tracks.get(symbol)
        if track is None:
            return []
        return joined([part for hole in track.told for part in within(hole.wanted, low, high)])

    def _changed(self, filling: Filling) -> None:
        self.fillings[filling.symbol] = filling
        self.touched.add(filling.symbol)
        self.gone.discard(filling.symbol)
