"""Deribit's private notifications and rows as JSON text: numbers are JSON numbers, exactly as the venue prints them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from feedmill.simulator.accounts.model import ZERO, Account, Fill, Order, Position, Transfer, Update
from feedmill.simulator.accounts.positions import realised, rounded
from feedmill.simulator.accounts.texts import number, prefixed
from feedmill.simulator.catalog import Listing

Price = Callable[[str], Decimal]
_STATES = {"NEW": "open", "PARTIALLY_FILLED": "open", "FILLED": "filled", "CANCELED": "cancelled"}
_TIFS = {"GTC": "good_til_cancelled", "IOC": "immediate_or_cancel"}
_REASONS = {"EXCHANGE_CANCELED": "risk_mitigation", "UNFILLED_IOC_QUANTITY_EXPIRED": "user_request", "": "user_request"}


def order_text(order: Order, reason: str = "") -> str:
    listing = order.listing
    average = number(rounded(_average(order))) if order.filled else "0.0"
    cancelled = f',"cancel_reason":"{_REASONS[reason]}"' if order.status == "CANCELED" else ""
    price = '"market_price"' if not order.price and order.left else number(order.price or rounded(_average(order)))
    return (
        f'{{"time_in_force":"{_TIFS[order.tif]}","replaced":false,"reduce_only":false,"price":{price},"post_only":false,'
        f'"order_type":"{order.type.lower()}","order_state":"{_STATES[order.status]}",'
        f'"order_id":"{prefixed(listing, order.id)}","max_show":{number(order.size)},'
        f'"last_update_timestamp":{order.updated_ms},"label":"{order.client_id}","is_liquidation":false,'
        f'"instrument_name":"{listing.native}","filled_amount":{number(order.filled)},"direction":"{order.side.lower()}",'
        f'"creation_timestamp":{order.created_ms},"average_price":{average},"api":true,"amount":{number(order.size)}'
        f"{cancelled}}}"
    )


def _average(order: Order) -> Decimal:
    return order.quote / order.filled if order.filled else ZERO


def trade_text(fill: Fill, mark: Decimal) -> str:
    listing = fill.listing
    return (
        f'{{"trade_seq":{fill.trade_id},"trade_id":"{prefixed(listing, fill.trade_id)}","timestamp":{fill.time_ms},'
        f'"tick_direction":2,"state":"{_STATES[fill.order_status]}","reduce_only":false,"price":{number(fill.price)},'
        f'"post_only":false,"order_type":"{fill.order_type.lower()}","order_id":"{prefixed(listing, fill.order_id)}",'
        f'"matching_id":null,"mark_price":{number(mark)},"liquidity":"{"M" if fill.maker else "T"}",'
        f'"instrument_name":"{listing.native}","index_price":{number(mark)},"fee_currency":"{fill.fee_asset}",'
        f'"fee":{number(fill.fee)},"profit_loss":{number(fill.pnl)},"direction":"{fill.side.lower()}",'
        f'"amount":{number(fill.size)}}}'
    )


def position_text(held: Position, listing: Listing, mark: Decimal) -> str:
    floating = realised(held.size, held.entry, mark, inverse=listing.inverse)
    direction = "zero" if not held.size else "buy" if held.size > 0 else "sell"
    currency = rounded(held.size / mark) if listing.inverse else held.size
    return (
        f'{{"instrument_name":"{held.native}","kind":"future","direction":"{direction}","size":{number(held.size)},'
        f'"size_currency":{number(currency)},"average_price":{number(held.entry)},"mark_price":{number(mark)},'
        f'"index_price":{number(mark)},"floating_profit_loss":{number(floating)},'
        f'"realized_profit_loss":{number(held.realised)},"realized_funding":0.0,'
        f'"total_profit_loss":{number(floating)},"initial_margin":0.0,"maintenance_margin":0.0,"delta":{number(currency)},'
        f'"leverage":50,"settlement_price":{number(mark)}}}'
    )


def portfolio_text(account: Account, currency: str, floating: Decimal) -> str:
    """Session profit is paid into the balance at once (the venue does so at the settlement)."""
    balance = account.balances[currency].total
    equity = number(balance + floating)
    shown = number(balance)
    return (
        f'{{"currency":"{currency}","balance":{shown},"equity":{equity},"available_funds":{shown},'
        f'"available_withdrawal_funds":{shown},"initial_margin":0.0,"maintenance_margin":0.0,"margin_balance":{equity},'
        f'"total_pl":{number(floating)},"session_rpl":0.0,"session_upl":{number(floating)},'
        f'"futures_pl":{number(floating)},"options_value":0.0,"delta_total":0.0,"fee_balance":0.0,"spot_reserve":0.0,'
        f'"additional_reserve":0.0,"margin_model":"segregated_sm","cross_collateral_enabled":false,'
        f'"portfolio_margining_enabled":false}}'
    )


def floating(account: Account, currency: str, listings: dict[str, Listing], price: Price) -> Decimal:
    """Unrealised profit of the positions settled in ``currency``."""
    total = ZERO
    for held in account.positions.values():
        listing = listings[held.native]
        if listing.settle == currency:
            total += realised(held.size, held.entry, price(held.native), inverse=listing.inverse)
    return total


def changes_text(update: Update, mark: Decimal) -> str:
    """user.changes: what one update did to an instrument."""
    order = update.order
    assert order is not None
    trades = "" if update.fill is None else trade_text(update.fill, mark)
    positions = "" if update.position is None else position_text(update.position, order.listing, mark)
    return (
        f'{{"instrument_name":"{order.listing.native}","trades":[{trades}],"positions":[{positions}],'
        f'"orders":[{order_text(order, update.reason)}]}}'
    )


def transfer_text(moved: Transfer) -> str:
    """A row of get_deposits or get_withdrawals."""
    kind, stamp = ("deposit", "received") if moved.amount > 0 else ("withdrawal", "created")
    return (
        f'{{"updated_timestamp":{moved.time_ms},"{stamp}_timestamp":{moved.time_ms},"transaction_id":"{kind}-{moved.id}",'
        f'"state":"completed","currency":"{moved.asset}","amount":{number(abs(moved.amount))},"address":"simulated"}}'
    )
