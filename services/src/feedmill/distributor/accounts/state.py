"""What is known of an account as of the last commit: the fields of its checkpoint. Pure.

``Live`` is as of now. When a gap opens it is frozen as the **base** and stays so until the gap is closed: what came
after the gap would hide what is in it. Where the sweep has to begin stays frozen until it is done, through later gaps.

Fields: ``id``, ``pos``, ``en``, ``eid`` as of feeds; ``line`` (:class:`Line`); ``base`` (``Known``);
``o:<symbol>/<order>`` (orders not at their end), ``i:<symbol>`` (largest ids), ``a:<asset>``, ``p:<symbol>/<side>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import msgspec

from feedmill.distributor.checkpoint import read_into
from feedmill.exchanges.account_base import AccountEvent
from feedmill.exchanges.account_rest import Known, OrderKey
from feedmill.shared.account_events import AccountGap, Balance, BalanceChange, Fill, OrderUpdate, Position
from feedmill.shared.account_keys import order_key, order_rank, position_key
from feedmill.shared.redis.ids import BEGIN

MAX_ENDED = 10_000
"""Orders at their end that are remembered, so that an older state of theirs does not open them again."""
MS = 1_000_000
QUIET_NS = 1_000_000_000
"""So long after a balance was received, whatever else happened in its ms was received too, or never will be."""


class Line(msgspec.Struct, array_like=True):
    """How the account is listened to."""

    batches: dict[str, int] = {}
    """Session -> number of its last batch; the newest last."""
    session: str = ""
    conn: int = 0
    """The connection that brings it; 0 = none."""
    heard_ns: int = 0
    """Receive time of the last sign of it."""
    silent: bool = False
    gap: AccountGap | None = None
    """The open one: there is at most one, which grows."""
    owed: bool = False
    """The base is still to be swept by."""
    looked_ns: int = 0
    """When a reconciliation last came to its end."""
    latest_ns: int = 0
    """Exchange time of the newest event."""
    moved_ns: int = 0
    """Of the newest deposit or withdrawal."""
    balance_ns: int = 0
    """Receive time of the newest balance."""
    whole: bool = False
    """The last gap was closed with nothing refused: what the base has of balances, orders and positions is read."""
    unswept: bool = False
    """The sweep is owed for an earlier gap than the last."""
    told_ns: int = 0
    """Exchange time of the newest event that the stream told."""


class OpenOrder(msgspec.Struct, array_like=True):
    """An order that is not at its end, with its fills (trade id -> size)."""

    venue_ns: int
    filled: str
    fills: dict[str, str] = {}


class Ids(msgspec.Struct, array_like=True):
    """The largest of one instrument; empty where ids are no numbers."""

    order: str = ""
    fill: str = ""


class Held(msgspec.Struct, array_like=True):
    """The newest balance of an asset."""

    total: str
    free: str
    locked: str
    at_ns: int


@dataclass(slots=True)
class Live:
    """Takes every event that is emitted; ``touched`` and ``deleted`` name checkpoint fields."""

    orders: dict[OrderKey, OpenOrder] = field(default_factory=dict)
    ids: dict[str, Ids] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    touched: dict[str, Any] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    _ended: dict[OrderKey, tuple[int, Decimal, bool]] = field(default_factory=dict)

    def take(self, event: AccountEvent) -> None:
        if isinstance(event, OrderUpdate):
            self._order(event)
        elif isinstance(event, Fill):
            self._fill(event)
        elif isinstance(event, Balance):
            known, at = self.held.get(event.asset), event.venue_ns or event.receive_ns
            if known is None or at >= known.at_ns:
                held = self.held[event.asset] = Held(event.total, event.free, event.locked, at)
                self._touch("a:" + event.asset, held)
        elif isinstance(event, Position):
            self._position(event)

    def _order(self, event: OrderUpdate) -> None:
        key, rank = order_key(event), order_rank(event)
        name = f"o:{event.symbol}/{event.order_id}"
        if event.order_id.isdigit():
            self._larger(event.symbol, "order", event.order_id)
        if key in self._ended and rank < self._ended[key]:
            return
        known = self.orders.get(key)
        if event.terminal:
            self._ended[key] = rank
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]
            if known is not None:
                del self.orders[key]
                self._delete(name)
        elif known is None or (event.venue_ns, Decimal(event.filled or 0)) >= (known.venue_ns, Decimal(known.filled)):
            fills = {} if known is None else known.fills
            self.orders[key] = OpenOrder(event.venue_ns, event.filled or "0", fills)
            self._touch(name, self.orders[key])

    def _fill(self, event: Fill) -> None:
        if event.trade_id.isdigit():
            self._larger(event.symbol, "fill", event.trade_id)
        order = self.orders.get((event.symbol, event.order_id))
        if order is not None:
            order.fills[event.trade_id] = event.size
            self._touch(f"o:{event.symbol}/{event.order_id}", order)

    def _position(self, event: Position) -> None:
        key = position_key(event)
        known = self.positions.get(key)
        if known is not None and (event.venue_ns or event.receive_ns) < (known.venue_ns or known.receive_ns):
            return
        # One that is flat is kept too: an older word of it must not bring it back.
        self.positions[key] = event
        self._touch("p:" + "/".join(key), event)

    def _larger(self, symbol: str, name: str, ident: str) -> None:
        ids = self.ids.setdefault(symbol, Ids())
        if int(ident) > int(getattr(ids, name) or "0"):
            setattr(ids, name, ident)
            self._touch("i:" + symbol, ids)

    def _touch(self, name: str, state: Any) -> None:
        self.touched[name] = state
        self.deleted.discard(name)

    def _delete(self, name: str) -> None:
        self.touched.pop(name, None)
        self.deleted.add(name)

    def known(self, line: Line) -> Known:
        """As of now. A copy: it may become the base."""
        return Known(
            {key: dict(order.fills) for key, order in self.orders.items()},
            {symbol: ids.order for symbol, ids in self.ids.items() if ids.order},
            {symbol: ids.fill for symbol, ids in self.ids.items() if ids.fill},
            {asset: held.total for asset, held in self.held.items()},
            {asset: (held.free, held.locked) for asset, held in self.held.items() if held.free},
            {key: each for key, each in self.positions.items() if Decimal(each.size)},
            line.latest_ns // MS,
            line.moved_ns // MS,
        )

    def since(self, line: Line, heard_ns: int) -> Known:
        """As of the gap that begins with the last sign of the account's connection, at ``heard_ns`` (0: not known)."""
        known = self.known(line)
        if heard_ns - line.balance_ns < QUIET_NS:
            return known
        return replace(known, told_ms=max((held.at_ns for held in self.held.values()), default=0) // MS)

    def above(self, base: Known) -> Known:
        """The base, and what has been told since of things that it must not leave standing.

        What the base had not is there as 0, so that it is told when it is gone again and counts as changed when it is
        not; a position that it had is told as gone after it was last told.
        """
        orders = {key: dict(order.fills) for key, order in self.orders.items()}
        for key, fills in base.open_orders.items():
            orders[key] = {**fills, **orders.get(key, {})}
        positions = {}
        for key, each in self.positions.items():
            if key in base.positions:
                size = base.positions[key].size
                positions[key] = msgspec.structs.replace(each, size=size)
            elif Decimal(each.size):
                positions[key] = msgspec.structs.replace(each, size="0")
        balances = dict.fromkeys(self.held, "0") | dict(base.balances)
        return replace(base, open_orders=orders, positions={**base.positions, **positions}, balances=balances)


@dataclass(slots=True)
class Checkpoint:
    """Everything an account's distributor begins with."""

    id: str = ""
    pos: str = BEGIN
    en: int = 0
    eid: str = ""
    line: Line = field(default_factory=Line)
    base: Known | None = None
    live: Live = field(default_factory=Live)


_encoder = msgspec.msgpack.Encoder()
_line = msgspec.msgpack.Decoder(Line)
_known = msgspec.msgpack.Decoder(Known)
_order = msgspec.msgpack.Decoder(OpenOrder)
_ids = msgspec.msgpack.Decoder(Ids)
_held = msgspec.msgpack.Decoder(Held)
_position = msgspec.msgpack.Decoder(Position)


def encode(state: Line | Known | OpenOrder | Ids | Held | Position) -> bytes:
    return _encoder.encode(state)


def load(fields: Mapping[bytes, bytes]) -> Checkpoint:
    """Read the hash. Raises BadCheckpoint."""
    return read_into(Checkpoint(), fields, _read, ": then the whole account is read by REST")


def _read(found: Checkpoint, name: str, value: bytes) -> None:
    kind, _, rest = name.partition(":")
    first, _, last = rest.rpartition("/")
    if name in ("id", "pos", "eid"):
        setattr(found, name, value.decode())
    elif name == "en":
        found.en = int(value)
    elif name == "line":
        found.line = _line.decode(value)
    elif name == "base":
        found.base = _known.decode(value)
    elif kind == "o":
        found.live.orders[first, last] = _order.decode(value)
    elif kind == "i":
        found.live.ids[rest] = _ids.decode(value)
    elif kind == "a":
        found.live.held[rest] = _held.decode(value)
    elif kind == "p":
        found.live.positions[first, last] = _position.decode(value)
    else:
        raise ValueError("this code has no such field")


def time_of(event: AccountEvent) -> int:
    """Exchange time of what has a place in the account's history; 0 for what only says how things stand."""
    if isinstance(event, Fill):
        return event.exchange_ns
    return event.venue_ns if isinstance(event, OrderUpdate | BalanceChange) else 0
