"""What the demonstration came to: numbers, a table, and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from feedmill.local.view import duration_ms
from feedmill.simulator.report import Report, VenueReport

_LETTERS = """
SELECT split_part(shard, '.', 2) AS feed, reason, count(*) AS found, min(detail) AS example
FROM dead_letters GROUP BY 1, 2 ORDER BY 1, 3 DESC"""


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters of one feed and reason."""

    feed: str
    reason: str
    count: int
    example: str


@dataclass(slots=True)
class Result:
    report: Report
    latencies: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Exchange market -> (p50, p99) in ms from the exchange's time to the commit."""
    messages: dict[str, int] = field(default_factory=dict)
    """Exchange market -> messages emitted."""
    letters: list[Letters] = field(default_factory=list)
    drained: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.report.ok and self.drained

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "drained": self.drained,
            "notes": self.notes,
            "messages": self.messages,
            "latencyMilliseconds": {
                venue: {"p50": p50, "p99": p99} for venue, (p50, p99) in sorted(self.latencies.items())
            },
            "deadLetters": [
                {"feed": item.feed, "reason": item.reason, "count": item.count, "example": item.example}
                for item in self.letters
            ],
            "venues": self.report.as_dict()["venues"],
        }


async def dead_letters(connection: asyncpg.Connection) -> list[Letters]:
    rows = await connection.fetch(_LETTERS)
    return [Letters(row["feed"], row["reason"], row["found"], row["example"] or "") for row in rows]


def table(result: Result) -> Table:
    """One line an exchange and kind, one column a question; fits 80 columns."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    made.add_column("", no_wrap=True)
    for column in ("emitted", "stored", "lost", "doubled", "in gaps", "wrong"):
        made.add_column(column, justify="right", no_wrap=True)
    for venue in result.report.venues:
        p50, p99 = result.latencies.get(venue.venue, (None, None))
        made.add_row(Text(venue.venue, style="bold"))
        _rows(made, venue)
        made.add_row(Text(f"  to commit: p50 {duration_ms(p50)}, p99 {duration_ms(p99)}"), end_section=True)
    return made


def _rows(made: Table, venue: VenueReport) -> None:
    books, candles = venue.books, venue.candles
    for what, flow in (("trades", venue.trades), ("tickers", venue.tickers)):
        wrong = flow.phantom + flow.wrong + flow.gaps_wrong
        asked = (_bad(flow.lost), _bad(flow.doubled), f"{flow.in_gaps:,}", _bad(wrong))
        made.add_row(f"  {what}", f"{flow.emitted:,}", f"{flow.stored:,}", *asked)
    made.add_row("  book snapshots", "", f"{books.checked:,}", "", "", "", _bad(books.wrong + books.phantom))
    name = f"  1 min candles ({candles.complete:,} complete)"
    made.add_row(name, "", f"{candles.stored:,}", _bad(candles.missing), "", "", _bad(candles.wrong))


def _bad(count: int) -> Text:
    return Text(f"{count:,}", style="bold red" if count else "green")


def words(result: Result) -> list[str]:
    """The verdict, and what is behind a bad one."""
    lines: list[str] = []
    gaps = sum(flow.gap_rows for venue in result.report.venues for flow in (venue.trades, venue.tickers))
    gaps += sum(venue.books.gap_rows for venue in result.report.venues)
    letters = sum(item.count for item in result.letters)
    if result.ok:
        lines.append(f"All that was emitted is stored, once, as it was. {gaps:,} gap rows, {letters:,} dead letters.")
    else:
        lines.append(f"NOT as it should be ({gaps:,} gap rows, {letters:,} dead letters):")
        lines += [f"  {venue.venue}: {note}" for venue in result.report.venues for note in venue.notes]
        if not result.report.venues:
            lines.append("  the ledger is empty: the simulated exchanges emitted nothing")
    lines += [f"  {note}" for note in result.notes]
    lines += [f"  {item.feed}: {item.count:,} dead letters, {item.reason}: {item.example}" for item in result.letters]
    return lines


def latencies_of(figures: Sequence[Any]) -> Mapping[str, tuple[float | None, float | None]]:
    """From the last figures of the feeds."""
    return {item.venue: (item.p50_ms, item.p99_ms) for item in figures}
