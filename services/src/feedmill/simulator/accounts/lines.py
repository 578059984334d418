"""An account's part of the ledger, as lines (see ``simulator/ledger.py`` for the columns)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from feedmill.simulator.accounts.model import Account, Order, Update
from feedmill.simulator.ledger import Ledger

MS_NS = "000000"


def plain(value: Decimal) -> str:
    """Exact and shortest, never with an exponent."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


class Lines:
    """Writes updates to a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def begin(self, accounts: Iterable[Account], now_ms: int) -> None:
        """The first balances."""
        for account in accounts:
            self._balances(account, list(account.balances), now_ms, "START")

    def write(self, update: Update) -> None:
        account, at = update.account, update.time_ms
        if update.fill is not None:
            fill = update.fill
            self._ledger.fills.append(
                f"{account.name}\t{fill.listing.symbol}\t{fill.trade_id}\t{fill.order_id}\t{fill.side}\t{plain(fill.price)}\t"
                f"{plain(fill.size)}\t{plain(fill.fee)}\t{fill.fee_asset}\t{int(fill.maker)}\t{plain(fill.pnl)}\t{at}{MS_NS}\n"
            )
        if update.order is not None:
            self._order(account, update.order, update.execution, at)
        if update.transfer is not None:
            moved = update.transfer
            self._ledger.transfers.append(
                f"{account.name}\t{moved.id}\t{moved.asset}\t{plain(moved.amount)}\t{at}{MS_NS}\n"
            )
        self._balances(account, update.assets, at, update.execution)
        if update.position is not None:
            held = update.position
            self._ledger.positions.append(
                f"{account.name}\t{held.symbol}\t{plain(held.size)}\t{plain(held.entry)}\t{plain(held.realised)}\t{at}{MS_NS}\n"
            )

    def _order(self, account: Account, order: Order, execution: str, at: int) -> None:
        self._ledger.orders.append(
            f"{account.name}\t{order.listing.symbol}\t{order.id}\t{order.client_id}\t{order.side}\t{order.type}\t{order.tif}\t"
            f"{plain(order.price)}\t{plain(order.size)}\t{plain(order.filled)}\t{plain(order.quote)}\t{order.status}\t"
            f"{execution}\t{at}{MS_NS}\n"
        )

    def _balances(self, account: Account, assets: Iterable[str], at: int, cause: str) -> None:
        for asset in assets:
            held = account.balances[asset]
            self._ledger.balances.append(
                f"{account.name}\t{asset}\t{plain(held.free)}\t{plain(held.locked)}\t{cause}\t{at}{MS_NS}\n"
            )
