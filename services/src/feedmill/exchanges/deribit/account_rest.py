"""Deribit, requests of a reconciliation. Dossier sections 2, 6 and 7.3.

Fills and ended orders are asked for by currency and time, whatever the instrument; a page goes on from the time of its
last fill, which is asked for again. What is recent (orders 30 minutes, fills 24 hours) and what is older are two lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from feedmill.exchanges.account_base import AccountEvent, AccountRequest
from feedmill.exchanges.account_rest import AccountRest, NoProgress, OrderKey
from feedmill.shared.account_events import BalanceChange, Fill, OrderUpdate

CURRENCIES = ("BTC", "ETH", "USDC", "USDT", "EURR")
MARGIN_MS = 60_000
"""Asked for before the time up to which all is stored: instruments have no common order."""
RECENT_FILLS_MS = 23 * 3_600_000
RECENT_ORDERS_MS = 25 * 60_000
"""A little less than the venue keeps."""
MOVES_PAGE = 100
MOVES_MARGIN_MS = 7 * 86_400_000
"""How long a deposit may be under way: it is listed by the time it was seen first, and told once it is completed."""


def _request(kind: str, method: str, params: Mapping[str, str], symbol: str = "", native: str = "") -> AccountRequest:
    return AccountRequest(kind, f"/private/{method}", params, 1, symbol, native)


class DeribitAccountRest(AccountRest):
    @property
    def since_ms(self) -> int:
        return max(0, self.known.since_ms - MARGIN_MS)

    def first(self) -> list[AccountRequest]:
        return [
            _request("balances", "get_account_summaries", {}),
            _request("positions", "get_positions", {"currency": "any"}),
            _request("open_orders", "get_open_orders", {}),
        ]

    def urgent(self, events: Sequence[AccountEvent]) -> list[str]:
        return list(CURRENCIES)

    def scopes(self) -> list[str]:
        return list(CURRENCIES)

    def of_scope(self, scope: str, still_open: frozenset[OrderKey]) -> list[AccountRequest]:
        fills = {
            "currency": scope, "start_timestamp": str(self.since_ms), "count": str(self.PAGE), "sorting": "asc",
        }  # fmt: skip
        orders = {"currency": scope, "count": str(self.PAGE), "offset": "0", "include_unfilled": "true"}
        moves = {"currency": scope, "count": str(MOVES_PAGE), "offset": "0"}
        requests = []
        for old in ("true", "false"):
            if old == "false" or self.now_ms - self.since_ms > RECENT_ORDERS_MS:
                params = orders | {"historical": old}
                requests.append(_request("orders", "get_order_history_by_currency", params))
            if old == "false" or self.now_ms - self.since_ms > RECENT_FILLS_MS:
                requests.append(_request("fills", "get_user_trades_by_currency", fills | {"historical": old}))
        requests.append(_request("deposits", "get_deposits", moves))
        requests.append(_request("withdrawals", "get_withdrawals", moves))
        return requests

    def following(
        self, request: AccountRequest, events: Sequence[AccountEvent], *, more: bool = False
    ) -> AccountRequest | None:
        if request.kind == "fills":
            if not events or (len(events) < self.PAGE and not more):
                return None
            last = max(event.exchange_ns for event in events if isinstance(event, Fill)) // 1_000_000
            return self._on(request, "start_timestamp", last)
        if "offset" not in request.params or not events:
            return None
        # Newest first. What is added meanwhile moves the rest down, so rows come twice but none is passed over.
        since_ms = self.since_ms if request.kind == "orders" else self.known.moved_ms - MOVES_MARGIN_MS
        if min(map(_time_of, events)) < since_ms * 1_000_000:
            return None
        size = int(request.params["count"])
        if request.kind == "orders" and len(events) < size:
            return None
        return self._on(request, "offset", int(request.params["offset"]) + size - 1)

    @staticmethod
    def _on(request: AccountRequest, name: str, value: int) -> AccountRequest:
        if request.params[name] == str(value):
            raise NoProgress
        return replace(request, params={**request.params, name: str(value)})

    def fills_of(self, order: OrderUpdate) -> AccountRequest:
        native = self.instruments[order.symbol].native
        params = {
            "instrument_name": native, "start_timestamp": str(order.created_ns // 1_000_000), "count": str(self.PAGE),
            "sorting": "asc",
        }  # fmt: skip
        return _request("fills", "get_user_trades_by_instrument", params, order.symbol, native)

    def one_order(self, key: OrderKey) -> AccountRequest | None:
        return _request("order", "get_order_state", {"order_id": key[1]}, key[0])

    def settled(self, order: OrderUpdate) -> bool:
        return order.venue_ns < self.since_ms * 1_000_000


def _time_of(event: AccountEvent) -> int:
    return event.venue_ns if isinstance(event, OrderUpdate | BalanceChange) else 0
