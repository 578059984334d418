"""Natural keys and ranks of account events, and how two tellings of one fill become one. Pure.

Keys hold exchange content only. Numbers in them are in one spelling, since stream and REST may differ in trailing zeros
(PostgreSQL's numeric compares them so by itself).
"""

from __future__ import annotations

from decimal import Context, Decimal

import msgspec

from feedmill.shared.account_events import Balance, BalanceChange, Fill, OrderUpdate, Position

Key = tuple[str | int, ...]
_EXACT = Context(prec=200)


def canonical(text: str) -> str:
    """Equal numbers give equal text: "1.0" and "1", "-0" and "0". Text that is no number stays as it is."""
    whole, point, digits = text.partition(".")
    if point and digits.isdigit():
        text = f"{whole}.{digits}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") and whole else text


def order_key(event: OrderUpdate) -> tuple[str, str]:
    """Of the order."""
    return event.symbol, event.order_id


def order_state_key(event: OrderUpdate) -> Key:
    """Of this state of it (``order_history_state``)."""
    return (
        *order_key(event), event.venue_ns, canonical(event.filled), event.terminal, event.status,
        canonical(event.price), canonical(event.size),
    )  # fmt: skip


def order_rank(event: OrderUpdate) -> tuple[int, Decimal, bool]:
    """The state that ranks last is the current one; Spot gives no sequence and times tie."""
    return event.venue_ns, Decimal(event.filled or 0), event.terminal


def fill_key(event: Fill) -> tuple[str, str, str]:
    """A self-trade is one trade and two orders, so the order is part of it."""
    return event.symbol, event.trade_id, event.order_id


def balance_key(event: Balance) -> Key:
    amounts = (event.total, event.free, event.locked, event.equity)
    return event.asset, event.venue_ns, *map(canonical, amounts)


def change_key(event: BalanceChange) -> Key:
    return event.asset, event.venue_ns, event.cause, canonical(event.change), event.venue_id


def position_key(event: Position) -> tuple[str, str]:
    """Of the position, not of this state of it: only the current one is kept."""
    return event.symbol, event.position_side


def merged(one: Fill, other: Fill) -> Fill:
    """Both tell of the same fill (equal keys): ``one``, with what it lacks taken from ``other``.

    Fee and its asset stay together, from the one that names the asset: where a stream leaves the fee out because it is
    0, REST says in which asset.
    """
    fee = max((one, other), key=lambda fill: (fill.fee_asset != "", fill.fee != ""))
    return msgspec.structs.replace(
        one,
        client_order_id=one.client_order_id or other.client_order_id,
        position_side=one.position_side or other.position_side,
        quote=one.quote or other.quote,
        fee=fee.fee,
        fee_asset=fee.fee_asset,
        maker=other.maker if one.maker is None else one.maker,
        venue_realised=one.venue_realised or other.venue_realised,
    )


def plus(one: str, other: str) -> str:
    """The exact sum of two amounts, with as many digits as the longer has."""
    return format(_EXACT.add(Decimal(one), Decimal(other)), "f")
