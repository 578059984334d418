"""Which updates a ``user.*`` channel of Deribit carries, and with what text. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from feedmill.simulator.accounts import deribit_texts as texts
from feedmill.simulator.accounts.model import Update
from feedmill.simulator.catalog import Listing
from feedmill.simulator.deribit_source import currency_of, kind_of

Price = Callable[[str], Decimal]
INTERVALS = ("raw", "100ms", "agg2")
KINDS = ("future", "option", "spot", "future_combo", "option_combo", "combo", "any")
CURRENCIES = ("BTC", "ETH", "USDC", "USDT", "EURR", "any")
NEEDED = {"orders": "trade:read", "trades": "trade:read", "changes": "trade:read", "portfolio": "account:read"}
"""Channel -> the scope it asks for."""


@dataclass(frozen=True, slots=True)
class UserChannel:
    what: str
    """orders | trades | changes | portfolio."""
    native: str = ""
    kind: str = "any"
    currency: str = "any"
    interval: str = "raw"

    def covers(self, listing: Listing) -> bool:
        if self.native:
            return self.native == listing.native
        return self.kind in ("any", kind_of(listing)) and self.currency in ("any", currency_of(listing))


def parse(channel: str, listings: dict[str, Listing]) -> UserChannel | None:
    """None = unknown: silently left out of the answer."""
    parts = channel.split(".")
    if len(parts) < 3 or parts[0] != "user" or parts[1] not in NEEDED:
        return None
    what = parts[1]
    if what == "portfolio":
        currency = parts[2] if parts[2] == "any" else parts[2].upper()
        return UserChannel(what, currency=currency) if len(parts) == 3 and currency in CURRENCIES else None
    if parts[-1] not in INTERVALS:
        return None
    if len(parts) == 4 and parts[2] in listings:
        return UserChannel(what, native=parts[2], interval=parts[3])
    if len(parts) == 5 and parts[2] in KINDS and parts[3] in CURRENCIES:
        return UserChannel(what, kind=parts[2], currency=parts[3], interval=parts[4])
    return None


def notifications(channel: UserChannel, update: Update, listings: dict[str, Listing], price: Price) -> list[str]:
    """The ``data`` of what the channel sends of an update. 100ms and agg2 send each change in an array of its own."""
    if channel.what == "portfolio":
        account = update.account
        return [
            texts.portfolio_text(account, asset, texts.floating(account, asset, listings, price))
            for asset in update.assets
            if channel.currency in ("any", asset)
        ]
    order = update.order
    if order is None or not channel.covers(order.listing):
        return []
    mark = price(order.listing.native)
    if channel.what == "orders":
        text = texts.order_text(order, update.reason)
        return [text if channel.interval == "raw" else f"[{text}]"]
    if channel.what == "changes":
        return [texts.changes_text(update, mark)]
    return [] if update.fill is None else [f"[{texts.trade_text(update.fill, mark)}]"]
