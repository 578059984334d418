"""Amounts as the venues write them, and how they say "none" and what happened."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from feedmill.exchanges.base import MapError
from feedmill.shared.events import Side

Amount = Annotated[str, Meta(pattern=r"^-?[0-9]{1,60}(\.[0-9]{1,60})?$")]
"""Exact decimal text: nothing else gets past the mapper, so that sums of fills can be relied on."""

SIDES = {"BUY": int(Side.BUY), "SELL": int(Side.SELL), "buy": int(Side.BUY), "sell": int(Side.SELL)}


def side_of(word: str) -> int:
    found = SIDES.get(word)
    if found is None:
        raise MapError("bad_field", f"side {word[:40]}")
    return found


def given(text: str) -> str:
    """Empty for 0, which is how Binance says that there is none (a market order's price)."""
    return text if text.strip("-0.") else ""


def quotient(total: str, size: str) -> str:
    """The average price where a venue gives sums only; empty when nothing was filled."""
    return format(Decimal(total) / Decimal(size), "f") if given(size) and given(total) else ""


BINANCE_STATES: dict[str, tuple[str, bool]] = {
    "NEW": ("new", False),
    "PENDING_NEW": ("new", False),
    "PENDING_CANCEL": ("new", False),
    "PARTIALLY_FILLED": ("partially_filled", False),
    "FILLED": ("filled", True),
    "CANCELED": ("cancelled", True),
    "REJECTED": ("rejected", True),
    "EXPIRED": ("expired", True),
    "EXPIRED_IN_MATCH": ("expired", True),
}
"""Order status -> (ours, nothing more can happen)."""


def binance_state(word: str) -> tuple[str, bool]:
    return BINANCE_STATES.get(word, (f"unknown:{word[:40]}", False))
