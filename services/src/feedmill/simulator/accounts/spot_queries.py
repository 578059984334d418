"""Binance Spot's signed questions, the same over REST and the WebSocket API: weight and answer of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedmill.simulator.accounts.binance_signed import (
    DAY_MS,
    Params,
    Query,
    Weigh,
    open_orders,
    some_fills,
    some_orders,
    symbol_of,
)
from feedmill.simulator.accounts.model import Account
from feedmill.simulator.accounts.spot_texts import account_row, order_row, trade_row

if TYPE_CHECKING:
    from feedmill.simulator.accounts.side import PrivateSide


@dataclass(frozen=True, slots=True)
class Question:
    path: str
    method: str
    """Of the WebSocket API."""
    weigh: Weigh
    query: Query


def questions(side: PrivateSide) -> list[Question]:
    def account(account: Account, params: Params) -> Any:
        return account_row(account, omit_zero=params.get("omitZeroBalances", "").lower() == "true")

    def opened(account: Account, params: Params) -> Any:
        symbol = symbol_of(side, params, needed=False)
        return [order_row(order) for order in open_orders(account, symbol)]

    def orders(account: Account, params: Params) -> Any:
        symbol = symbol_of(side, params, needed=True)
        return [order_row(order) for order in some_orders(account, symbol, params, DAY_MS)]

    def trades(account: Account, params: Params) -> Any:
        symbol = symbol_of(side, params, needed=True)
        return [trade_row(fill) for fill in some_fills(account, symbol, params, DAY_MS)]

    return [
        Question("/api/v3/account", "account.status", lambda _: 20, account),
        Question("/api/v3/openOrders", "openOrders.status", lambda params: 6 if "symbol" in params else 80, opened),
        Question("/api/v3/allOrders", "allOrders", lambda _: 20, orders),
        Question("/api/v3/myTrades", "myTrades", lambda params: 5 if "orderId" in params else 20, trades),
    ]
