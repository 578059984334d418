"""What a processor keeps of an account's events, in short: by natural key and rank; and the same read from a ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from feedmill.exchanges.account_base import AccountEvent
from feedmill.exchanges.account_rest import Known
from feedmill.shared.account_events import Balance, BalanceChange, Fill, OrderUpdate, Position
from feedmill.shared.account_keys import (
    change_key,
    fill_key,
    merged,
    order_key,
    order_rank,
    order_state_key,
    position_key,
)

D = Decimal
STATES = {
    "NEW": "new", "PARTIALLY_FILLED": "partially_filled", "FILLED": "filled", "CANCELED": "cancelled",
    "EXPIRED": "expired",
}  # fmt: skip


@dataclass
class Store:
    fills: dict[Any, Fill] = field(default_factory=dict)
    orders: dict[Any, OrderUpdate] = field(default_factory=dict)
    states: dict[Any, OrderUpdate] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    positions: dict[Any, Position] = field(default_factory=dict)
    changes: dict[Any, BalanceChange] = field(default_factory=dict)
    latest_ns: int = 0

    def take(self, events: Iterable[AccountEvent]) -> None:
        for event in events:
            if isinstance(event, Fill):
                key = fill_key(event)
                self.fills[key] = merged(self.fills[key], event) if key in self.fills else event
                self.latest_ns = max(self.latest_ns, event.exchange_ns)
            elif isinstance(event, OrderUpdate):
                self.states.setdefault(order_state_key(event), event)
                known = self.orders.get(order_key(event))
                if known is None or order_rank(event) >= order_rank(known):
                    self.orders[order_key(event)] = event
                self.latest_ns = max(self.latest_ns, event.venue_ns)
            elif isinstance(event, Balance):
                if event.asset not in self.balances or event.venue_ns >= self.balances[event.asset].venue_ns:
                    self.balances[event.asset] = event
            elif isinstance(event, Position):
                key = position_key(event)
                if key not in self.positions or event.venue_ns >= self.positions[key].venue_ns:
                    self.positions[key] = event
            else:
                self.changes[change_key(event)] = event

    def known(self, *, numbered: bool) -> Known:
        """``numbered``: ids are numbers that rise (Binance)."""
        opened: dict[Any, dict[str, str]] = {key: {} for key, order in self.orders.items() if not order.terminal}
        last_fill: dict[str, str] = {}
        last_order: dict[str, str] = {}
        for fill in self.fills.values():
            if (fill.symbol, fill.order_id) in opened:
                opened[fill.symbol, fill.order_id][fill.trade_id] = fill.size
            if numbered:
                last_fill[fill.symbol] = max(last_fill.get(fill.symbol, "0"), fill.trade_id, key=int)
        for symbol, ident in self.orders if numbered else ():
            last_order[symbol] = max(last_order.get(symbol, "0"), ident, key=int)
        return Known(
            opened, last_order, last_fill, {asset: held.total for asset, held in self.balances.items()},
            {asset: (held.free, held.locked) for asset, held in self.balances.items() if held.free},
            {key: held for key, held in self.positions.items() if D(held.size)}, self.latest_ns // 1_000_000,
            max((each.venue_ns // 1_000_000 for each in self.changes.values()), default=0),
        )  # fmt: skip

    def fills_as_written(self, *, realised: bool) -> dict[Any, Any]:
        return {
            key: (
                x.side, D(x.price), D(x.size), D(x.fee or "NaN"), x.fee_asset, x.maker,
                D(x.venue_realised or "0") if realised else D(0), x.exchange_ns,
            )
            for key, x in self.fills.items()
        }  # fmt: skip

    def orders_as_written(self) -> dict[Any, Any]:
        return {
            key: (x.client_order_id, x.side, x.type, D(x.price or "0"), D(x.size), D(x.filled), x.status, x.venue_ns)
            for key, x in self.orders.items()
        }


@dataclass
class Truth:
    """One account's part of a ledger, in the form of the Store."""

    rows: Any
    """(kind) -> rows of the account."""

    def fills(self) -> dict[Any, Any]:
        return {
            (r[1], r[2], r[3]): (
                1 if r[4] == "BUY" else 2, D(r[5]), D(r[6]), D(r[7]), r[8], r[9] == "1", D(r[10]), int(r[11]),
            )
            for r in self.rows("fills")
        }  # fmt: skip

    def orders(self) -> dict[Any, Any]:
        return {
            (r[1], r[2]): (
                r[3], 1 if r[4] == "BUY" else 2, r[5].lower(), D(r[7]), D(r[8]), D(r[9]), STATES[r[11]], int(r[13]),
            )
            for r in self.rows("orders")
        }  # fmt: skip

    def balances(self) -> dict[str, Decimal]:
        return {r[1]: D(r[2]) + D(r[3]) for r in self.rows("balances")}

    def split(self) -> dict[str, tuple[Decimal, Decimal]]:
        return {r[1]: (D(r[2]), D(r[3])) for r in self.rows("balances")}

    def positions(self) -> dict[str, tuple[Decimal, Decimal]]:
        return {r[1]: (D(r[2]), D(r[3])) for r in self.rows("positions")}

    def moved(self) -> list[tuple[str, Decimal]]:
        return sorted((r[2], D(r[3])) for r in self.rows("transfers"))

    def self_trades(self) -> int:
        ids = [(r[1], r[2]) for r in self.rows("fills")]
        return len(ids) - len(set(ids))
