"""A real order book that changes by a seeded walk: whole ticks and lots, best prices tracked, changes remembered.

Each side has a level at most of the ticks of a window that moves with the best price. Every change of a level takes
the next update id (``step``: how far ids jump).
"""

from __future__ import annotations

import random

from feedmill.simulator.market import SIZES, Market

_TOP = 24
"""Changes away from the top happen within this many ticks of it."""
_REACH = 6
"""Ticks the top moves at most in one change."""


class OrderBook:
    """``pending_*`` remember since :meth:`take_changes`: tick -> the level existed then."""

    def __init__(self, market: Market, seed: int, levels: int, *, seq: int, step: int = 1) -> None:
        rng = random.Random(f"{seed}:{market.listing.native}:book")
        self._bits = rng.getrandbits
        self._market = market
        self._sizes = market.sizes
        self._at = 0
        self._step = step
        self.levels = max(8, min(levels, market.start // 2 - 8))
        self.best_bid = market.mid
        self.best_ask = market.mid + 1
        self.bids = {self.best_bid - i: self._next_size() for i in range(self.levels)}
        self.asks = {self.best_ask + i: self._next_size() for i in range(self.levels)}
        self.seq = seq
        """Id of the last change."""
        self.first_seq = seq
        """Id of the first change since :meth:`take_changes`."""
        self.last_taken = seq
        """Id of the last change when :meth:`take_changes` was called last."""
        self.remember = False
        self.pending_bids: dict[int, bool] = {}
        self.pending_asks: dict[int, bool] = {}

    def _next_size(self) -> int:
        # In turn, not at random: two tops within 2048 changes never look the same (Deribit quotes have no id).
        self._at = (self._at + 1) % SIZES
        return self._sizes[self._at]

    def _touch_id(self) -> None:
        self.seq += 1 if self._step == 1 else 1 + self._bits(16) % self._step

    def _set_bid(self, tick: int, lots: int) -> None:
        self._touch_id()
        if self.remember:
            if not self.pending_bids and not self.pending_asks:
                self.first_seq = self.seq
            self.pending_bids.setdefault(tick, tick in self.bids)
        if lots:
            self.bids[tick] = lots
        else:
            self.bids.pop(tick, None)

    def _set_ask(self, tick: int, lots: int) -> None:
        self._touch_id()
        if self.remember:
            if not self.pending_bids and not self.pending_asks:
                self.first_seq = self.seq
            self.pending_asks.setdefault(tick, tick in self.asks)
        if lots:
            self.asks[tick] = lots
        else:
            self.asks.pop(tick, None)

    def touch(self, follow: bool) -> None:
        """Change the top. ``follow`` = move towards the trades' price; else the book walks by itself."""
        bits = self._bits(16)
        if follow:
            move = self._market.mid - self.best_bid
            move = max(-_REACH, min(_REACH, move))
        elif bits & 3:
            move = 0
        else:
            market = self._market
            down = (bits >> 4 & 0xFF) < 128 + (self.best_bid - market.start) * 128 // market.band
            move = -1 if down else 1
        for _ in range(abs(move)):
            self._up() if move > 0 else self._down()
        self._set_bid(self.best_bid, self._next_size())
        if bits & 0x1000:
            self._set_ask(self.best_ask, self._next_size())

    def change(self) -> None:
        """Change one level near the top: mostly its size, at times remove it or add it again."""
        bits = self._bits(16)
        offset = 1 + (bits >> 1) % min(_TOP, self.levels - 2)
        gone = (bits >> 8) % 7 == 0
        if bits & 1:
            tick = self.best_bid - offset
            self._set_bid(tick, 0 if gone and tick in self.bids else self._next_size())
        else:
            tick = self.best_ask + offset
            self._set_ask(tick, 0 if gone and tick in self.asks else self._next_size())

    def _up(self) -> None:
        if self.best_ask == self.best_bid + 1:
            self._set_ask(self.best_ask, 0)
            self._raise_ask()
        self.best_bid += 1
        self._set_bid(self.best_bid, self._next_size())
        tail = self.best_bid - self.levels
        if tail in self.bids:
            self._set_bid(tail, 0)

    def _down(self) -> None:
        self._set_bid(self.best_bid, 0)
        before = self.best_bid
        self.best_bid -= 1
        while self.best_bid not in self.bids:
            self.best_bid -= 1
        for tail in range(before - self.levels, self.best_bid - self.levels, -1):
            self._set_bid(tail, self._next_size())
        if self.best_ask > before:
            # The ask side comes down by as much as one tick, so the spread stays small.
            self.best_ask -= 1
            if self.best_ask not in self.asks:
                self._set_ask(self.best_ask, self._next_size())
            tail = self.best_ask + self.levels
            if tail in self.asks:
                self._set_ask(tail, 0)

    def _raise_ask(self) -> None:
        before = self.best_ask
        self.best_ask += 1
        while self.best_ask not in self.asks:
            self.best_ask += 1
        for tail in range(before + self.levels, self.best_ask + self.levels):
            self._set_ask(tail, self._next_size())

    @property
    def changed(self) -> bool:
        return bool(self.pending_bids or self.pending_asks)

    def take_changes(self) -> tuple[int, int, int, list[tuple[int, int, bool]], list[tuple[int, int, bool]]]:
        """(first id, last id, last id of the changes before, bids, asks) since the last call, best first.

        A change is (tick, lots now (0 = gone), existed before).
        """
        bids = [(tick, self.bids.get(tick, 0), self.pending_bids[tick]) for tick in sorted(self.pending_bids)[::-1]]
        asks = [(tick, self.asks.get(tick, 0), self.pending_asks[tick]) for tick in sorted(self.pending_asks)]
        self.pending_bids.clear()
        self.pending_asks.clear()
        previous, self.last_taken = self.last_taken, self.seq
        return self.first_seq, self.seq, previous, bids, asks

    def image(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """All levels, best first."""
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
