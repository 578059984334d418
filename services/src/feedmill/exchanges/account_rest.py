"""What a venue's REST answers of an account look like to the reconciliation: which requests, how pages go on. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from feedmill.exchanges.account_base import AccountEvent, AccountRequest
from feedmill.shared.account_events import Fill, OrderUpdate, Position

OrderKey = tuple[str, str]
"""(symbol, order id)."""


@dataclass(frozen=True, slots=True)
class Traded:
    """An instrument that the account may trade."""

    native: str
    assets: tuple[str, ...]
    """What a fill moves: base and quote (Spot); what it settles in."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of an account as of the beginning of the oldest gap that is still open.

    Not as of now: a fill that came after the gap would hide those in it.
    """

    open_orders: Mapping[OrderKey, Mapping[str, str]] = field(default_factory=dict)
    """Orders that are not at their end, each with its stored fills (trade id -> size)."""
    last_order: Mapping[str, str] = field(default_factory=dict)
    """Symbol -> largest order id that was seen (Binance)."""
    last_fill: Mapping[str, str] = field(default_factory=dict)
    """Symbol -> largest trade id that was seen (Binance)."""
    balances: Mapping[str, str] = field(default_factory=dict)
    """Asset -> total."""
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Asset -> free and locked (Spot)."""
    positions: Mapping[tuple[str, str], Position] = field(default_factory=dict)
    """(symbol, position side) -> those that are not flat."""
    since_ms: int = 0
    """Exchange time up to which all is stored; 0 = nothing is."""
    moved_ms: int = 0
    """Exchange time of the newest stored deposit or withdrawal (Deribit, whose stream tells of none); 0 = none is."""
    told_ms: int = 0
    """Exchange time of the newest balance, if the stream went on for long enough after it that nothing of that ms is
    missing; else 0 (Spot)."""


class AccountRest(ABC):
    """One market's requests. Fills and orders are asked for by **scope**: a symbol, or (Deribit) a currency."""

    PAGE: ClassVar[int] = 1000

    def __init__(self, instruments: Mapping[str, Traded], known: Known, now_ms: int) -> None:
        """``instruments`` by canonical symbol."""
        self.instruments = instruments
        self.known = known
        self.now_ms = now_ms

    @abstractmethod
    def first(self) -> list[AccountRequest]:
        """Of the whole account: balances, positions, open orders."""

    def second(self, events: Sequence[AccountEvent]) -> list[AccountRequest]:
        """More of the whole account, by what ``first`` brought."""
        return []

    def untouched(self, events: Sequence[AccountEvent]) -> bool:
        """Whether what ``first`` brought proves that nothing has happened since all that is known."""
        return False

    @abstractmethod
    def urgent(self, events: Sequence[AccountEvent]) -> list[str]:
        """The scopes in which something may be missing, by what ``first`` and ``second`` brought."""

    @abstractmethod
    def scopes(self) -> list[str]:
        """All of them, the likeliest first: what a sweep goes through."""

    @abstractmethod
    def of_scope(self, scope: str, still_open: frozenset[OrderKey]) -> list[AccountRequest]:
        """The first pages of orders and fills. ``still_open``: orders that the venue listed as open."""

    @abstractmethod
    def following(
        self, request: AccountRequest, events: Sequence[AccountEvent], *, more: bool = False
    ) -> AccountRequest | None:
        """The next page, if this one is full or the venue says that there is ``more``.

        It begins with the last row of this one (rows may share an id: a self-trade's two fills).

        None = this was the last. Raises NoProgress.
        """

    @abstractmethod
    def fills_of(self, order: OrderUpdate) -> AccountRequest:
        """All fills of one order, as far as one page brings them."""

    @abstractmethod
    def one_order(self, key: OrderKey) -> AccountRequest | None:
        """The state of one order that no list had."""

    @abstractmethod
    def settled(self, order: OrderUpdate) -> bool:
        """It was at its end, with all its fills stored, before the gap."""


class NoProgress(Exception):
    """A full page that brings nothing beyond the one before."""


class BinanceAccountRest(AccountRest):
    """Pages by ``fromId`` and ``orderId``, both included."""

    orders_path: ClassVar[str]
    fills_path: ClassVar[str]
    orders_weight: ClassVar[int]
    fills_weight: ClassVar[int]
    order_fills_weight: ClassVar[int]

    def scopes(self) -> list[str]:
        active = [symbol for symbol in self.instruments if symbol in self.known.last_fill]
        return active + [symbol for symbol in self.instruments if symbol not in self.known.last_fill]

    def of_scope(self, scope: str, still_open: frozenset[OrderKey]) -> list[AccountRequest]:
        gone = [int(key[1]) for key in self.known.open_orders if key[0] == scope and key not in still_open]
        first = min([*gone, int(self.known.last_order.get(scope, "1"))])
        return [
            self._orders(scope, str(first)),
            self._fills(scope, self.known.last_fill.get(scope, "0")),
        ]

    def _orders(self, symbol: str, first: str) -> AccountRequest:
        native = self.instruments[symbol].native
        params = {"symbol": native, "orderId": first, "limit": str(self.PAGE)}
        return AccountRequest("orders", self.orders_path, params, self.orders_weight, symbol, native)

    def _fills(self, symbol: str, first: str) -> AccountRequest:
        native = self.instruments[symbol].native
        params = {"symbol": native, "fromId": first, "limit": str(self.PAGE)}
        return AccountRequest("fills", self.fills_path, params, self.fills_weight, symbol, native)

    def following(
        self, request: AccountRequest, events: Sequence[AccountEvent], *, more: bool = False
    ) -> AccountRequest | None:
        if len(events) < self.PAGE or not request.symbol:
            return None
        if request.kind == "orders":
            last = max(int(event.order_id) for event in events if isinstance(event, OrderUpdate))
            made = self._orders(request.symbol, str(last))
        elif "fromId" in request.params:
            last = max(int(event.trade_id) for event in events if isinstance(event, Fill))
            made = self._fills(request.symbol, str(last))
        else:
            return None
        if made == request:
            raise NoProgress
        return made

    def fills_of(self, order: OrderUpdate) -> AccountRequest:
        native = self.instruments[order.symbol].native
        params = {"symbol": native, "orderId": order.order_id, "limit": str(self.PAGE)}
        return AccountRequest("fills", self.fills_path, params, self.order_fills_weight, order.symbol, native)

    def one_order(self, key: OrderKey) -> AccountRequest | None:
        return None  # The list from its id on would have had it.

    def settled(self, order: OrderUpdate) -> bool:
        key = order.symbol, order.order_id
        return (
            int(order.order_id) <= int(self.known.last_order.get(order.symbol, "0"))
            and key not in self.known.open_orders
        )
