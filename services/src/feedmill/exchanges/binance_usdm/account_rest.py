"""Binance USD-M, requests of a reconciliation. Dossier sections 2 and 7.4.

Fills are asked for by symbol only, and the wallet does not tell which symbol changed it. But every fill is of an order:
one of those that were open, or one made since, which ``allOrders`` lists without a symbol (a week back at most).
"""

from __future__ import annotations

from collections.abc import Sequence

from feedmill.exchanges.account_base import AccountEvent, AccountRequest
from feedmill.exchanges.account_rest import BinanceAccountRest
from feedmill.shared.account_events import OrderUpdate, Position
from feedmill.shared.account_keys import canonical

WEEK_MS = 7 * 86_400_000
MARGIN_MS = 60_000
"""Asked for before the time up to which all is stored: events of different instruments have no common order."""


class UsdmAccountRest(BinanceAccountRest):
    orders_path, orders_weight = "/fapi/v1/allOrders", 5
    fills_path, fills_weight, order_fills_weight = "/fapi/v1/userTrades", 5, 5

    def first(self) -> list[AccountRequest]:
        since = max(self.known.since_ms - MARGIN_MS, self.now_ms - WEEK_MS + MARGIN_MS)
        return [
            AccountRequest("balances", "/fapi/v3/balance", {}, 5),
            AccountRequest("positions", "/fapi/v3/positionRisk", {}, 5),
            AccountRequest("open_orders", "/fapi/v1/openOrders", {}, 40),
            AccountRequest(
                "orders", self.orders_path, {"startTime": str(since), "limit": str(self.PAGE)}, self.orders_weight
            ),
        ]

    def urgent(self, events: Sequence[AccountEvent]) -> list[str]:
        symbols = dict.fromkeys(key[0] for key in self.known.open_orders)
        told = set()
        since = (self.known.since_ms - MARGIN_MS) * 1_000_000
        for event in events:
            if isinstance(event, OrderUpdate) and (not event.terminal or event.venue_ns >= since):
                symbols[event.symbol] = None
            elif isinstance(event, Position):
                key = event.symbol, event.position_side
                told.add(key)
                known = self.known.positions.get(key)
                if canonical(event.size) != ("0" if known is None else canonical(known.size)):
                    symbols[event.symbol] = None
        if sum(isinstance(event, OrderUpdate) for event in events) >= self.PAGE:
            # The list of what was made since may be longer than a page: wherever there was anything before, then.
            symbols |= dict.fromkeys(self.known.last_fill)
        symbols |= dict.fromkeys(symbol for symbol, side in self.known.positions if (symbol, side) not in told)
        return [symbol for symbol in symbols if symbol in self.instruments]
