"""What a traced batch, or answer, of the raw stream brought about: told to those who make spans of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feedmill.shared.events import EventBlock, Trade

RANGES = 20
"""Instruments whose trades are named; those of more are only counted."""


class Mark(NamedTuple):
    """How much there was before."""

    trades: int
    tickers: int
    events: int

    @classmethod
    def of(cls, block: EventBlock) -> Mark:
        return cls(len(block.trades), len(block.tickers), len(block))


@dataclass(frozen=True, slots=True)
class Origin:
    """Which entry of the raw stream, or which answer in it."""

    parent: str
    """``traceparent`` of the span that wrote it."""
    stream_id: str
    session: str
    batch: int
    read_ns: int
    """When it was read, ns."""
    command: str = ""
    """Of an answer."""


@dataclass(frozen=True, slots=True)
class Traced:
    """One entry, or one answer in it."""

    origin: Origin
    events: int
    exchange_ns: int
    """Exchange time of its oldest trade or ticker, ns; 0 = it brought none, or the venue gives none."""
    receive_ns: int
    """Receive time of the same."""
    trades: tuple[str, ...] = ()
    """``BTC-USDT 17-19``: instrument, first and last number, of each instrument."""
    fills: tuple[str, ...] = ()
    """Of an account: ``BTC-USDT 17``, instrument and number of each fill."""


def of_feed(origin: Origin, block: EventBlock, before: Mark) -> Traced:
    """``before``: what was in ``block`` before the batch was handled."""
    trades = block.trades[before.trades :]
    times = [(trade.exchange_ns, trade.receive_ns) for trade in trades]
    times += [(ticker.exchange_ns, ticker.receive_ns) for ticker in block.tickers[before.tickers :]]
    return Traced(origin, len(block) - before.events, *oldest(times), trades=_ranges(trades))


def oldest(times: list[tuple[int, int]]) -> tuple[int, int]:
    """Exchange and receive time; those without an exchange time count last."""
    return min(times, key=lambda each: (not each[0], each), default=(0, 0))


def _ranges(trades: Sequence[Trade]) -> tuple[str, ...]:
    found: dict[str, tuple[int, int]] = {}
    for trade in trades:
        low, high = found.get(trade.symbol, (trade.id, trade.id))
        found[trade.symbol] = min(low, trade.id), max(high, trade.id)
    return tuple(f"{symbol} {low}-{high}" for symbol, (low, high) in list(found.items())[:RANGES])
