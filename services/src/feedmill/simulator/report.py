"""What verify found, as numbers, as JSON and as lines for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.text import Text


@dataclass(slots=True)
class Flow:
    """Trades or tickers of one venue: the ledger against the table. All counts are rows."""

    emitted: int = 0
    stored: int = 0
    lost: int = 0
    """Emitted, not stored and in no gap row."""
    in_gaps: int = 0
    """Emitted, not stored, covered by a gap row."""
    doubled: int = 0
    """Stored more than once (beyond the first)."""
    phantom: int = 0
    """Stored, never emitted."""
    wrong: int = 0
    """Stored with another content than emitted."""
    gap_rows: int = 0
    gaps_wrong: int = 0
    """What gap rows call missing although it is stored (trades: or was never emitted)."""
    unreadable: int = 0
    """Emitted on purpose with a price that is no number: in the ledger's faults, not in ``emitted``."""
    lost_before_first: int = 0
    """Of ``lost``: before the first one stored of its instrument."""
    lost_after_last: int = 0
    """Of ``lost``: after the last one stored (still on its way, or a hole that nothing after it shows)."""

    @property
    def ok(self) -> bool:
        return not (self.lost or self.doubled or self.phantom or self.wrong or self.gaps_wrong)


@dataclass(slots=True)
class Books:
    """Stored book snapshots, each compared level by level with the book rebuilt from the ledger."""

    checked: int = 0
    wrong: int = 0
    phantom: int = 0
    """Of an update id that was never emitted."""
    gap_rows: int = 0

    @property
    def ok(self) -> bool:
        return not (self.wrong or self.phantom)


@dataclass(slots=True)
class Candles:
    """1m candles recomputed from the ledger's trades that are stored; the venue's closed candles compared."""

    stored: int = 0
    complete: int = 0
    wrong: int = 0
    """Another content than recomputed, or complete although a trade of it is missing."""
    missing: int = 0
    """Minutes with stored trades and no candle."""
    venue_emitted: int = 0
    """Closed candles in the ledger."""
    venue_stored: int = 0
    venue_wrong: int = 0
    """Stored as closed with another content."""
    agree: int = 0
    """Complete candles that the venue's own agrees with."""
    disagree: int = 0

    @property
    def ok(self) -> bool:
        return not (self.wrong or self.missing or self.venue_wrong or self.disagree)


ACCOUNT_KINDS = ("fills", "orders", "balances", "positions", "transfers")


@dataclass(slots=True)
class Accounts:
    """Accounts of one venue: fills and transfers each, of orders, balances and positions the last state."""

    emitted: int = 0
    """Accounts in the ledger."""
    known: int = 0
    """Those that the database has under that name: only they are compared."""
    flows: dict[str, Flow] = field(default_factory=lambda: {kind: Flow() for kind in ACCOUNT_KINDS})
    half_filled: int = 0
    """Orders whose fills do not sum to what they say is filled."""
    dead_letters: int = 0
    gaps_open: int = 0
    """Gaps of accounts that no reconciliation has closed yet."""

    @property
    def ok(self) -> bool:
        return not self.half_filled and all(flow.ok for flow in self.flows.values())


@dataclass(slots=True)
class VenueReport:
    venue: str
    trades: Flow = field(default_factory=Flow)
    tickers: Flow = field(default_factory=Flow)
    books: Books = field(default_factory=Books)
    candles: Candles = field(default_factory=Candles)
    accounts: Accounts = field(default_factory=Accounts)
    causes: dict[str, int] = field(default_factory=dict)
    """Gap rows by channel and cause, e.g. ``Ticker disconnected``."""
    dead_letters: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    """Faults in the ledger by kind."""
    notes: list[str] = field(default_factory=list)
    """The first of what is wrong, in words."""

    @property
    def ok(self) -> bool:
        parts = (self.trades, self.tickers, self.books, self.candles, self.accounts)
        return all(part.ok for part in parts)


@dataclass(slots=True)
class Report:
    venues: list[VenueReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Everything emitted is stored once or told as missing; nothing else is stored."""
        return bool(self.venues) and all(venue.ok for venue in self.venues)

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "venues": [asdict(venue) | {"ok": venue.ok} for venue in self.venues]}

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def lines(self) -> list[Text]:
        """For a terminal of 80 columns: a heading a venue, a line a kind."""
        found = [Text(f"ledger against database: {'equal' if self.ok else 'NOT EQUAL'}", style="bold")]
        found += [Text(), _line("", tuple(_COLUMNS), style="bold")]
        for venue in self.venues:
            heading = Text(venue.venue, style="bold")
            heading.append("  ok" if venue.ok else "  WRONG", style="green" if venue.ok else "red")
            found += [Text(), heading, *_rows(venue)]
        return found


_LABEL = 14
_COLUMNS = {
    "emitted": 11, "stored": 11, "lost": 6, "in gaps": 8, "gap rows": 9, "doubled": 8, "phantom": 8, "wrong": 6,
}  # fmt: skip
"""Heading -> width with the blank before it."""


def _rows(venue: VenueReport) -> list[Text]:
    lines = [
        _line(
            what,
            (flow.emitted, flow.stored, flow.lost, flow.in_gaps, flow.gap_rows, flow.doubled, flow.phantom,
             flow.wrong + flow.gaps_wrong),
        )
        for what, flow in (("trades", venue.trades), ("tickers", venue.tickers))
    ]  # fmt: skip
    books, candles = venue.books, venue.candles
    lines.append(_line("book snapshots", ("", books.checked, "", "", books.gap_rows, "", books.phantom, books.wrong)))
    lines.append(_line("candles 1m", ("", candles.stored, candles.missing, "", "", "", "", candles.wrong)))
    own, wrong = candles.venue_emitted, candles.venue_wrong + candles.disagree
    lines.append(_line("venue candles", (own, candles.venue_stored, "", "", "", "", "", wrong)))
    lines.append(Text(f"{candles.complete:,} candles complete, {candles.agree:,} of them equal the venue's own"))
    return lines + _account_rows(venue.accounts)


def _account_rows(accounts: Accounts) -> list[Text]:
    if not accounts.emitted:
        return []
    told = f"{accounts.known:,} of {accounts.emitted:,} accounts are in the database"
    if not accounts.known:
        return [Text(f"{told}: none compared")]
    lines = [
        _line(kind, (flow.emitted, flow.stored, flow.lost, flow.in_gaps, "", flow.doubled, flow.phantom, flow.wrong))
        for kind, flow in accounts.flows.items()
    ]
    more = f", {accounts.gaps_open:,} of their gaps open" if accounts.gaps_open else ""
    return [*lines, Text(f"{told}{more}")]


def _line(label: str, cells: Sequence[int | str], style: str = "") -> Text:
    line = Text(label.ljust(_LABEL), style=style)
    for cell, width in zip(cells, _COLUMNS.values(), strict=True):
        text = cell if isinstance(cell, str) else f"{cell:,}"
        line.append(" " * max(1, width - len(text)) + text)
    return line
