"""Events of accounts (orders, fills, balances, positions, transfers) and the blocks that carry them, one account each.

As in :mod:`feedmill.shared.events`: money is the venue's exact decimal text, times are ns since the epoch, UTC, and the
natural keys (:mod:`feedmill.shared.account_keys`) hold exchange content only, so that stream and REST give equal ones.
Text that a source does not give is empty, which is never the same as "0"; a time that it does not give is 0.
"""

from __future__ import annotations

from enum import IntFlag

import msgspec

from feedmill.shared.decoding import decode
from feedmill.shared.events import DeadLetter
from feedmill.shared.traceparent import TraceRef

VERSION = 1


class AccountFlag(IntFlag):
    """As in the columns ``flags`` of the account tables; 4 is left to the import of files."""

    LATE = 1
    """Of a time before one that had been emitted."""
    REST = 2
    """From a REST answer, not from the stream."""


class OrderUpdate(msgspec.Struct, array_like=True, gc=False):
    """One state of one order. Of several the current one ranks last by (venue_ns, filled, terminal)."""

    symbol: str
    order_id: str
    """Of the venue; on Binance unique for the instrument only."""
    client_order_id: str
    """Under which the order was made, also in the report of its cancel."""
    side: int
    """``events.Side``, here of the account."""
    type: str
    """The venue's word in lower case: limit, market, stop_limit, ..."""
    time_in_force: str
    """gtc, ioc, fok, day, ... or the venue's word in lower case."""
    position_side: str
    """long | short | empty where an instrument has one position."""
    reduce_only: bool | None
    price: str
    """Limit; empty = none."""
    stop_price: str
    size: str
    """Empty where the order was given by quote amount."""
    filled: str
    filled_quote: str
    average_price: str
    status: str
    """new | untriggered | partially_filled | filled | cancelled | rejected | expired | unknown:the venue's word."""
    terminal: bool
    reason: str
    venue_ns: int
    created_ns: int
    receive_ns: int
    flags: int = 0


class Fill(msgspec.Struct, array_like=True, gc=False):
    """One execution of one order; a self-trade is two. Fields that one source lacks come from the other."""

    symbol: str
    trade_id: str
    order_id: str
    client_order_id: str
    side: int
    position_side: str
    price: str
    size: str
    quote: str
    fee: str
    """Paid, in ``fee_asset``; negative = a rebate."""
    fee_asset: str
    maker: bool | None
    venue_realised: str
    exchange_ns: int
    receive_ns: int
    flags: int = 0


class Balance(msgspec.Struct, array_like=True, gc=False):
    """What an account holds of one asset, absolute. ``venue_ns`` 0: the venue gives no time (Deribit)."""

    asset: str
    total: str
    """Free and locked; for derivatives the wallet balance."""
    free: str
    locked: str
    equity: str
    venue_ns: int
    receive_ns: int
    flags: int = 0


class BalanceChange(msgspec.Struct, array_like=True, gc=False):
    """A change that the venue states as such: deposit, withdrawal, transfer, funding, ..."""

    asset: str
    change: str
    """Signed."""
    cause: str
    """deposit | withdrawal | transfer | funding | ... | unknown:the venue's word."""
    venue_id: str
    venue_ns: int
    receive_ns: int
    flags: int = 0


class Position(msgspec.Struct, array_like=True, gc=False):
    """One position, absolute. ``venue_ns`` 0: the venue gives no time (Deribit)."""

    symbol: str
    position_side: str
    size: str
    """Signed; negative = short."""
    entry_price: str
    mark_price: str
    unrealised: str
    venue_realised: str
    venue_ns: int
    receive_ns: int
    flags: int = 0


class AccountGap(msgspec.Struct, array_like=True, gc=False):
    """The account was not listened to. Key: ``id``; a higher ``revision`` replaces a lower one.

    Closed by the reconciliation whose :class:`Reconciled` names it.
    """

    id: str
    cause: str
    """first | disconnected | expired | session_lost | shed | redis_lost | shutdown | killed | unreadable."""
    state: str
    """open | closed."""
    from_ns: int
    """The last sure sign of the stream before: of the newest event, at most four minutes before its end; 0 = never."""
    to_ns: int
    """Receive time of the first after; 0 = not yet."""
    revision: int
    detected_ns: int


class Reconciled(msgspec.Struct, array_like=True, gc=False):
    """What REST says was read in whole: the account is as it was at ``started_ns`` and what the stream told since."""

    gap_id: str
    """Empty: a sweep by the timer."""
    started_ns: int
    finished_ns: int
    requests: int
    weight: int
    instruments: list[str]
    """Those whose fills were read to their end."""
    refused: list[str]
    """What the venue would not answer, each with its reason; empty = complete."""


class AccountBlock(msgspec.Struct, array_like=True):
    """All events of one commit of one account. In each list the order is that of emission."""

    version: int = VERSION
    account: str = ""
    """namespace/name."""
    orders: list[OrderUpdate] = msgspec.field(default_factory=list)
    fills: list[Fill] = msgspec.field(default_factory=list)
    balances: list[Balance] = msgspec.field(default_factory=list)
    changes: list[BalanceChange] = msgspec.field(default_factory=list)
    positions: list[Position] = msgspec.field(default_factory=list)
    gaps: list[AccountGap] = msgspec.field(default_factory=list)
    reconciled: list[Reconciled] = msgspec.field(default_factory=list)
    dead_letters: list[DeadLetter] = msgspec.field(default_factory=list)
    traces: list[TraceRef] = msgspec.field(default_factory=list)
    """As of ``events.EventBlock``."""

    def __len__(self) -> int:
        return (
            len(self.orders)
            + len(self.fills)
            + len(self.balances)
            + len(self.changes)
            + len(self.positions)
            + len(self.gaps)
            + len(self.reconciled)
            + len(self.dead_letters)
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AccountBlock)


def encode_account(block: AccountBlock) -> bytes:
    return _encoder.encode(block if block.traces else msgspec.structs.astuple(block)[:-1])


def decode_account(data: bytes) -> AccountBlock:
    """Raises ``msgspec.DecodeError`` or ValueError when it is not a block this code reads."""
    block = decode(_decoder, data)
    if block.version != VERSION:
        raise ValueError(f"account block has version {block.version}, this code reads {VERSION}: upgrade the reader")
    return block
