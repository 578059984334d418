"""Deribit, private mapper: ``user.*`` channels and the private methods' results. Dossier sections 7.2 and 7.3.

The stream's rows and the methods' rows are the same, so both go through the same code. Neither balances nor positions
have a time. A fill is keyed by ``trade_id``, which is unique everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feedmill.exchanges.account_base import AccountEvent, AccountMapper
from feedmill.exchanges.amounts import given, side_of
from feedmill.exchanges.base import MapError
from feedmill.exchanges.deribit.numbers import decimal_text
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.times import Time, to_ns
from feedmill.shared.account_events import AccountFlag, Balance, BalanceChange, Fill, OrderUpdate, Position

_REST = int(AccountFlag.REST)
_STATES = {
    "open": ("new", False),
    "untriggered": ("untriggered", False),
    "triggered": ("new", False),
    "filled": ("filled", True),
    "cancelled": ("cancelled", True),
    "rejected": ("rejected", True),
}
_FORCES = {
    "good_til_cancelled": "gtc",
    "good_til_day": "day",
    "fill_or_kill": "fok",
    "immediate_or_cancel": "ioc",
}
_MAKER = {"M": True, "T": False}


class _Order(msgspec.Struct, gc=False):
    instrument_name: str
    order_id: str
    direction: str
    order_type: str
    order_state: str
    amount: Raw
    last_update_timestamp: Time
    creation_timestamp: Time
    price: Raw | UnsetType = UNSET
    filled_amount: Raw | UnsetType = UNSET
    average_price: Raw | UnsetType = UNSET
    trigger_price: Raw | UnsetType = UNSET
    label: str = ""
    time_in_force: str = ""
    reduce_only: bool | None = None
    cancel_reason: str = ""


class _Trade(msgspec.Struct, gc=False):
    instrument_name: str
    trade_id: str
    order_id: str
    direction: str
    price: Raw
    amount: Raw
    timestamp: Time
    fee: Raw | UnsetType = UNSET
    fee_currency: str = ""
    liquidity: str = ""
    profit_loss: Raw | UnsetType = UNSET
    label: str = ""


class _Position(msgspec.Struct, gc=False):
    instrument_name: str
    size: Raw
    average_price: Raw
    mark_price: Raw | UnsetType = UNSET
    floating_profit_loss: Raw | UnsetType = UNSET
    realized_profit_loss: Raw | UnsetType = UNSET


class _Portfolio(msgspec.Struct, gc=False):
    currency: str
    balance: Raw
    equity: Raw | UnsetType = UNSET


class _Changes(msgspec.Struct, gc=False):
    trades: list[_Trade] = []
    positions: list[_Position] = []
    orders: list[_Order] = []


class _Params(msgspec.Struct, gc=False):
    channel: str = ""
    data: Raw | UnsetType = UNSET


class _Frame(msgspec.Struct, gc=False):
    method: str = ""
    params: _Params | None = None


class _Trades(msgspec.Struct, gc=False):
    trades: list[_Trade]
    has_more: bool = False


class _Summaries(msgspec.Struct, gc=False):
    summaries: list[_Portfolio]


class _Move(msgspec.Struct, gc=False):
    currency: str
    amount: Raw
    state: str
    transaction_id: str | None = None
    id: str | int = ""
    received_timestamp: Time = 0
    created_timestamp: Time = 0


class _Moves(msgspec.Struct, gc=False):
    data: list[_Move]


class _Answer(msgspec.Struct, gc=False):
    result: Raw


_frame = msgspec.json.Decoder(_Frame)
_answer = msgspec.json.Decoder(_Answer)
_any_order = msgspec.json.Decoder(_Order | list[_Order])
_trades = msgspec.json.Decoder(list[_Trade])
_changes = msgspec.json.Decoder(_Changes)
_portfolio = msgspec.json.Decoder(_Portfolio)
_positions = msgspec.json.Decoder(list[_Position])
_summaries = msgspec.json.Decoder(_Summaries)
_paged = msgspec.json.Decoder(_Trades)
_moves = msgspec.json.Decoder(_Moves)


def _number(raw: Raw) -> str:
    """Exact decimal text. Raises MapError."""
    text = bytes(raw)
    if text.startswith(b'"'):
        raise MapError("bad_field", f"expected a number, got {text[:40]!r}")
    return decimal_text(raw)


def _text(raw: Raw | UnsetType) -> str:
    """Empty where it is left out or null."""
    return _number(raw) if isinstance(raw, Raw) and bytes(raw) != b"null" else ""


def _limit(x: _Order) -> str:
    """A market order has none: its price is "market_price", or what it was filled at."""
    market = x.order_type in ("market", "stop_market", "take_market")
    if market or (isinstance(x.price, Raw) and bytes(x.price) == b'"market_price"'):
        return ""
    return _text(x.price)


class DeribitAccountMapper(AccountMapper):
    def map(self, payload: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        try:
            frame = _frame.decode(payload)
            if frame.method != "subscription":
                return ()
            params = frame.params
            if params is None or not isinstance(params.data, Raw):
                raise MapError("missing_field", "params.data of a notification")
            parts = params.channel.split(".")
            found = _CHANNELS.get(parts[1]) if parts[0] == "user" and len(parts) > 1 else None
            if found is None:
                raise MapError("unknown_event", params.channel[:80])
            return found(self, params.data, receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None

    def _on_orders(self, data: Raw, receive_ns: int) -> list[AccountEvent]:
        found = _any_order.decode(data)
        return [self._order(x, receive_ns) for x in (found if isinstance(found, list) else [found])]

    def _on_trades(self, data: Raw, receive_ns: int) -> list[AccountEvent]:
        return [self._trade(x, receive_ns) for x in _trades.decode(data)]

    def _on_changes(self, data: Raw, receive_ns: int) -> list[AccountEvent]:
        found = _changes.decode(data)
        events: list[AccountEvent] = [self._trade(x, receive_ns) for x in found.trades]
        events += [self._order(x, receive_ns) for x in found.orders]
        events += [self._position(x, receive_ns) for x in found.positions]
        return events

    def _on_portfolio(self, data: Raw, receive_ns: int) -> list[AccountEvent]:
        return [_balance(_portfolio.decode(data), receive_ns)]

    def _order(self, x: _Order, receive_ns: int, flags: int = 0) -> OrderUpdate:
        filled = _text(x.filled_amount) or "0"
        status, terminal = _STATES.get(x.order_state, (f"unknown:{x.order_state[:40]}", False))
        if status == "new" and given(filled):
            status = "partially_filled"
        return OrderUpdate(
            self.symbols[x.instrument_name], x.order_id, x.label, side_of(x.direction), x.order_type,
            _FORCES.get(x.time_in_force, x.time_in_force), "", x.reduce_only, _limit(x), _text(x.trigger_price),
            _number(x.amount), filled, "", given(_text(x.average_price)), status, terminal, x.cancel_reason,
            to_ns(x.last_update_timestamp), to_ns(x.creation_timestamp), receive_ns, flags,
        )  # fmt: skip

    def _trade(self, x: _Trade, receive_ns: int, flags: int = 0) -> Fill:
        return Fill(
            self.symbols[x.instrument_name], x.trade_id, x.order_id, x.label, side_of(x.direction), "",
            _number(x.price), _number(x.amount), "", _text(x.fee), x.fee_currency,
            _MAKER.get(x.liquidity), _text(x.profit_loss), to_ns(x.timestamp), receive_ns, flags,
        )  # fmt: skip

    def _position(self, x: _Position, receive_ns: int, flags: int = 0) -> Position:
        return Position(
            self.symbols[x.instrument_name], "", _number(x.size), given(_number(x.average_price)),
            _text(x.mark_price), _text(x.floating_profit_loss), _text(x.realized_profit_loss), 0, receive_ns, flags,
        )  # fmt: skip

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        if status != 200:
            raise MapError("rest_status", f"{kind}: HTTP {status}")
        try:
            result = _answer.decode(body).result
            if kind in ("open_orders", "orders", "order"):
                found = _any_order.decode(result)
                return [self._order(x, receive_ns, _REST) for x in (found if isinstance(found, list) else [found])]
            if kind == "fills":
                return [self._trade(x, receive_ns, _REST) for x in _paged.decode(result).trades]
            if kind == "balances":
                return [_balance(x, receive_ns, _REST) for x in _summaries.decode(result).summaries]
            if kind == "positions":
                return [self._position(x, receive_ns, _REST) for x in _positions.decode(result)]
            if kind in ("deposits", "withdrawals"):
                return _moved(kind, _moves.decode(result).data, receive_ns)
        except DECODE_ERRORS as error:
            raise map_error(error) from error
        except KeyError as error:
            raise MapError("unknown_symbol", str(error.args[0])) from None
        raise MapError("unknown_kind", kind)

    def more(self, kind: str, body: bytes) -> bool:
        try:
            return kind == "fills" and _paged.decode(_answer.decode(body).result).has_more
        except DECODE_ERRORS as error:
            raise map_error(error) from error


def _balance(x: _Portfolio, receive_ns: int, flags: int = 0) -> Balance:
    return Balance(x.currency, _number(x.balance), "", "", _text(x.equity), 0, receive_ns, flags)


def _moved(kind: str, rows: Sequence[_Move], receive_ns: int) -> list[AccountEvent]:
    """Only what is completed: before, it may still come to nothing."""
    sign, cause = ("", "deposit") if kind == "deposits" else ("-", "withdrawal")
    events: list[AccountEvent] = []
    for x in rows:
        if x.state in ("completed", "confirmed"):
            venue_id = x.transaction_id or str(x.id)
            at = to_ns(x.received_timestamp or x.created_timestamp)
            events.append(BalanceChange(x.currency, sign + _number(x.amount), cause, venue_id, at, receive_ns, _REST))
    return events


_CHANNELS: dict[str, Callable[[DeribitAccountMapper, Raw, int], list[AccountEvent]]] = {
    "orders": DeribitAccountMapper._on_orders,
    "trades": DeribitAccountMapper._on_trades,
    "changes": DeribitAccountMapper._on_changes,
    "portfolio": DeribitAccountMapper._on_portfolio,
}
