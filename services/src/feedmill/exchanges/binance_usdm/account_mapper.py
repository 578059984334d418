"""Binance USD-M, private mapper: the /private stream and the signed REST answers. Dossier sections 7.3 and 7.4.

A fill comes twice, as TRADE_LITE (sooner, without its fee) and in ORDER_TRADE_UPDATE: equal keys make them one. What is
free is not told by the stream, so it is not taken from REST either: equal states are to have equal keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feedmill.exchanges.account_base import AccountEvent, AccountMapper
from feedmill.exchanges.amounts import Amount, binance_state, given, side_of
from feedmill.exchanges.base import MapError
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.times import Number, Time, to_ns
from feedmill.shared.account_events import AccountFlag, Balance, BalanceChange, Fill, OrderUpdate, Position

_REST = int(AccountFlag.REST)
_POSITION_SIDES = {"BOTH": "", "LONG": "long", "SHORT": "short"}
_CAUSES = {
    "DEPOSIT": "deposit",
    "ADMIN_DEPOSIT": "deposit",
    "COIN_SWAP_DEPOSIT": "deposit",
    "WITHDRAW": "withdrawal",
    "ADMIN_WITHDRAW": "withdrawal",
    "COIN_SWAP_WITHDRAW": "withdrawal",
    "FUNDING_FEE": "funding",
    "ASSET_TRANSFER": "transfer",
    "MARGIN_TRANSFER": "transfer",
}
"""Reason of an ACCOUNT_UPDATE -> cause of its balance changes."""


class _Order(msgspec.Struct, gc=False):
    s: str
    c: str
    S: str
    o: str
    f: str
    q: Amount
    p: Amount
    ap: Amount
    sp: Amount
    x: str
    X: str
    i: Number
    l: Amount  # noqa: E741
    z: Amount
    L: Amount
    T: Time
    t: Number
    m: bool
    R: bool
    ps: str
    rp: Amount
    n: Amount | UnsetType = UNSET
    N: str | UnsetType | None = UNSET
    er: str = "0"


class _OrderEvent(msgspec.Struct, gc=False):
    o: _Order


class _Lite(msgspec.Struct, gc=False):
    T: Time
    s: str
    m: bool
    c: str
    S: str
    L: Amount
    l: Amount  # noqa: E741
    t: Number
    i: Number


class _Held(msgspec.Struct, gc=False):
    a: str
    wb: Amount
    bc: Amount = "0"


class _Pos(msgspec.Struct, gc=False):
    s: str
    pa: Amount
    ep: Amount
    up: Amount
    ps: str
    cr: Amount | UnsetType = UNSET


class _Changes(msgspec.Struct, gc=False):
    m: str
    B: list[_Held] = []
    P: list[_Pos] = []


class _AccountEvent(msgspec.Struct, gc=False):
    T: Time
    a: _Changes


class _Frame(msgspec.Struct, gc=False):
    e: str = ""
    data: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    code: Raw | UnsetType = UNSET


class _OrderRow(msgspec.Struct, gc=False):
    symbol: str
    orderId: Number
    clientOrderId: str
    price: Amount
    origQty: Amount
    executedQty: Amount
    status: str
    timeInForce: str
    type: str
    side: str
    positionSide: str
    stopPrice: Amount
    reduceOnly: bool
    avgPrice: Amount
    cumQuote: Amount
    time: Time
    updateTime: Time


class _TradeRow(msgspec.Struct, gc=False):
    symbol: str
    id: Number
    orderId: Number
    side: str
    positionSide: str
    price: Amount
    qty: Amount
    quoteQty: Amount
    realizedPnl: Amount
    commission: Amount
    commissionAsset: str
    maker: bool
    time: Time


class _BalanceRow(msgspec.Struct, gc=False):
    asset: str
    balance: Amount
    updateTime: Time


class _PositionRow(msgspec.Struct, gc=False):
    symbol: str
    positionSide: str
    positionAmt: Amount
    entryPrice: Amount
    markPrice: Amount
    unRealizedProfit: Amount
    updateTime: Time


_frame = msgspec.json.Decoder(_Frame)
_orders = msgspec.json.Decoder(list[_OrderRow])
_order = msgspec.json.Decoder(_OrderRow)
_trades = msgspec.json.Decoder(list[_TradeRow])
_balances = msgspec.json.Decoder(list[_BalanceRow])
_positions = msgspec.json.Decoder(list[_PositionRow])
_SILENT = frozenset((
    "ACCOUNT_CONFIG_UPDATE", "ALGO_UPDATE", "CONDITIONAL_ORDER_TRIGGER_REJECT", "GRID_UPDATE", "MARGIN_CALL",
    "STRATEGY_UPDATE", "listenKeyExpired",
))  # fmt: skip
"""Known, and of no order, fill, balance or position: a conditional order is one once it is triggered."""


def _position_side(word: str) -> str:
    found = _POSITION_SIDES.get(word)
    if found is None:
        raise MapError("bad_field", f"position side {word[:40]}")
    return found


class UsdmAccountMapper(AccountMapper):
    def map(self, payload: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        try:
            frame = _frame.decode(payload)
            inner: Any = payload
            if isinstance(frame.data, Raw):  # Under its envelope, in archives.
                inner = frame.data
                frame = _frame.decode(inner)
            if frame.e in _SILENT:
                return ()
            found = _EVENTS.get(frame.e)
            if found is None:
                if not frame.e and (isinstance(frame.result, Raw) or isinstance(frame.code, Raw)):
                    return ()  # An answer to a request.
                raise MapError("unknown_event", frame.e[:40] or "no event type")
            decoder, handler = found
            return handler(self, decoder.decode(inner), receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None

    def _order(self, event: _OrderEvent, receive_ns: int) -> list[AccountEvent]:
        x = event.o
        symbol, side, position = self.symbols[x.s], side_of(x.S), _position_side(x.ps)
        status, terminal = binance_state(x.X)
        order = OrderUpdate(
            symbol, str(x.i), x.c, side, x.o.lower(), x.f.lower(), position, x.R, given(x.p), given(x.sp), x.q, x.z,
            "", given(x.ap), status, terminal, "" if x.er == "0" else f"expiry reason {x.er[:8]}", to_ns(x.T), 0,
            receive_ns,
        )  # fmt: skip
        if not x.t or not given(x.l):
            return [order]
        # "Will not push if no commission": left out, it is none, in an asset that is not told.
        fee = x.n if isinstance(x.n, str) else "0"
        asset = x.N if isinstance(x.N, str) else ""
        fill = Fill(
            symbol, str(x.t), str(x.i), x.c, side, position, x.L, x.l, "", fee, asset, x.m, x.rp, to_ns(x.T), receive_ns
        )
        return [fill, order]

    def _lite(self, x: _Lite, receive_ns: int) -> list[AccountEvent]:
        return [
            Fill(
                self.symbols[x.s], str(x.t), str(x.i), x.c, side_of(x.S), "", x.L, x.l, "", "", "", x.m, "",
                to_ns(x.T), receive_ns,
            )
        ]  # fmt: skip

    def _account(self, event: _AccountEvent, receive_ns: int) -> list[AccountEvent]:
        at, found = to_ns(event.T), event.a
        cause = _CAUSES.get(found.m, f"unknown:{found.m[:40]}")
        events: list[AccountEvent] = []
        for held in found.B:
            if given(held.bc):
                events.append(BalanceChange(held.a, held.bc, cause, "", at, receive_ns))
            events.append(Balance(held.a, held.wb, "", "", "", at, receive_ns))
        for x in found.P:
            realised = x.cr if isinstance(x.cr, str) else ""
            events.append(
                Position(self.symbols[x.s], _position_side(x.ps), x.pa, given(x.ep), "", x.up, realised, at, receive_ns)
            )
        return events

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
                return [
                    Balance(x.asset, x.balance, "", "", "", to_ns(x.updateTime), receive_ns, _REST)
                    for x in _balances.decode(body)
                ]
            if kind == "positions":
                return [self._position_row(row, receive_ns) for row in _positions.decode(body)]
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None
        raise MapError("unknown_kind", kind)

    def _order_row(self, x: _OrderRow, receive_ns: int) -> OrderUpdate:
        status, terminal = binance_state(x.status)
        return OrderUpdate(
            self.symbols[x.symbol], str(x.orderId), x.clientOrderId, side_of(x.side), x.type.lower(),
            x.timeInForce.lower(), _position_side(x.positionSide), x.reduceOnly, given(x.price), given(x.stopPrice),
            x.origQty, x.executedQty, x.cumQuote, given(x.avgPrice), status, terminal, "", to_ns(x.updateTime),
            to_ns(x.time), receive_ns, _REST,
        )  # fmt: skip

    def _trade_row(self, x: _TradeRow, receive_ns: int) -> Fill:
        return Fill(
            self.symbols[x.symbol], str(x.id), str(x.orderId), "", side_of(x.side), _position_side(x.positionSide),
            x.price, x.qty, x.quoteQty, x.commission, x.commissionAsset, x.maker, x.realizedPnl, to_ns(x.time),
            receive_ns, _REST,
        )  # fmt: skip

    def _position_row(self, x: _PositionRow, receive_ns: int) -> Position:
        return Position(
            self.symbols[x.symbol], _position_side(x.positionSide), x.positionAmt, given(x.entryPrice), x.markPrice,
            x.unRealizedProfit, "", to_ns(x.updateTime), receive_ns, _REST,
        )  # fmt: skip


_EVENTS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[UsdmAccountMapper, Any, int], list[AccountEvent]]]] = {
    "ORDER_TRADE_UPDATE": (msgspec.json.Decoder(_OrderEvent), UsdmAccountMapper._order),
    "TRADE_LITE": (msgspec.json.Decoder(_Lite), UsdmAccountMapper._lite),
    "ACCOUNT_UPDATE": (msgspec.json.Decoder(_AccountEvent), UsdmAccountMapper._account),
}
