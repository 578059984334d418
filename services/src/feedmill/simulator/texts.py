"""Whole units (ticks, lots) to the venue's decimal text and back. Exact: integers and Decimal only."""

from __future__ import annotations

from decimal import Decimal

_CACHE = 100_000


def decimals_of(value: Decimal) -> int:
    """Digits after the point that ``value`` needs."""
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


class Texts(dict[int, str]):
    """Units -> text, remembered. ``decimals`` digits after the point; ``number`` = JSON number, shortest form with
    at least one digit after the point, and with ``exponents`` now and then as ``2.2e3`` (Deribit prints such)."""

    def __init__(self, unit: Decimal, decimals: int, *, number: bool = False, exponents: bool = False) -> None:
        super().__init__()
        self.decimals = max(decimals, decimals_of(unit))
        self.unit = unit
        self._factor = int(unit.scaleb(self.decimals))
        self._scale = 10**self.decimals
        self._number = number
        self._exponents = exponents

    def __missing__(self, units: int) -> str:
        if len(self) >= _CACHE:
            self.clear()
        text = self.text(units)
        self[units] = text
        return text

    def text(self, units: int) -> str:
        whole, rest = divmod(units * self._factor, self._scale)
        if not self._number:
            return f"{whole}.{rest:0{self.decimals}d}" if self.decimals else str(whole)
        fraction = f"{rest:0{self.decimals}d}".rstrip("0") if self.decimals else ""
        if self._exponents and not fraction and whole >= 1000 and units % 16 == 0:
            digits = str(whole)
            return f"{digits[0]}.{digits[1:].rstrip('0') or '0'}e{len(digits) - 1}"
        return f"{whole}.{fraction or '0'}"


def product_text(units: int, unit: Decimal, minimum: int, *, number: bool = False) -> str:
    """``units * unit`` as exact text with at least ``minimum`` decimals (for sums, not remembered)."""
    return Texts(unit, minimum, number=number).text(units)
