"""Binance USD-M's private messages and REST rows, field for field as the dossier has them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from feedmill.simulator.accounts.model import ZERO, Account, Fill, Order, Position, Update
from feedmill.simulator.accounts.positions import realised
from feedmill.simulator.accounts.spot_texts import compact
from feedmill.simulator.accounts.texts import eight, plain

_REASONS = {"EXCHANGE_CANCELED": "4", "UNFILLED_IOC_QUANTITY_EXPIRED": "3"}
Price = Callable[[str], Decimal]


def average(order: Order) -> Decimal:
    return order.quote / order.filled if order.filled else ZERO


def events(update: Update, now_ms: int, price: Price) -> list[tuple[str, str]]:
    """(event type, text): the account's change first, then the order's, as the venue sends them on a fill."""
    made: list[tuple[str, str]] = []
    if update.assets or update.position is not None:
        made.append(("ACCOUNT_UPDATE", compact(_account(update, now_ms, price))))
    if update.order is not None:
        if update.fill is not None:
            made.append(("TRADE_LITE", compact(_lite(update.order, update.fill, now_ms))))
        made.append(("ORDER_TRADE_UPDATE", compact(_order(update, update.order, now_ms))))
    return made


def _order(update: Update, order: Order, now_ms: int) -> dict[str, Any]:
    fill = update.fill
    body: dict[str, Any] = {
        "s": order.listing.native,
        "c": order.client_id,
        "S": order.side,
        "o": order.type,
        "f": order.tif,
        "q": plain(order.size),
        "p": plain(order.price),
        "ap": eight(average(order)) if order.filled else "0",
        "sp": "0",
        "x": update.execution,
        "X": order.status,
        "i": order.id,
        "l": plain(fill.size) if fill else "0",
        "z": plain(order.filled),
        "L": plain(fill.price) if fill else "0",
    }
    if fill and fill.fee:
        body |= {"N": fill.fee_asset, "n": eight(fill.fee)}
    body |= {
        "T": update.time_ms,
        "t": fill.trade_id if fill else 0,
        "b": "0",
        "a": "0",
        "m": fill.maker if fill else False,
        "R": False,
        "wt": "CONTRACT_PRICE",
        "ot": order.type,
        "ps": "BOTH",
        "cp": False,
        "pP": False,
        "si": 0,
        "ss": 0,
        "rp": eight(fill.pnl) if fill and fill.pnl else "0",
        "V": "EXPIRE_TAKER",
        "pm": "NONE",
        "gtd": 0,
        "er": _REASONS.get(update.reason, "0"),
    }
    return {"e": "ORDER_TRADE_UPDATE", "E": now_ms, "T": update.time_ms, "o": body}


def _lite(order: Order, fill: Fill, now_ms: int) -> dict[str, Any]:
    return {
        "e": "TRADE_LITE",
        "E": now_ms,
        "T": fill.time_ms,
        "s": order.listing.native,
        "q": plain(order.size),
        "p": plain(order.price),
        "m": fill.maker,
        "c": order.client_id,
        "S": order.side,
        "L": plain(fill.price),
        "l": plain(fill.size),
        "t": fill.trade_id,
        "i": order.id,
    }


def _account(update: Update, now_ms: int, price: Price) -> dict[str, Any]:
    moved = update.transfer
    reason = "ORDER" if moved is None else "DEPOSIT" if moved.amount > 0 else "WITHDRAW"
    change = "0" if moved is None else eight(moved.amount)
    balances = []
    for asset in update.assets:
        wallet = eight(update.account.balances[asset].total)
        balances.append({"a": asset, "wb": wallet, "cw": wallet, "bc": change})
    positions = []
    if update.position is not None:
        held = update.position
        positions.append(
            {
                "s": held.native,
                "pa": plain(held.size),
                "ep": plain(held.entry),
                "bep": plain(held.entry),
                "cr": eight(held.realised),
                "up": eight(_unrealised(held, price)),
                "mt": "cross",
                "iw": "0",
                "ps": "BOTH",
            }
        )
    body = {"m": reason, "B": balances, "P": positions}
    return {"e": "ACCOUNT_UPDATE", "E": now_ms, "T": update.time_ms, "a": body}


def _unrealised(held: Position, price: Price) -> Decimal:
    return realised(held.size, held.entry, price(held.native), inverse=False)


def order_row(order: Order) -> dict[str, Any]:
    return {
        "avgPrice": eight(average(order)),
        "clientOrderId": order.client_id,
        "cumQuote": plain(order.quote),
        "executedQty": plain(order.filled),
        "orderId": order.id,
        "origQty": plain(order.size),
        "origType": order.type,
        "price": plain(order.price),
        "reduceOnly": False,
        "side": order.side,
        "positionSide": "BOTH",
        "status": order.status,
        "stopPrice": "0",
        "closePosition": False,
        "symbol": order.listing.native,
        "time": order.created_ms,
        "timeInForce": order.tif,
        "type": order.type,
        "updateTime": order.updated_ms,
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "priceMatch": "NONE",
        "selfTradePreventionMode": "EXPIRE_TAKER",
        "goodTillDate": 0,
    }


def trade_row(fill: Fill) -> dict[str, Any]:
    return {
        "symbol": fill.listing.native,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "side": fill.side,
        "positionSide": "BOTH",
        "price": plain(fill.price),
        "qty": plain(fill.size),
        "quoteQty": plain(fill.quote),
        "realizedPnl": eight(fill.pnl),
        "commission": eight(fill.fee),
        "commissionAsset": fill.fee_asset,
        "maker": fill.maker,
        "buyer": fill.side == "BUY",
        "time": fill.time_ms,
    }


def balance_rows(account: Account) -> list[dict[str, Any]]:
    return [
        {
            "accountAlias": f"sim{account.number}",
            "asset": asset,
            "balance": eight(held.total),
            "crossWalletBalance": eight(held.total),
            "crossUnPnl": "0.00000000",
            "availableBalance": eight(held.total),
            "maxWithdrawAmount": eight(held.total),
            "marginAvailable": True,
            "updateTime": account.updated_ms,
        }
        for asset, held in account.balances.items()
    ]


def position_rows(account: Account, symbol: str, price: Price) -> list[dict[str, Any]]:
    """Only symbols with a position or with orders, as v3 does."""
    ordered = {native for native, _ in account.open}
    shown = [held for held in account.positions.values() if held.size or held.native in ordered]
    return [
        {
            "symbol": held.native,
            "positionSide": "BOTH",
            "positionAmt": plain(held.size),
            "entryPrice": plain(held.entry),
            "breakEvenPrice": plain(held.entry),
            "markPrice": plain(price(held.native)),
            "unRealizedProfit": eight(_unrealised(held, price)),
            "liquidationPrice": "0",
            "isolatedMargin": "0",
            "notional": plain(held.size * price(held.native)),
            "marginAsset": "USDT",
            "isolatedWallet": "0",
            "updateTime": held.updated_ms,
        }
        for held in shown
        if symbol in ("", held.native)
    ]


def account_row(account: Account, price: Price) -> dict[str, Any]:
    rows = balance_rows(account)
    assets = [
        {
            "asset": row["asset"],
            "walletBalance": row["balance"],
            "unrealizedProfit": "0.00000000",
            "marginBalance": row["balance"],
            "crossWalletBalance": row["balance"],
            "crossUnPnl": "0.00000000",
            "availableBalance": row["balance"],
            "maxWithdrawAmount": row["balance"],
            "updateTime": row["updateTime"],
        }
        for row in rows
    ]
    positions = [
        {
            "symbol": row["symbol"],
            "positionSide": "BOTH",
            "positionAmt": row["positionAmt"],
            "unrealizedProfit": row["unRealizedProfit"],
            "notional": row["notional"],
            "updateTime": row["updateTime"],
        }
        for row in position_rows(account, "", price)
    ]
    usdt = next((row["balance"] for row in rows if row["asset"] == "USDT"), "0.00000000")
    return {"totalWalletBalance": usdt, "availableBalance": usdt, "assets": assets, "positions": positions}
