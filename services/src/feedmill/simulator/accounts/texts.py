"""Numbers as the venues print them."""

from __future__ import annotations

from decimal import Decimal

from feedmill.simulator.accounts.lines import plain


def eight(value: Decimal) -> str:
    """Binance Spot: always eight digits after the point."""
    return f"{value:.8f}"


def number(value: Decimal) -> str:
    """Deribit: a JSON number with at least one digit after the point."""
    text = plain(value)
    return text if "." in text else f"{text}.0"
