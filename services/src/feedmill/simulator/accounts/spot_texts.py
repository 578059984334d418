"""Binance Spot's private messages and REST rows, field for field as the dossier has them."""

from __future__ import annotations

import json
from typing import Any

from feedmill.simulator.accounts.model import Account, Fill, Order, Update
from feedmill.simulator.accounts.texts import eight


def compact(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def events(update: Update, execution_id: int, now_ms: int) -> list[str]:
    """What the stream says of an update: executionReport, balanceUpdate, outboundAccountPosition."""
    made = []
    if update.order is not None:
        made.append(_report(update, update.order, execution_id, now_ms))
    if update.transfer is not None:
        moved = update.transfer
        made.append({"e": "balanceUpdate", "E": now_ms, "a": moved.asset, "d": eight(moved.amount), "T": moved.time_ms})
    if update.assets:
        rows = []
        for asset in update.assets:
            held = update.account.balances[asset]
            rows.append({"a": asset, "f": eight(held.free), "l": eight(held.locked)})
        made.append({"e": "outboundAccountPosition", "E": now_ms, "u": update.time_ms, "B": rows})
    return [compact(body) for body in made]


def _report(update: Update, order: Order, execution_id: int, now_ms: int) -> dict[str, Any]:
    fill = update.fill
    cancelled = update.execution == "CANCELED"
    body: dict[str, Any] = {
        "e": "executionReport",
        "E": now_ms,
        "s": order.listing.native,
        "c": f"cancel-{order.id}" if cancelled else order.client_id,
        "S": order.side,
        "o": order.type,
        "f": order.tif,
        "q": eight(order.size),
        "p": eight(order.price),
        "P": "0.00000000",
        "F": "0.00000000",
        "g": -1,
        "C": order.client_id if cancelled else "",
        "x": update.execution,
        "X": order.status,
        "r": "NONE",
        "i": order.id,
        "l": eight(fill.size) if fill else "0.00000000",
        "z": eight(order.filled),
        "L": eight(fill.price) if fill else "0.00000000",
        "n": eight(fill.fee) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": update.time_ms,
        "t": fill.trade_id if fill else -1,
        "I": execution_id,
        "w": order.status in ("NEW", "PARTIALLY_FILLED") and order.tif == "GTC" and order.type == "LIMIT",
        "m": fill.maker if fill else False,
        "M": False,
        "O": order.created_ms,
        "Z": eight(order.quote),
        "Y": eight(fill.quote) if fill else "0.00000000",
        "Q": "0.00000000",
        "W": order.created_ms,
        "V": "NONE",
    }
    if update.execution == "EXPIRED":
        body["eR"] = update.reason
    return body


def order_row(order: Order) -> dict[str, Any]:
    return {
        "symbol": order.listing.native,
        "orderId": order.id,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "price": eight(order.price),
        "origQty": eight(order.size),
        "executedQty": eight(order.filled),
        "cummulativeQuoteQty": eight(order.quote),
        "status": order.status,
        "timeInForce": order.tif,
        "type": order.type,
        "side": order.side,
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": True,
        "origQuoteOrderQty": "0.00000000",
        "workingTime": order.created_ms,
        "selfTradePreventionMode": "NONE",
    }


def trade_row(fill: Fill) -> dict[str, Any]:
    return {
        "symbol": fill.listing.native,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": -1,
        "price": eight(fill.price),
        "qty": eight(fill.size),
        "quoteQty": eight(fill.quote),
        "commission": eight(fill.fee),
        "commissionAsset": fill.fee_asset,
        "time": fill.time_ms,
        "isBuyer": fill.side == "BUY",
        "isMaker": fill.maker,
        "isBestMatch": True,
    }


def account_row(account: Account, *, omit_zero: bool) -> dict[str, Any]:
    balances = [
        {"asset": asset, "free": eight(held.free), "locked": eight(held.locked)}
        for asset, held in account.balances.items()
        if held.total or not omit_zero
    ]
    return {
        "makerCommission": 10,
        "takerCommission": 10,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "canTrade": True,
        "canWithdraw": True,
        "canDeposit": True,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": account.updated_ms,
        "accountType": "SPOT",
        "balances": balances,
        "permissions": ["SPOT"],
        "uid": account.uid,
    }
