"""Binance Spot, private mapper: events of the WebSocket API and signed REST answers. Dossier sections 7.4 and 7.5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feedmill.exchanges.account_base import AccountEvent, AccountMapper
from feedmill.exchanges.amounts import Amount, binance_state, given, quotient, side_of
from feedmill.exchanges.base import MapError
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.times import Number, Time, to_ns
from feedmill.shared.account_events import AccountFlag, Balance, BalanceChange, Fill, OrderUpdate
from feedmill.shared.account_keys import plus
from feedmill.shared.events import Side

_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_REST = int(AccountFlag.REST)


class _Report(msgspec.Struct, gc=False):
    s: str
    c: str
    S: str
    o: str
    f: str
    q: Amount
    p: Amount
    P: Amount
    C: str
    x: str
    X: str
    r: str
    i: Number
    l: Amount  # noqa: E741
    z: Amount
    L: Amount
    n: Amount | None
    N: str | None
    T: Time
    t: Number
    m: bool
    O: Number  # noqa: E741
    """Below 0 where a rejected order was never made."""
    Z: Amount
    Y: Amount
    Q: Amount = "0"
    eR: str = "NONE"


class _Held(msgspec.Struct, gc=False):
    a: str
    f: Amount
    l: Amount  # noqa: E741


class _Position(msgspec.Struct, gc=False):
    u: Time
    B: list[_Held]


class _Change(msgspec.Struct, gc=False):
    a: str
    d: Amount
    T: Time


class _Kind(msgspec.Struct, gc=False):
    e: str


class _Frame(msgspec.Struct, gc=False):
    event: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    status: Raw | UnsetType = UNSET


class _OrderRow(msgspec.Struct, gc=False):
    symbol: str
    orderId: Number
    clientOrderId: str
    price: Amount
    origQty: Amount
    executedQty: Amount
    cummulativeQuoteQty: Amount
    status: str
    timeInForce: str
    type: str
    side: str
    stopPrice: Amount
    time: Time
    updateTime: Time
    origQuoteOrderQty: Amount = "0"
    expiryReason: str = "NONE"


class _TradeRow(msgspec.Struct, gc=False):
    symbol: str
    id: Number
    orderId: Number
    price: Amount
    qty: Amount
    quoteQty: Amount
    commission: Amount
    commissionAsset: str
    time: Time
    isBuyer: bool
    isMaker: bool


class _Asset(msgspec.Struct, gc=False):
    asset: str
    free: Amount
    locked: Amount


class _Account(msgspec.Struct, gc=False):
    updateTime: Time
    balances: list[_Asset]


_frame = msgspec.json.Decoder(_Frame)
_kind = msgspec.json.Decoder(_Kind)
_orders = msgspec.json.Decoder(list[_OrderRow])
_order = msgspec.json.Decoder(_OrderRow)
_trades = msgspec.json.Decoder(list[_TradeRow])
_account = msgspec.json.Decoder(_Account)
_SILENT = frozenset(("listStatus", "externalLockUpdate", "eventStreamTerminated", "serverShutdown"))
"""Of no order or balance by itself: a lock shows in the next outboundAccountPosition."""


def _size(quantity: str, quote: str) -> str:
    """Empty for an order that was given by quote amount, whose quantity is what it came to."""
    return "" if given(quote) else quantity


class SpotAccountMapper(AccountMapper):
    def map(self, payload: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        try:
            frame = _frame.decode(payload)
            if not isinstance(frame.event, Raw):
                if isinstance(frame.status, Raw):
                    return ()  # An answer to a request.
                raise MapError("unknown_event", "neither an event nor an answer")
            kind = _kind.decode(frame.event).e
            if kind in _SILENT:
                return ()
            found = _EVENTS.get(kind)
            if found is None:
                raise MapError("unknown_event", kind[:40])
            decoder, handler = found
            return handler(self, decoder.decode(frame.event), receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None

    def _report(self, x: _Report, receive_ns: int) -> list[AccountEvent]:
        symbol, side = self.symbols[x.s], side_of(x.S)
        client = x.C or x.c  # The report of a cancel has the cancel's own id in c.
        status, terminal = binance_state(x.X)
        reason = next((word for word in (x.r, x.eR) if word not in ("NONE", "")), "")
        order = OrderUpdate(
            symbol, str(x.i), client, side, x.o.lower(), x.f.lower(), "", None, given(x.p), given(x.P),
            _size(x.q, x.Q), x.z, x.Z, quotient(x.Z, x.z), status, terminal, reason, to_ns(x.T),
            to_ns(max(x.O, 0)), receive_ns,
        )  # fmt: skip
        if x.x != "TRADE":
            return [order]
        fee, asset = (x.n or "", x.N) if x.N else ("", "")
        fill = Fill(
            symbol, str(x.t), str(x.i), client, side, "", x.L, x.l, x.Y, fee, asset, x.m, "", to_ns(x.T), receive_ns
        )
        return [fill, order]

    def _position(self, x: _Position, receive_ns: int) -> list[AccountEvent]:
        at = to_ns(x.u)
        return [Balance(row.a, plus(row.f, row.l), row.f, row.l, "", at, receive_ns) for row in x.B]

    def _change(self, x: _Change, receive_ns: int) -> list[AccountEvent]:
        # A deposit, a withdrawal or a transfer: the venue does not say which.
        return [BalanceChange(x.a, x.d, "unknown:balanceUpdate", "", to_ns(x.T), receive_ns)]

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        if status != 200:
            raise MapError("rest_status", f"{kind}: HTTP {status}")
        try:
            if kind in ("open_orders", "orders"):
                return [self._order_row(row, receive_ns) for row in _orders.decode(body)]
            if kind == "order":
                return [self._order_row(_order.decode(body), receive_ns)]
            if kind == "fills":
                return [self._trade_row(row, receive_ns) for row in _trades.decode(body)]
            if kind == "balances":
                found = _account.decode(body)
                at = to_ns(found.updateTime)
                return [
                    Balance(x.asset, plus(x.free, x.locked), x.free, x.locked, "", at, receive_ns, _REST)
                    for x in found.balances
                ]
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None
        raise MapError("unknown_kind", kind)

    def _order_row(self, x: _OrderRow, receive_ns: int) -> OrderUpdate:
        status, terminal = binance_state(x.status)
        reason = x.expiryReason if x.expiryReason != "NONE" else ""
        return OrderUpdate(
            self.symbols[x.symbol], str(x.orderId), x.clientOrderId, side_of(x.side), x.type.lower(),
            x.timeInForce.lower(), "", None, given(x.price), given(x.stopPrice),
            _size(x.origQty, x.origQuoteOrderQty), x.executedQty, x.cummulativeQuoteQty,
            quotient(x.cummulativeQuoteQty, x.executedQty), status, terminal, reason, to_ns(x.updateTime),
            to_ns(x.time), receive_ns, _REST,
        )  # fmt: skip

    def _trade_row(self, x: _TradeRow, receive_ns: int) -> Fill:
        return Fill(
            self.symbols[x.symbol], str(x.id), str(x.orderId), "", _BUY if x.isBuyer else _SELL, "", x.price, x.qty,
            x.quoteQty, x.commission, x.commissionAsset, x.isMaker, "", to_ns(x.time), receive_ns, _REST,
        )  # fmt: skip


_EVENTS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[SpotAccountMapper, Any, int], list[AccountEvent]]]] = {
    "executionReport": (msgspec.json.Decoder(_Report), SpotAccountMapper._report),
    "outboundAccountPosition": (msgspec.json.Decoder(_Position), SpotAccountMapper._position),
    "balanceUpdate": (msgspec.json.Decoder(_Change), SpotAccountMapper._change),
}
