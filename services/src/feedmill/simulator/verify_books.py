"""Books: rebuilt from the ledger's updates, compared with every stored snapshot at its update id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal

Side = dict[Decimal, Decimal]
Stored = tuple[str, Sequence[Decimal], Sequence[Decimal], Sequence[Decimal], Sequence[Decimal]]
"""(slot, bid prices, bid sizes, ask prices, ask sizes), best first."""


class BookChecker:
    """Feed it the ledger's book rows in order; ``wrong`` and ``checked`` count snapshots."""

    def __init__(self, stored: dict[str, dict[int, list[Stored]]]) -> None:
        self._stored = stored
        self._depth = {
            symbol: max((max(len(shot[1]), len(shot[3])) for shots in by_seq.values() for shot in shots), default=0)
            for symbol, by_seq in stored.items()
        }
        self._books: dict[str, tuple[int, Side, Side]] = {}
        self._seen: set[tuple[str, int]] = set()
        self.checked = 0
        self.wrong = 0
        self.notes: list[str] = []

    def run(self, rows: Iterable[list[str]]) -> None:
        for symbol, _, seq_text, prev_text, _, bids, asks in rows:
            by_seq = self._stored.get(symbol)
            if by_seq is None:
                continue
            seq, image = int(seq_text), prev_text == "-1"
            last, bid_side, ask_side = self._books.get(symbol, (-1, {}, {}))
            if image:
                bid_side, ask_side = {}, {}
            elif seq <= last:
                continue
            for side, text in ((bid_side, bids), (ask_side, asks)):
                for price, size in json.loads(text):
                    amount = Decimal(size)
                    if amount:
                        side[Decimal(price)] = amount
                    else:
                        side.pop(Decimal(price), None)
            self._books[symbol] = (seq, bid_side, ask_side)
            if seq in by_seq and (symbol, seq) not in self._seen:
                self._seen.add((symbol, seq))
                for shot in by_seq[seq]:
                    self._compare(symbol, seq, shot, bid_side, ask_side)

    def _compare(self, symbol: str, seq: int, shot: Stored, bids: Side, asks: Side) -> None:
        self.checked += 1
        depth = self._depth[symbol]
        slot, bid_prices, bid_sizes, ask_prices, ask_sizes = shot
        wanted_bids = [(price, bids[price]) for price in sorted(bids, reverse=True)[:depth]]
        wanted_asks = [(price, asks[price]) for price in sorted(asks)[:depth]]
        stored_bids = list(zip(bid_prices, bid_sizes, strict=True))
        stored_asks = list(zip(ask_prices, ask_sizes, strict=True))
        if (wanted_bids, wanted_asks) != (stored_bids, stored_asks):
            self.wrong += 1
            side, wanted, stored = (
                ("bid", wanted_bids, stored_bids) if wanted_bids != stored_bids else ("ask", wanted_asks, stored_asks)
            )
            self.notes.append(f"book of {symbol} at {slot} (update {seq}): {side} {_first_difference(wanted, stored)}")

    @property
    def phantom(self) -> list[tuple[str, int]]:
        """Stored snapshots whose update id was never emitted."""
        return [
            (symbol, seq)
            for symbol, by_seq in self._stored.items()
            for seq in by_seq
            if (symbol, seq) not in self._seen
        ]


def _first_difference(wanted: list[tuple[Decimal, Decimal]], stored: list[tuple[Decimal, Decimal]]) -> str:
    for at, (expected, found) in enumerate(zip(wanted, stored, strict=False)):
        if expected != found:
            return f"level {at} should be {expected[0]} x {expected[1]}, stored is {found[0]} x {found[1]}"
    return f"should have {len(wanted)} levels, stored are {len(stored)}"
