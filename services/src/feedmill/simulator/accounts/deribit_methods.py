"""Deribit's ``private/get_*`` methods: what an account may ask for. Pure; raises RpcError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from feedmill.simulator.accounts import deribit_texts as texts
from feedmill.simulator.accounts.model import Account, Fill, Order
from feedmill.simulator.accounts.texts import prefixed
from feedmill.simulator.catalog import Listing
from feedmill.simulator.deribit_rpc import Raw, RpcError, bad_param, number_param
from feedmill.simulator.deribit_source import currency_of, kind_of

Price = Callable[[str], Decimal]
Params = Mapping[str, Any]
DAY_MS = 86_400_000
RECENT_ORDERS_MS = 1_800_000


class PrivateMethods:
    """``call`` answers for the account of the token."""

    def __init__(self, listings: dict[str, Listing], price: Price) -> None:
        self._listings = listings
        self._price = price
        self._methods: dict[str, tuple[str, Callable[[Account, Params, int], Raw]]] = {
            "private/get_open_orders": ("trade:read", self._open_orders),
            "private/get_open_orders_by_currency": ("trade:read", self._open_orders),
            "private/get_open_orders_by_instrument": ("trade:read", self._open_orders),
            "private/get_order_history_by_currency": ("trade:read", self._history),
            "private/get_order_history_by_instrument": ("trade:read", self._history),
            "private/get_order_state": ("trade:read", self._order_state),
            "private/get_user_trades_by_currency": ("trade:read", self._trades),
            "private/get_user_trades_by_instrument": ("trade:read", self._trades),
            "private/get_positions": ("trade:read", self._positions),
            "private/get_account_summary": ("account:read", self._summary),
            "private/get_account_summaries": ("account:read", self._summaries),
            "private/get_deposits": ("wallet:read", self._deposits),
            "private/get_withdrawals": ("wallet:read", self._withdrawals),
        }

    def needed(self, method: str) -> str:
        """The scope a method asks for. Raises RpcError for one that does not exist."""
        if method not in self._methods:
            raise RpcError(-32601, "Method not found")
        return self._methods[method][0]

    def call(self, account: Account, method: str, params: Params, now_ms: int) -> Raw:
        return self._methods[method][1](account, params, now_ms)

    # -- what is asked for

    def _covers(self, params: Params) -> Callable[[Listing], bool]:
        native, kind, currency = (str(params.get(name) or "") for name in ("instrument_name", "kind", "currency"))
        if native and native not in self._listings:
            raise RpcError(13020, "not_found")
        return lambda listing: (
            native in ("", listing.native)
            and kind in ("", "any", kind_of(listing))
            and currency in ("", "any", currency_of(listing))
        )

    def _open_orders(self, account: Account, params: Params, now_ms: int) -> Raw:
        covers = self._covers(params)
        return _rows(texts.order_text(order) for order in account.open.values() if covers(order.listing))

    def _history(self, account: Account, params: Params, now_ms: int) -> Raw:
        """Ended orders, newest first; without fills only when asked for; older than 30 minutes as ``historical``."""
        covers = self._covers(params)
        since = 0 if _flag(params, "historical") else now_ms - RECENT_ORDERS_MS
        unfilled = _flag(params, "include_unfilled")

        def shown(order: Order) -> bool:
            ended = order.status not in ("NEW", "PARTIALLY_FILLED")
            return ended and order.updated_ms >= since and bool(order.filled or unfilled) and covers(order.listing)

        rows = sorted((each for each in account.orders if shown(each)), key=lambda each: -each.updated_ms)
        offset = number_param(params, "offset", 0)
        return _rows(texts.order_text(order) for order in rows[offset : offset + _count(params, 20)])

    def _order_state(self, account: Account, params: Params, now_ms: int) -> Raw:
        wanted = str(params.get("order_id", ""))
        for order in account.orders:
            if prefixed(order.listing, order.id) == wanted:
                return Raw(texts.order_text(order))
        raise RpcError(10004, "order_not_found")

    def _trades(self, account: Account, params: Params, now_ms: int) -> Raw:
        """By ids, sequence numbers or time; older than a day as ``historical``."""
        covers = self._covers(params)
        since = 0 if _flag(params, "historical") else now_ms - DAY_MS
        first, last = (_trade_id(params, name) for name in ("start_id", "end_id"))
        low, high = number_param(params, "start_seq", 0), number_param(params, "end_seq", 1 << 62)
        start, end = number_param(params, "start_timestamp", since), number_param(params, "end_timestamp", 1 << 62)

        def shown(fill: Fill) -> bool:
            return (
                max(since, start) <= fill.time_ms <= end
                and (first is None or fill.trade_id >= first)
                and (last is None or fill.trade_id <= last)
                and low <= fill.trade_id <= high
                and covers(fill.listing)
            )

        rows = [fill for fill in account.fills if shown(fill)]
        if "instrument_name" in params or first is not None or last is not None:
            rows.sort(key=lambda fill: fill.trade_id)
        count = _count(params, 10)
        part = rows[:count] if str(params.get("sorting", "default")) == "asc" else rows[-count:][::-1]
        more = "true" if len(rows) > len(part) else "false"
        trades = ",".join(texts.trade_text(fill, self._price(fill.listing.native)) for fill in part)
        return Raw(f'{{"trades":[{trades}],"has_more":{more}}}')

    def _positions(self, account: Account, params: Params, now_ms: int) -> Raw:
        covers = self._covers(params)
        return _rows(
            texts.position_text(held, self._listings[native], self._price(native))
            for native, held in account.positions.items()
            if covers(self._listings[native])
        )

    def _one(self, account: Account, currency: str) -> str:
        return texts.portfolio_text(account, currency, texts.floating(account, currency, self._listings, self._price))

    def _summary(self, account: Account, params: Params, now_ms: int) -> Raw:
        currency = str(params.get("currency", ""))
        if currency not in account.balances:
            raise bad_param("currency", "missing" if not currency else "unknown")
        return Raw(self._one(account, currency))

    def _summaries(self, account: Account, params: Params, now_ms: int) -> Raw:
        rows = ",".join(self._one(account, currency) for currency in account.balances)
        extra = ""
        if _flag(params, "extended"):
            extra = f'"id":{account.uid},"username":"{account.name}","type":"main",'
        return Raw(f'{{{extra}"summaries":[{rows}]}}')

    def _deposits(self, account: Account, params: Params, now_ms: int) -> Raw:
        return self._moved(account, params, 1)

    def _withdrawals(self, account: Account, params: Params, now_ms: int) -> Raw:
        return self._moved(account, params, -1)

    def _moved(self, account: Account, params: Params, sign: int) -> Raw:
        currency = str(params.get("currency", ""))
        rows = [each for each in account.transfers if each.amount * sign > 0 and each.asset == currency][::-1]
        offset = number_param(params, "offset", 0)
        shown = ",".join(texts.transfer_text(each) for each in rows[offset : offset + _count(params, 10)])
        return Raw(f'{{"count":{len(rows)},"data":[{shown}]}}')


def _rows(rows: Any) -> Raw:
    return Raw(f"[{','.join(rows)}]")


def _flag(params: Params, name: str) -> bool:
    return str(params.get(name, "false")).lower() == "true"


def _count(params: Params, default: int) -> int:
    count = number_param(params, "count", default)
    if not 1 <= count <= 1000:
        raise bad_param("count", "must be from 1 to 1000")
    return count


def _trade_id(params: Params, name: str) -> int | None:
    text = str(params.get(name, "")).rpartition("-")[2]
    if not text:
        return None
    if not text.isdigit():
        raise bad_param(name, "wrong format")
    return int(text)
