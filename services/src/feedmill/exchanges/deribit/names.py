"""Deribit's instrument names, which are our canonical symbols too. Dossier section 8."""

from __future__ import annotations

import re

_INDEX = r"[A-Z0-9]+(?:_[A-Z0-9]+)?"
_DATE = r"[0-9]{1,2}(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)[0-9]{2}"
_FORMS = re.compile(
    rf"[A-Z0-9]+_[A-Z0-9]+"  # spot
    rf"|{_INDEX}-PERPETUAL"
    rf"|{_INDEX}-{_DATE}(?:-[0-9]+(?:d[0-9]+)?-[CP])?"  # future, option; a strike's decimal point is a d
    rf"|{_INDEX}-[A-Z]{{2,}}[0-9]*-{_DATE}(?:[-_][A-Z0-9]+(?:d[0-9]+)?)*"  # combo
)
_EXAMPLES = "BTC-PERPETUAL, BTC-25SEP26, BTC-27DEC26-100000-C, ETH_USDC or BTC-CS-19MAY26-70000_75000"


def to_native(symbol: str) -> str:
    """The name itself. Raises ValueError with a remedy when it is not of a form the venue uses."""
    if _FORMS.fullmatch(symbol):
        return symbol
    upper = re.sub(r"(?<=\d)D(?=\d)", "d", symbol.upper())
    if upper != symbol and _FORMS.fullmatch(upper):
        raise ValueError(f"{symbol!r} is in lower case: write {upper!r}")
    raise ValueError(f"{symbol!r} is not a Deribit instrument name: write it like {_EXAMPLES}")


def currency_of(native: str) -> tuple[str, str]:
    """(currency, kind) under which ``get_instruments`` lists it; kind "" = all kinds.

    Linear contracts (``SOL_USDC-...``) are listed under what they settle in. A spot pair may be listed under either
    side: all spot pairs are asked for together, they are few.
    """
    index, dash, _ = native.partition("-")
    if not dash:
        return "any", "spot"
    return index.rpartition("_")[2], ""
