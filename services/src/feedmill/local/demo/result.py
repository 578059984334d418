"""What the demonstration came to: numbers, a table, and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from rich.text import Text

from feedmill.local.demo.account_figures import AccountFigures
from feedmill.local.demo.account_view import final_lines
from feedmill.local.demo.accounts import Latencies
from feedmill.local.view import duration_ms
from feedmill.simulator.report import Accounts, Report, VenueReport

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
    latencies: dict[str, tuple[float | None, float | None, str]] = field(default_factory=dict)
    """Exchange market -> (p50, p99, since) in ms to the commit, since the exchange's time or since receiving."""
    messages: dict[str, int] = field(default_factory=dict)
    """Exchange market -> messages emitted."""
    letters: list[Letters] = field(default_factory=list)
    accounts: list[AccountFigures] = field(default_factory=list)
    """As stored at the end."""
    account_latencies: Latencies = field(default_factory=dict)
    open_gaps: int = 0
    drained: bool = True
    recorded: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        told = all(venue.accounts.known == venue.accounts.emitted for venue in self.report.venues)
        return self.report.ok and told and self.drained

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "drained": self.drained,
            "notes": self.notes,
            "messages": self.messages,
            "latencyMilliseconds": {
                venue: {"p50": p50, "p99": p99, "since": since}
                for venue, (p50, p99, since) in sorted(self.latencies.items())
            },
            "deadLetters": [
                {"feed": item.feed, "reason": item.reason, "count": item.count, "example": item.example}
                for item in self.letters
            ],
            "accounts": [account.as_dict() for account in self.accounts],
            "accountLatencyMilliseconds": {
                venue: {"p50": p50, "p99": p99} for venue, (p50, p99) in sorted(self.account_latencies.items())
            },
            "venues": self.report.as_dict()["venues"],
        }


async def dead_letters(connection: asyncpg.Connection) -> list[Letters]:
    rows = await connection.fetch(_LETTERS)
    return [Letters(row["feed"], row["reason"], row["found"], row["example"] or "") for row in rows]


COLUMNS = ("emitted", "stored", "lost", "doubled", "in gaps", "gap rows", "wrong")
_LABEL, _WIDTH = 17, 9
"""Characters: the lines fit a terminal of 80."""


def table(result: Result) -> list[Text]:
    """Per exchange a heading (latency, candles) and a line a kind, one column a question."""
    lines = [_line("", [Text(name) for name in COLUMNS], style="bold")]
    for venue in result.report.venues:
        p50, p99, since = result.latencies.get(venue.venue, (None, None, "exchange"))
        begin = "the exchange's time" if since == "exchange" else "receiving"
        heading = Text(venue.venue, style="bold")
        heading.append(f"  {begin} to commit: p50 {duration_ms(p50)}, p99 {duration_ms(p99)}", style="not bold")
        lines += [Text(), heading, *_rows(venue)]
    return lines


def _rows(venue: VenueReport) -> list[Text]:
    books, candles = venue.books, venue.candles
    blank = Text()
    lines = []
    for what, flow in (("trades", venue.trades), ("tickers", venue.tickers)):
        wrong = flow.phantom + flow.wrong + flow.gaps_wrong
        numbers = [_number(flow.emitted), _number(flow.stored), _bad(flow.lost), _bad(flow.doubled)]
        lines.append(_line(what, [*numbers, _number(flow.in_gaps), _number(flow.gap_rows), _bad(wrong)]))
    book = [blank, _number(books.checked), blank, blank, blank, _number(books.gap_rows)]
    lines.append(_line("book snapshots", [*book, _bad(books.wrong + books.phantom)]))
    candle = [blank, _number(candles.stored), _bad(candles.missing), blank, blank, blank, _bad(candles.wrong)]
    lines.append(_line("1 min candles", candle))
    return lines + _account_rows(venue.accounts)


def _account_rows(accounts: Accounts) -> list[Text]:
    lines = []
    for kind, flow in accounts.flows.items():
        wrong = flow.phantom + flow.wrong + (accounts.half_filled if kind == "orders" else 0)
        if not (accounts.known and (flow.emitted or flow.stored or wrong)):
            continue
        numbers = [_number(flow.emitted), _number(flow.stored), _bad(flow.lost), _bad(flow.doubled)]
        lines.append(_line(kind, [*numbers, _number(flow.in_gaps), Text(), _bad(wrong)]))
    return lines


def _line(label: str, cells: list[Text], style: str = "") -> Text:
    line = Text(f"  {label}".ljust(_LABEL), style=style)
    for cell in cells:
        line.append(" " * max(1, _WIDTH - len(cell)))
        line.append_text(cell)
    return line


def _number(count: int) -> Text:
    return Text(f"{count:,}")


def _bad(count: int) -> Text:
    return Text(f"{count:,}", style="bold red" if count else "green")


def words(result: Result) -> list[str]:
    """The verdict, and what is behind a bad one."""
    lines: list[str] = []
    causes: dict[str, int] = {}
    for venue in result.report.venues:
        for name, count in venue.causes.items():
            causes[name] = causes.get(name, 0) + count
    gaps = sum(causes.values())
    letters = sum(item.count for item in result.letters)
    if result.ok:
        lines.append(f"All that was emitted is stored, once, as it was. {gaps:,} gap rows, {letters:,} dead letters.")
    else:
        lines.append(f"NOT as it should be ({gaps:,} gap rows, {letters:,} dead letters):")
        lines += [f"  {venue.venue}: {note}" for venue in result.report.venues for note in venue.notes]
        if not result.report.venues:
            lines.append("  the ledger is empty: the simulated exchanges emitted nothing")
    broken = sum(count for name, count in causes.items() if name in ("Book sequence", "Book book"))
    sent = sum(result.messages.values())
    lines.append(f"  {sent:,} messages emitted; book sequences checked: {broken or 'no'} break{'s' * (broken > 1)}")
    lines += _of_accounts(result)
    if result.open_gaps:
        told = ", ".join(f"{count} {name}" for name, count in sorted(causes.items()))
        lines.append(f"  gap rows: {told}")
        lines.append(f"  {result.open_gaps} gaps are open, as nothing is heard since all was stopped")
    complete = sum(venue.candles.complete for venue in result.report.venues)
    if complete:
        lines.append(f"  {complete:,} candles are complete: the trades before, in and after them were all seen")
    else:
        how = "longer recordings" if result.recorded else "--seconds 150"
        lines.append(f"  no complete candle yet: it takes a minute with both neighbours ({how})")
    lines += [f"  {note}" for note in result.notes]
    lines += [f"  {item.feed}: {item.count:,} dead letters, {item.reason}: {item.example}" for item in result.letters]
    return lines


def _of_accounts(result: Result) -> list[str]:
    lines = []
    for venue in result.report.venues:
        missing = venue.accounts.emitted - venue.accounts.known
        if missing:
            lines.append(f"  {venue.venue}: {missing} accounts of the exchange are not in the database")
    lines += [f"  {line}" for line in final_lines(result.accounts, result.account_latencies)]
    if any(venue.accounts.flows["transfers"].in_gaps for venue in result.report.venues):
        lines.append("  transfers in gaps: Binance tells them by its stream only; balances are right")
    return lines


def latencies_of(figures: Sequence[Any]) -> Mapping[str, tuple[float | None, float | None, str]]:
    """From the last figures of the feeds."""
    return {item.venue: (item.p50_ms, item.p99_ms, item.latency_since) for item in figures}
