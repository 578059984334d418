"""What a traced batch of an account's raw stream brought about. Pure."""

from __future__ import annotations

from typing import NamedTuple

from feedmill.distributor.traced import RANGES, Origin, Traced, oldest
from feedmill.shared.account_events import AccountBlock


class AccountMark(NamedTuple):
    """How much there was before."""

    fills: int
    orders: int
    events: int

    @classmethod
    def of(cls, block: AccountBlock) -> AccountMark:
        return cls(len(block.fills), len(block.orders), len(block))


def of_account(origin: Origin, block: AccountBlock, before: AccountMark) -> Traced:
    """``before``: what was in ``block`` before the batch was handled."""
    fills = block.fills[before.fills :]
    times = [(fill.exchange_ns, fill.receive_ns) for fill in fills]
    times += [(order.venue_ns, order.receive_ns) for order in block.orders[before.orders :]]
    named = tuple(f"{fill.symbol} {fill.trade_id}" for fill in fills[:RANGES])
    return Traced(origin, len(block) - before.events, *oldest(times), fills=named)
