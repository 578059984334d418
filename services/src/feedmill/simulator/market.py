"""One instrument's trades: a seeded walk, contiguous ids, one-minute bars and a bounded history for REST.

Everything is whole ticks and lots. The sequence of (id, price, size, side) depends on the seed alone; only the times
are the clock's.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from dataclasses import dataclass
from decimal import Decimal

from feedmill.simulator.catalog import Listing
from feedmill.simulator.texts import Texts, decimals_of, product_text

SIZES = 2048
MINUTE_MS = 60_000
INVERSE = 10**12
_BARS = 3000


@dataclass(slots=True)
class Bar:
    """A candle in ticks and lots. Empty: ``first`` = -1 and count 0; prices then repeat the last close."""

    open_ms: int
    first: int
    last: int
    open: int
    high: int
    low: int
    close: int
    lots: int = 0
    quote: int = 0
    """Sum of ticks * lots; of inverse contracts: of lots * INVERSE // ticks (their volume in coin)."""
    count: int = 0
    taker_lots: int = 0
    """Of trades whose taker bought."""
    taker_quote: int = 0

    def add(self, other: Bar) -> None:
        """Append a later bar."""
        if not other.count:
            return
        if not self.count:
            self.first, self.open, self.high, self.low = other.first, other.open, other.high, other.low
        self.last, self.close = other.last, other.close
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.lots += other.lots
        self.quote += other.quote
        self.count += other.count
        self.taker_lots += other.taker_lots
        self.taker_quote += other.taker_quote


MarketTrade = tuple[int, int, int, int, int, int, int]
"""(unit id, ticks, lots, taker bought 0|1, time ms, first raw id, last raw id)"""


class Market:
    """``raw_per_unit``: up to how many raw trades a unit covers (USD-M aggregates: 3; else 1)."""

    def __init__(
        self,
        listing: Listing,
        seed: int,
        *,
        id_base: int | None,
        history: int,
        raw_per_unit: int = 1,
        number: bool = False,
    ) -> None:
        self.listing = listing
        name = zlib.crc32(listing.native.encode())
        rng = random.Random(f"{seed}:{listing.native}:trades")
        self._bits = rng.getrandbits
        self.start = max(40, int(listing.price / listing.tick))
        self.band = max(15, self.start // 50)
        self.mid = self.start
        """Best bid of the walk; the best ask is one tick above."""
        self.sizes = sorted(rng.sample(range(1, 20_001), SIZES), key=lambda _: rng.random())
        self.prices = Texts(listing.tick, listing.price_decimals, number=number)
        self.amounts = Texts(listing.lot, listing.size_decimals, number=number, exponents=number)
        self.next_id = (id_base if id_base is not None else 1_000_000_000 + name % 1_000_000_000) + 1
        self.next_raw = self.next_id + (0 if raw_per_unit == 1 else 2_000_000_000)
        self._raw = raw_per_unit
        self.history: deque[MarketTrade] = deque(maxlen=history)
        self.bars: deque[Bar] = deque(maxlen=_BARS)
        """Closed minutes, without holes from the first one on."""
        self.bar: Bar | None = None
        """The minute that runs; None before the first tick."""
        self._number = number
        self._inverse = listing.inverse

    def minute(self, now_ms: int) -> Bar | None:
        """Enter the minute of ``now_ms``; returns the bar that just closed, if one did. Call before trading."""
        open_ms = now_ms - now_ms % MINUTE_MS
        bar = self.bar
        if bar is not None and bar.open_ms >= open_ms:
            return None
        self.bar = Bar(open_ms, -1, -1, *(4 * [self.mid if bar is None else bar.close]))
        if bar is None:
            return None
        self.bars.append(bar)
        for missed in range(bar.open_ms + MINUTE_MS, open_ms, MINUTE_MS):
            self.bars.append(Bar(missed, -1, -1, *(4 * [bar.close])))
        return bar

    def trade(self, now_ms: int) -> MarketTrade:
        """The next trade, at ``now_ms``. :meth:`minute` must have been called for that time."""
        bits = self._bits(40)
        if not bits & 3:
            # One trade in four moves the price; the further from the start, the likelier back.
            down = (bits >> 24 & 0xFF) < 128 + (self.mid - self.start) * 128 // self.band
            step = 1 + (bits >> 32 & 3)
            self.mid += -step if down else step
        buy = bits >> 2 & 1
        ticks = self.mid + buy
        lots = self.sizes[bits >> 3 & SIZES - 1]
        unit = self.next_id
        self.next_id = unit + 1
        first = self.next_raw
        last = first if self._raw == 1 else first + (bits >> 14 & 15) % min(self._raw, lots)
        self.next_raw = last + 1
        trade = (unit, ticks, lots, buy, now_ms, first, last)
        self.history.append(trade)
        bar = self.bar
        assert bar is not None
        if not bar.count:
            bar.first, bar.open, bar.high, bar.low = first, ticks, ticks, ticks
        elif ticks > bar.high:
            bar.high = ticks
        elif ticks < bar.low:
            bar.low = ticks
        bar.last = last
        bar.close = ticks
        bar.lots += lots
        quote = lots * INVERSE // ticks if self._inverse else ticks * lots
        bar.quote += quote
        bar.count += last - first + 1
        if buy:
            bar.taker_lots += lots
            bar.taker_quote += quote
        return trade

    def interval_bar(self, minutes: int, *, ended: bool = False) -> Bar | None:
        """The bar of ``minutes`` that contains the running minute, or with ``ended`` the one that ended with the last
        closed minute. None when there is none."""
        if self.bar is None or (ended and not self.bars):
            return None
        last = self.bars[-1] if ended else self.bar
        open_ms = last.open_ms - last.open_ms % (minutes * MINUTE_MS)
        parts: list[Bar] = [] if ended else [self.bar]
        for bar in reversed(self.bars):
            if bar.open_ms < open_ms:
                break
            parts.append(bar)
        merged = Bar(open_ms, -1, -1, *(4 * [parts[-1].open]))
        for bar in reversed(parts):
            merged.add(bar)
        return merged

    def volume_text(self, lots: int) -> str:
        return product_text(lots, self.listing.lot, self.listing.size_decimals, number=self._number)

    def quote_text(self, quote: int) -> str:
        """Exact text of a bar's ``quote`` (inverse contracts: coins, to eight decimals)."""
        if self._inverse:
            coins = Decimal(quote) * self.listing.lot / self.listing.tick / INVERSE
            return f"{coins:.8f}"
        unit: Decimal = self.listing.tick * self.listing.lot
        least = self.listing.price_decimals if not self._number else decimals_of(unit)
        return product_text(quote, unit, least, number=self._number)

    def raws(self, trade: MarketTrade) -> list[tuple[int, int]]:
        """(raw id, lots) of the raw trades a unit covers: equal parts, the last takes the rest."""
        _, _, lots, _, _, first, last = trade
        count = last - first + 1
        part = lots // count
        return [(first + i, part if i < count - 1 else lots - part * (count - 1)) for i in range(count)]
