"""An account's part of the ledger, as lines (see ``simulator/ledger.py`` for the columns)."""

from __future__ import annotations

from collections.abc import Iterable

from feedmill.simulator.accounts.model import Account, Fill, Order, Update
from feedmill.simulator.accounts.texts import plain, prefixed
from feedmill.simulator.catalog import Listing
from feedmill.simulator.ledger import Ledger


def _line(*cells: str) -> str:
    return "\t".join(cells) + "\n"


def _ns(ms: int) -> str:
    return f"{ms}000000"


class Lines:
    """Writes updates to a ledger."""

    def __init__(self, ledger: Ledger, venue: str) -> None:
        self._ledger = ledger
        self._prefixed = venue.startswith("deribit")

    def begin(self, accounts: Iterable[Account], now_ms: int) -> None:
        """The first balances."""
        for account in accounts:
            self._balances(account, list(account.balances), now_ms, "START")

    def write(self, update: Update) -> None:
        account, at = update.account, update.time_ms
        if update.fill is not None:
            self._fill(account, update.fill)
        if update.order is not None:
            self._order(account, update.order, update.execution, at)
        if update.transfer is not None:
            moved = update.transfer
            line = _line(account.name, str(moved.id), moved.asset, plain(moved.amount), _ns(at))
            self._ledger.transfers.append(line)
        self._balances(account, update.assets, at, update.execution)
        if update.position is not None:
            held = update.position
            cells = (account.name, held.symbol, plain(held.size), plain(held.entry), plain(held.realised), _ns(at))
            self._ledger.positions.append(_line(*cells))

    def _id(self, listing: Listing, number: int) -> str:
        """As the venue writes it."""
        return prefixed(listing, number) if self._prefixed else str(number)

    def _fill(self, account: Account, fill: Fill) -> None:
        listing = fill.listing
        line = _line(
            account.name,
            listing.symbol,
            self._id(listing, fill.trade_id),
            self._id(listing, fill.order_id),
            fill.side,
            plain(fill.price),
            plain(fill.size),
            plain(fill.fee),
            fill.fee_asset,
            str(int(fill.maker)),
            plain(fill.pnl),
            _ns(fill.time_ms),
        )
        self._ledger.fills.append(line)

    def _order(self, account: Account, order: Order, execution: str, at: int) -> None:
        line = _line(
            account.name,
            order.listing.symbol,
            self._id(order.listing, order.id),
            order.client_id,
            order.side,
            order.type,
            order.tif,
            plain(order.price),
            plain(order.size),
            plain(order.filled),
            plain(order.quote),
            order.status,
            execution,
            _ns(at),
        )
        self._ledger.orders.append(line)

    def _balances(self, account: Account, assets: Iterable[str], at: int, cause: str) -> None:
        for asset in assets:
            held = account.balances[asset]
            line = _line(account.name, asset, plain(held.free), plain(held.locked), cause, _ns(at))
            self._ledger.balances.append(line)
