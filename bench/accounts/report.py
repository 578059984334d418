"""The table of the accounts' bench: for the terminal and as markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from bench.accounts.run import WEIGHT, Measured, Reconciled

BEGIN, END = "<!-- bench-accounts: begin -->", "<!-- bench-accounts: end -->"
MOVED = 15.0
"""Goal, in seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    value: str
    goal: str = ""
    holds: bool | None = None


def rows(found: Measured) -> list[Row]:
    fills = found.accounts.flows["fills"]
    wrong = fills.lost + fills.doubled + fills.phantom + fills.wrong
    equal = found.accounts.ok and found.accounts.known == found.load.accounts
    return [
        Row("accounts of the moved streams", f"{found.kill.accounts}"),
        Row("a member is killed: its streams are listened to by the other one after", f"{found.kill.listened:.1f} s",
            f"< {MOVED:g} s", found.kill.listened < MOVED),
        *_reconciled("... and reconciled", found.kill),
        Row("the whole pool is started anew: all are listened to after", f"{found.restart.listened:.1f} s"),
        *_reconciled("... and reconciled", found.restart),
        Row("requests refused for their weight", f"{found.refused}", "0", found.refused == 0),
        Row("fills emitted / stored / lost or doubled", f"{fills.emitted:,} / {fills.stored:,} / {wrong}", "0",
            wrong == 0 and fills.emitted > 0),
        Row("orders, balances and transfers agree with the ledger", "yes" if equal else "no", "yes", equal),
        Row("memory of a member: none, its part, all accounts",
            f"{found.empty:.0f} / {found.half:.0f} / {found.whole:.0f} MiB"),
        Row("memory an account", f"{found.per_account:.0f} KiB"),
        Row("CPU of the member that has all", f"{100 * found.cpu:.0f} % of one core"),
        Row("new accounts read the first time, where weight has no limit", f"{found.filled:.0f} s"),
    ]  # fmt: skip


def _reconciled(what: str, found: Reconciled) -> list[Row]:
    half, most = f"{found.half:.0f}", f"{found.most:.0f}"
    return [
        Row(f"{what}: half, 99 %, all after", f"{half} / {most} / {found.all:.0f} s"),
        Row("most weight of a minute", f"{found.peak:,}", f"<= {WEIGHT:,}", found.peak <= WEIGHT),
    ]


def _head(found: Measured) -> str:
    return f"{found.load.accounts} Binance Spot accounts, two members, {found.load.rate:g} actions a second"


def table(found: Measured) -> Table:
    made = Table(title=_head(found))
    for name in ("what", "measured", "goal", ""):
        made.add_column(name, justify="right" if name == "measured" else "left")
    for row in rows(found):
        made.add_row(row.what, row.value, row.goal, "" if row.holds is None else "met" if row.holds else "NOT met")
    return made


def markdown(found: Measured, about: Mapping[str, str]) -> str:
    """As it stands in docs/benchmarks.md."""
    lines = [*(f"{name}: {value}  " for name, value in about.items()), f"{_head(found)}.", ""]
    lines += ["| what | measured | goal | |", "|---|---:|---|---|"]
    for row in rows(found):
        verdict = "" if row.holds is None else "met" if row.holds else "**not met**"
        lines.append(f"| {row.what} | {row.value} | {row.goal} | {verdict} |")
    return "\n".join(lines) + "\n"


def into_page(page: str, text: str) -> str:
    """``page`` with the text between the marks; raises ValueError without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/benchmarks.md lacks {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}{END}{after}"
