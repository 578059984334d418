"""Numbers and ids as the venues print them."""

from __future__ import annotations

from decimal import Decimal

from feedmill.simulator.catalog import Listing


def plain(value: Decimal) -> str:
    """Exact and shortest, never with an exponent."""
    text = format(value, "f") if value else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def eight(value: Decimal) -> str:
    """Binance Spot: always eight digits after the point."""
    return f"{value:.8f}"


def number(value: Decimal) -> str:
    """Deribit: a JSON number with at least one digit after the point."""
    text = plain(value)
    return text if "." in text else f"{text}.0"


def prefixed(listing: Listing, number_: int) -> str:
    """Order and trade ids: digits alone for the BTC book, else with the currency pair before."""
    if listing.native.startswith("BTC-"):
        return str(number_)
    return f"{listing.native.partition('-')[0]}-{number_}"
