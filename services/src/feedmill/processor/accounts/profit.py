"""Realised profit of one position from its fills, by average cost. Pure, exact but for two rounded divisions.

Fees are left out: they are in their own currencies (table ``result_fees``). Every step rounds the same way whether the
fills come one by one or all again, so that both end in equal numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal

ZERO = Decimal(0)
_PLACES = Decimal(1).scaleb(-24)
_CONTEXT = Context(prec=120, rounding=ROUND_HALF_EVEN)
BUY = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """How an instrument turns prices into money."""

    currency: str
    """In which profit is counted."""
    inverse: bool
    """Size is in quote currency and profit in base (Deribit's BTC-PERPETUAL)."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What counts of a fill."""

    exchange_ns: int
    trade_id: str
    order_id: str
    side: int
    price: Decimal
    size: Decimal

    @property
    def place(self) -> tuple[int, int, str, str]:
        """The order in which fills count: by time; in one ms by the venue's number, which has no leading zeros."""
        return self.exchange_ns, len(self.trade_id), self.trade_id, self.order_id


@dataclass(frozen=True, slots=True)
class Result:
    size: Decimal = ZERO
    """Signed sum of the fills."""
    average: Decimal | None = None
    """Of what is open."""
    realised: Decimal = ZERO
    fills: int = 0
    last_ns: int = 0

    def after(self, fill: Execution, *, inverse: bool) -> Result:
        signed = fill.size if fill.side == BUY else -fill.size
        total = _CONTEXT.add(self.size, signed)
        average, realised = self.average, self.realised
        if not self.size or average is None or (self.size > 0) == (signed > 0):
            average = _average(self.size, average, signed, fill.price, inverse=inverse) if signed else average
        else:
            closed = self.size if abs(signed) >= abs(self.size) else -signed
            realised = _CONTEXT.add(realised, _profit(closed, average, fill.price, inverse=inverse))
            if (total > 0) != (self.size > 0):
                average = fill.price  # Turned: what is left was opened by this fill.
        if not total:
            average = None
        return replace(self, size=total, average=average, realised=realised, fills=self.fills + 1,
                       last_ns=max(self.last_ns, fill.exchange_ns))  # fmt: skip


def result_of(fills: Iterable[Execution], *, inverse: bool, before: Result | None = None) -> Result:
    """``before``: of fills that are all earlier than these."""
    result = before or Result()
    for fill in sorted(fills, key=lambda each: each.place):
        result = result.after(fill, inverse=inverse)
    return result


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_PLACES, context=_CONTEXT)


def _average(held: Decimal, average: Decimal | None, signed: Decimal, price: Decimal, *, inverse: bool) -> Decimal:
    c = _CONTEXT
    if not held or average is None:
        return price
    total = c.add(held, signed)
    if inverse:
        return _rounded(c.divide(total, c.add(c.divide(held, average), c.divide(signed, price))))
    return _rounded(c.divide(c.add(c.multiply(held, average), c.multiply(signed, price)), total))


def _profit(closed: Decimal, average: Decimal, price: Decimal, *, inverse: bool) -> Decimal:
    """Of closing ``closed`` (signed as it was held) at ``price``."""
    c = _CONTEXT
    if inverse:
        return _rounded(c.subtract(c.divide(closed, average), c.divide(closed, price)))
    return c.multiply(closed, c.subtract(price, average))
