"""Binance Spot, requests of a reconciliation. Dossier sections 2 and 7.5.

The list of all open orders costs four times what the balances do. Every order that rests locks something and every fill
moves something: so where free and locked of every asset are what they were, only the instruments with open orders are
looked at. What leaves no trace in balances (an order made and cancelled, one exchanged for another) the sweep finds. It
leaves one in the time of the account's last update: where that is the known one too, there is nothing to look for.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from feedmill.exchanges.account_base import AccountEvent, AccountRequest
from feedmill.exchanges.account_rest import BinanceAccountRest
from feedmill.shared.account_events import Balance, OrderUpdate
from feedmill.shared.account_keys import canonical, order_key

OPEN_PATH = "/api/v3/openOrders"
ALL_WEIGHT, ONE_WEIGHT = 80, 6
"""Of the open orders of all symbols, and of one."""


class SpotAccountRest(BinanceAccountRest):
    orders_path, orders_weight = "/api/v3/allOrders", 20
    fills_path, fills_weight, order_fills_weight = "/api/v3/myTrades", 20, 5

    def first(self) -> list[AccountRequest]:
        return [AccountRequest("balances", "/api/v3/account", {}, 20)]

    def untouched(self, events: Sequence[AccountEvent]) -> bool:
        updated = {event.venue_ns // 1_000_000 for event in events if isinstance(event, Balance)}
        return self.known.told_ms > 0 and updated == {self.known.told_ms} and self._as_before(events)

    def second(self, events: Sequence[AccountEvent]) -> list[AccountRequest]:
        symbols = sorted({key[0] for key in self.known.open_orders if key[0] in self.instruments})
        if not self._as_before(events) or len(symbols) * ONE_WEIGHT >= ALL_WEIGHT:
            return [AccountRequest("open_orders", OPEN_PATH, {}, ALL_WEIGHT)]
        natives = [(symbol, self.instruments[symbol].native) for symbol in symbols]
        return [
            AccountRequest("open_orders", OPEN_PATH, {"symbol": native}, ONE_WEIGHT, symbol, native)
            for symbol, native in natives
        ]

    def urgent(self, events: Sequence[AccountEvent]) -> list[str]:
        """Where orders are open no more or have more fills than are known; and pairs both of whose assets have changed,
        since a fill moves both."""
        told = {order_key(event): event for event in events if isinstance(event, OrderUpdate)}
        if self._as_before(events):
            return list(dict.fromkeys(key[0] for key in sorted(self.known.open_orders.keys() ^ told.keys())))
        symbols = dict.fromkeys(key[0] for key in self.known.open_orders if key not in told)
        symbols |= dict.fromkeys(
            key[0] for key, order in sorted(told.items(), key=lambda each: each[0]) if self._filled(order)
        )
        changed = {event.asset for event in events if isinstance(event, Balance) and self._changed(event)}
        symbols |= dict.fromkeys(name for name, traded in self.instruments.items() if changed.issuperset(traded.assets))
        return [symbol for symbol in symbols if symbol in self.instruments]

    def _filled(self, order: OrderUpdate) -> bool:
        fills = self.known.open_orders.get(order_key(order), {})
        return Decimal(order.filled or 0) != sum(map(Decimal, fills.values()), Decimal(0))

    def _changed(self, event: Balance) -> bool:
        return canonical(event.total) != canonical(self.known.balances.get(event.asset, "0"))

    def _as_before(self, events: Sequence[AccountEvent]) -> bool:
        """Free and locked of every asset are what they were when the gap began."""
        told = {event.asset: (event.free, event.locked) for event in events if isinstance(event, Balance)}
        assets = {*self.known.held, *told}
        return bool(self.known.held) and all(
            _numbers(self.known.held.get(asset)) == _numbers(told.get(asset)) for asset in assets
        )


def _numbers(held: tuple[str, str] | None) -> tuple[Decimal, Decimal]:
    """One that is not listed is 0."""
    free, locked = held or ("", "")
    return Decimal(free or 0), Decimal(locked or 0)
