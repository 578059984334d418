"""One row a fault, for the terminal and as markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faults import account_table
from faults.judge import MIB, ROLES, Measured

HEADINGS = (
    "fault", "emitted", "stored", "lost", "doubled", "in gaps t+q", "gap rows (open)", "letters", "caught up",
    "repaired", "connects/most", "peak MiB r/d/p/m", "grown r/d/p/m", "lag ms r/d/p/m", "holds",
)  # fmt: skip


def cells(found: Measured, broken: Sequence[str]) -> tuple[str, ...]:
    verdict = "yes" if not broken else "NO"
    if found.report is None:
        return (found.name, *["-"] * (len(HEADINGS) - 2), verdict)
    letters = max((venue.dead_letters for venue in found.report.venues), default=0)
    peak = {role: f"{size / MIB:.0f}" for role, size in found.peak.items()}
    grown = {
        role: f"{(size - found.before[role]) / MIB:+.0f}" for role, size in found.after.items() if role in found.before
    }
    lag = {role: str(late) for role, late in found.lag.items()}
    return (
        found.name,
        *(f"{found.total(what):,}" for what in ("emitted", "stored", "lost", "doubled")),
        "+".join(str(count) for count in found.in_gaps),
        f"{found.gap_rows:,} ({found.open_gaps:,})",
        str(letters),
        "-" if found.catch_up is None else f"{found.catch_up:.1f} s",
        "-" if found.repaired is None else f"{found.repaired:.0f} s",
        f"{found.connects}/{'any' if found.connects_most is None else found.connects_most}",
        *("/".join(values.get(role, "-") for role in ROLES) for values in (peak, grown, lag)),
        verdict,
    )


def totals(rows: Sequence[Measured]) -> str:
    """All rows in one line."""
    counts = (f"{sum(found.total(what) for found in rows):,} {what}" for what in ("emitted", "lost", "doubled"))
    trades, quotes = (sum(found.in_gaps[place] for found in rows) for place in (0, 1))
    peak = max((size for found in rows for size in found.peak.values()), default=0)
    fills = [sum(found.of_accounts("fills", what) for found in rows) for what in ("emitted", "lost", "doubled")]
    of_accounts = f", {fills[0]:,} fills of accounts ({fills[1]} lost, {fills[2]} doubled)" if fills[0] else ""
    return (
        f"all together: {', '.join(counts)}, in gap rows {trades:,} trades and {quotes:,} quotes{of_accounts},"
        f" {sum(found.connects for found in rows):,} connects, {sum(found.refused for found in rows):,} refused,"
        f" at most {peak / MIB:.0f} MiB; {sum(found.seconds for found in rows) / 60:.0f} min of runs"
    )


WIDTHS = (27, 11, 11, 7, 8, 13, 16, 8, 10, 9, 14, 17, 15, 19, 6)


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of rows."""

    headings: Sequence[str]
    widths: Sequence[int]
    cells: Callable[[Measured, Sequence[str]], tuple[str, ...]]

    def line(self, values: Sequence[str]) -> str:
        first, *rest = zip(values, self.widths, strict=True)
        return first[0].ljust(first[1]) + "".join(value.rjust(width) for value, width in rest)


FEEDS = Table(HEADINGS, WIDTHS, cells)
ACCOUNTS = Table(account_table.HEADINGS, account_table.WIDTHS, account_table.cells)


def table_of(found: Measured) -> Table:
    return ACCOUNTS if found.accounts else FEEDS


def markdown(rows: Sequence[tuple[Measured, Sequence[str]]]) -> list[str]:
    lines: list[str] = []
    for table in (FEEDS, ACCOUNTS):
        own = [row for row in rows if table_of(row[0]) is table]
        if own:
            lines += ["", "| " + " | ".join(table.headings) + " |"]
            lines.append("|---|" + "--:|" * (len(table.headings) - 2) + "---|")
            lines += ["| " + " | ".join(table.cells(*row)) + " |" for row in own]
    failed = [(found.name, text) for found, broken in rows for text in broken]
    if failed:
        lines += ["", "What does not hold:", ""]
        lines += [f"- {name}: {text}" for name, text in failed]
    return lines[1:]
