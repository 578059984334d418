"""Account events -> columns for the statements of :mod:`feedmill.processor.accounts.statements`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from feedmill.processor.rows import CommitKey
from feedmill.shared.account_events import (
    AccountBlock,
    AccountGap,
    Balance,
    BalanceChange,
    Fill,
    OrderUpdate,
    Position,
    Reconciled,
)
from feedmill.shared.account_keys import Key, fill_key, merged, order_key, order_rank, position_key
from feedmill.shared.events import DeadLetter

AccountEvent = OrderUpdate | Fill | Balance | BalanceChange | Position | AccountGap | Reconciled | DeadLetter
Columns = list[list[object]]
E = TypeVar("E", bound=AccountEvent)
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Unit:
    """An event and its place, for a dead letter."""

    commit: CommitKey
    index: int
    event: AccountEvent


def units_of(commit: CommitKey, block: AccountBlock) -> list[Unit]:
    lists: tuple[Iterable[AccountEvent], ...] = (
        block.orders, block.fills, block.balances, block.changes, block.positions, block.gaps, block.reconciled,
        block.dead_letters,
    )  # fmt: skip
    found: list[Unit] = []
    for events in lists:
        for event in events:
            found.append(Unit(commit, len(found), event))
    return found


def symbols_of(units: Iterable[Unit]) -> set[str]:
    return {unit.event.symbol for unit in units if isinstance(unit.event, (OrderUpdate, Fill, Position))}


def rounds(events: Iterable[E], key: Callable[[E], K]) -> list[list[E]]:
    """Parts in which each key is met once: the first, the second ... of each."""
    seen: dict[K, int] = {}
    parts: list[list[E]] = []
    for event in events:
        at = seen.get(key(event), 0)
        seen[key(event)] = at + 1
        if at == len(parts):
            parts.append([])
        parts[at].append(event)
    return parts


def order_rounds(events: Sequence[OrderUpdate]) -> list[list[OrderUpdate]]:
    """By rank, as far as the keys allow it. Raises decimal.InvalidOperation for a number that is none."""
    return rounds(sorted(events, key=lambda event: (order_rank(event), event.receive_ns)), order_key)


def once(fills: Iterable[Fill]) -> list[Fill]:
    """Each fill once, with all that is told of it."""
    found: dict[Key, Fill] = {}
    for fill in fills:
        key: Key = fill_key(fill)
        found[key] = merged(found[key], fill) if key in found else fill
    return list(found.values())


def venue_ns(event: Balance | Position) -> int:
    return event.venue_ns or event.receive_ns


def _latest(events: Iterable[E], key: Callable[[E], K], rank: Callable[[E], tuple[int, int]]) -> list[E]:
    found: dict[K, E] = {}
    for event in events:
        known = found.get(key(event))
        if known is None or rank(event) >= rank(known):
            found[key(event)] = event
    return list(found.values())


def latest_balances(events: Iterable[Balance]) -> list[Balance]:
    return _latest(events, lambda x: x.asset, lambda x: (venue_ns(x), x.receive_ns))


def latest_positions(events: Iterable[Position]) -> list[Position]:
    return _latest(events, position_key, lambda x: (venue_ns(x), x.receive_ns))


def _columns(rows: Iterable[tuple[object, ...]]) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)]


def order_columns(events: Iterable[OrderUpdate], ids: Mapping[str, int]) -> Columns:
    return _columns(
        (
            ids[x.symbol], x.order_id, x.client_order_id, x.side, x.type, x.time_in_force, x.position_side,
            x.reduce_only, x.price, x.stop_price, x.size, x.filled, x.filled_quote, x.average_price, x.status,
            x.terminal, x.reason, x.venue_ns, x.created_ns, x.receive_ns, x.flags,
        )
        for x in events
    )  # fmt: skip


def fill_columns(events: Iterable[Fill], ids: Mapping[str, int]) -> Columns:
    return _columns(
        (
            ids[x.symbol], x.trade_id, x.order_id, x.client_order_id, x.side, x.position_side, x.price, x.size, x.quote,
            x.fee, x.fee_asset, x.maker, x.venue_realised, x.exchange_ns, x.receive_ns, x.flags,
        )
        for x in events
    )  # fmt: skip


def balance_columns(events: Iterable[Balance]) -> Columns:
    return _columns((x.asset, x.total, x.free, x.locked, x.equity, venue_ns(x), x.receive_ns, x.flags) for x in events)


def change_columns(events: Iterable[BalanceChange]) -> Columns:
    return _columns((x.asset, x.change, x.cause, x.venue_id, x.venue_ns, x.receive_ns, x.flags) for x in events)


def position_columns(events: Iterable[Position], ids: Mapping[str, int]) -> Columns:
    return _columns(
        (
            ids[x.symbol], x.position_side, x.size, x.entry_price, x.mark_price, x.unrealised, x.venue_realised,
            venue_ns(x), x.receive_ns, x.flags,
        )
        for x in events
    )  # fmt: skip
