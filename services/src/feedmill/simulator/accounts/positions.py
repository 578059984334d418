"""How a fill changes a position: average entry price, what is realised, in the settlement currency."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from feedmill.simulator.accounts.model import ZERO, Position

EIGHT = Decimal("0.00000001")


def rounded(value: Decimal) -> Decimal:
    return value.quantize(EIGHT, ROUND_HALF_EVEN)


def realised(size: Decimal, entry: Decimal, price: Decimal, *, inverse: bool) -> Decimal:
    """Profit of closing ``size`` (signed) held at ``entry`` at ``price``."""
    if not size:
        return ZERO
    return rounded(size * (1 / entry - 1 / price) if inverse else size * (price - entry))


def apply_fill(position: Position, signed: Decimal, price: Decimal, *, inverse: bool) -> Decimal:
    """Add ``signed`` (above 0 = bought) at ``price``; returns what was realised."""
    held, total = position.size, position.size + signed
    closed = ZERO
    if held and (held > 0) != (signed > 0):
        closed = held if abs(signed) >= abs(held) else -signed
    pnl = realised(closed, position.entry, price, inverse=inverse)
    if not total:
        position.entry = ZERO
    elif not held or (held > 0) != (total > 0):
        position.entry = price
    elif not closed:
        position.entry = rounded(
            total / (held / position.entry + signed / price)
            if inverse
            else (held * position.entry + signed * price) / total
        )
    position.size = total
    position.realised += pnl
    return pnl
