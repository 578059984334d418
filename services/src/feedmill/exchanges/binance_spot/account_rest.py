"""Binance Spot, requests of a reconciliation. Dossier sections 2 and 7.5."""

from __future__ import annotations

from collections.abc import Iterable

from feedmill.exchanges.account_base import AccountEvent, AccountRequest
from feedmill.exchanges.account_rest import BinanceAccountRest
from feedmill.shared.account_events import Balance, OrderUpdate
from feedmill.shared.account_keys import canonical


class SpotAccountRest(BinanceAccountRest):
    orders_path, orders_weight = "/api/v3/allOrders", 20
    fills_path, fills_weight, order_fills_weight = "/api/v3/myTrades", 20, 5

    def first(self) -> list[AccountRequest]:
        return [
            AccountRequest("balances", "/api/v3/account", {}, 20),
            AccountRequest("open_orders", "/api/v3/openOrders", {}, 80),
        ]

    def urgent(self, events: Iterable[AccountEvent]) -> list[str]:
        """Where orders were or are open, and pairs both of whose assets have changed: a fill moves both."""
        symbols = dict.fromkeys(key[0] for key in self.known.open_orders)
        changed = set()
        for event in events:
            if isinstance(event, OrderUpdate):
                symbols[event.symbol] = None
            elif isinstance(event, Balance) and self._changed(event):
                changed.add(event.asset)
        symbols |= dict.fromkeys(name for name, traded in self.instruments.items() if changed.issuperset(traded.assets))
        return [symbol for symbol in symbols if symbol in self.instruments]

    def _changed(self, event: Balance) -> bool:
        return canonical(event.total) != canonical(self.known.balances.get(event.asset, "0"))
