"""One order book: price levels a side, by exact price. Pure.

A price is the key as an integer of 10^-18, so that equal prices meet however they are written; what is given out is the
venue's own text.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from itertools import islice

import msgspec
from sortedcontainers import SortedDict

from feedmill.exchanges.base import BookUpdate
from feedmill.shared.events import BookDelta, BookSnapshot, Level

DIGITS = 18
MAX_WHOLE = 60
"""Digits before the point a price may have."""


def price_key(text: str) -> int:
    """Exact integer of 10^-18 units; raises ValueError for what is no finite number that fits."""
    whole, _, fraction = text.partition(".")
    if len(fraction) <= DIGITS and (fraction.isdigit() or not fraction) and whole.isdigit() and len(whole) <= MAX_WHOLE:
        return int(whole + fraction.ljust(DIGITS, "0"))
    return _general_key(text)


def _general_key(text: str) -> int:
    """The same for signs, exponents and other spellings. Never by arithmetic of Decimal, which rounds and overflows."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    sign, digits, exponent = number.as_tuple()
    if isinstance(exponent, int) and number.adjusted() < MAX_WHOLE:
        key, shift = int("".join(map(str, digits))), exponent + DIGITS
        rest = 0
        if shift < 0:
            key, rest = divmod(key, int("1" + "0" * min(-shift, len(digits))))
        elif key:
            key = int(str(key) + "0" * shift)
        if not rest:
            return -key if sign else key
    raise ValueError(f"price {text[:40]!r} is no number of at most {DIGITS} decimals")


def is_zero(size: str) -> bool:
    return not size.strip("0.")


class Image(msgspec.Struct, array_like=True):
    """A book as it is kept for a restart."""

    seq: int
    fresh: bool
    exchange_ns: int
    receive_ns: int
    bids: list[Level]
    asks: list[Level]


class Book:
    """Levels of both sides. ``fresh``: no change was applied since the snapshot (venues relate the first one apart)."""

    __slots__ = ("asks", "bids", "exchange_ns", "fresh", "receive_ns", "seq")

    def __init__(self, snapshot: BookUpdate | Image) -> None:
        self.bids: SortedDict[int, Level] = SortedDict()
        self.asks: SortedDict[int, Level] = SortedDict()
        self.seq = snapshot.seq
        self.exchange_ns = snapshot.exchange_ns
        """Exchange time of the last change, ns; 0 = the venue gave none with the snapshot."""
        self.receive_ns = snapshot.receive_ns
        self.fresh = snapshot.fresh if isinstance(snapshot, Image) else True
        _load(self.bids, snapshot.bids, -1)
        _load(self.asks, snapshot.asks, 1)

    def apply(self, update: BookUpdate) -> None:
        """Apply a change whose place in the sequence was checked. Raises ValueError and applies nothing of it."""
        bids = [(-price_key(level[0]), level) for level in update.bids]
        asks = [(price_key(level[0]), level) for level in update.asks]
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for key, level in levels:
                if is_zero(level[1]):
                    side.pop(key, None)
                else:
                    side[key] = level
        self.seq = update.seq
        self.fresh = False
        if update.exchange_ns:
            self.exchange_ns = update.exchange_ns
        self.receive_ns = update.receive_ns

    def top(self, depth: int) -> tuple[list[Level], list[Level]]:
        """The best levels of both sides, best first."""
        return list(islice(self.bids.values(), depth)), list(islice(self.asks.values(), depth))

    def snapshot(self, symbol: str, slot_ns: int, depth: int) -> BookSnapshot:
        bids, asks = self.top(depth)
        return BookSnapshot(symbol, slot_ns, self.seq, self.exchange_ns, self.receive_ns, bids, asks)

    def image(self) -> Image:
        return Image(
            self.seq, self.fresh, self.exchange_ns, self.receive_ns, list(self.bids.values()), list(self.asks.values())
        )

    def image_delta(self, symbol: str) -> BookDelta:
        """The whole book for readers of the events stream."""
        return BookDelta(
            symbol, True, self.seq, self.seq, -1, self.exchange_ns, self.receive_ns,
            list(self.bids.values()), list(self.asks.values()),
        )  # fmt: skip


def _load(side: SortedDict[int, Level], levels: Iterable[Level], sign: int) -> None:
    side.update((sign * price_key(level[0]), level) for level in levels if not is_zero(level[1]))
