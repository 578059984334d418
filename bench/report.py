"""The table: one row a number, both systems, the goal and the ratio; as markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.goals import MIX, Case, Metric
from bench.run import Measured

COMMAND = "make bench ARGS='--only {}'"
NO_VALUE = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, ready to print. ``holds``: whether the goal is reached, ``holds_ratio``: as a ratio to
    cryptofeed (None: there is none)."""

    case: str
    work: str
    load: str
    mode: str
    metric: str
    cryptofeed: str
    feedmill: str
    ratio: str
    goal: str
    holds: bool | None
    goal_ratio: str
    holds_ratio: bool | None
    command: str

    @property
    def verdict(self) -> str:
        return _verdict(self.holds)

    @property
    def verdict_ratio(self) -> str:
        return f"{self.goal_ratio} {_verdict(self.holds_ratio)}".strip()


def _verdict(holds: bool | None) -> str:
    return "" if holds is None else ("met" if holds else "NOT met")


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def better(metric: Metric, cryptofeed: float | None, feedmill: float | None) -> float | None:
    """How many times better Feedmill is (below 1: worse)."""
    if not cryptofeed or not feedmill:
        return None
    return feedmill / cryptofeed if metric.higher else cryptofeed / feedmill


def times(factor: float | None) -> str:
    if factor is None:
        return NO_VALUE
    return f"{factor:.2g}x" if factor < 10 else f"{factor:.0f}x"


def rows(case: Case, feedmill: Measured | str, cryptofeed: Measured | str) -> list[Row]:
    """The rows of one case. A text instead of a run says why there is none."""
    made = []
    for metric in case.metrics:
        ours = metric.of(feedmill) if isinstance(feedmill, Measured) else None
        theirs = metric.of(cryptofeed) if isinstance(cryptofeed, Measured) and metric.cryptofeed else None
        why_ours = feedmill if isinstance(feedmill, str) else NO_VALUE
        why_theirs = cryptofeed if isinstance(cryptofeed, str) and metric.cryptofeed else NO_VALUE
        bound = "" if metric.goal is None else f"{'>=' if metric.higher else '<='} {number(metric.goal)}"
        asked = metric.goal is not None and feedmill != NO_VALUE
        holds = (ours is not None and bool(metric.holds(ours))) if asked else None
        factor, wanted = better(metric, theirs, ours), metric.goal_ratio
        load = feedmill.load if isinstance(feedmill, Measured) else case.load
        made.append(
            Row(
                case.name, case.work, load, case.mode, f"{metric.name}, {metric.unit}",
                number(theirs) if theirs is not None else why_theirs,
                number(ours) if ours is not None else why_ours,
                times(factor), bound, holds, "" if wanted is None else f">= {times(wanted)}",
                None if wanted is None or factor is None else factor >= wanted, COMMAND.format(case.name),
            )
        )  # fmt: skip
    return made


HEAD = ("case", "work", "load", "mode", "number", "cryptofeed", "Feedmill", "times better", "goal", "goal met",
        "as a ratio")  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    return (row.case, row.work, row.load, row.mode, *_numbers(row))


def _numbers(row: Row) -> tuple[str, ...]:
    return (row.metric, row.cryptofeed, row.feedmill, row.ratio, row.goal, row.verdict, row.verdict_ratio)


def table(made: Sequence[Row], cryptofeed: str) -> Table:
    """For the terminal: a section a case, headed by the command that repeats it."""
    shown = Table(title=f"Feedmill and {cryptofeed}, one machine, one run; channel mix: {MIX}")
    for name in ("load, mode", "number"):
        shown.add_column(name)
    for name in (cryptofeed, "Feedmill", "times better", "goal", "goal met", "as a ratio"):
        shown.add_column(name, justify="right")
    last = ""
    for row in made:
        if row.case != last:
            shown.add_section()
            shown.add_row(f"[bold]{row.command}[/]", f"[bold]{row.work}[/]")
            last = row.case
        style = {True: "green", False: "red", None: ""}[row.holds]
        shown.add_row(f"{row.load}, {row.mode}", *_numbers(row), style=style)
    return shown


def verdicts(made: Sequence[Row]) -> str:
    """The goals that were measured, in one list: what is not met first."""
    asked = sorted((row for row in made if row.holds is not None), key=lambda row: bool(row.holds))
    met = sum(1 for row in asked if row.holds)
    compared = [row.holds_ratio for row in asked if row.holds_ratio is not None]
    lines = [f"Goals met: {met} of {len(asked)}; as ratios to cryptofeed: {sum(compared)} of {len(compared)}"]
    lines += [
        f"  {row.verdict:7}  {row.case}: {row.metric}: {row.feedmill} (goal {row.goal}), {row.load}, {row.mode}"
        + (f"; {row.ratio} ({row.verdict_ratio})" if row.goal_ratio else "")
        for row in asked
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def markdown(made: Sequence[Row], runs: Mapping[str, Measured], machine: Mapping[str, str], cryptofeed: str) -> str:
    """The page's tables: the results, every run's processes, the commands, the machine."""
    lines = [f"Channel mix of all rows: {MIX}. CPU is user + system time.", ""]
    head = tuple(cryptofeed if name == "cryptofeed" else name for name in HEAD)
    lines += [_line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(row)) for row in made]
    lines += ["", "Each run, process by process:", ""]
    columns = ("run", "load", "messages", "frame bytes", "CPU us/message", "of the servers", "RSS peak MB",
               "RSS end MB", "p50 / p99 / max ms", "sender late p50 / p99 / max ms", "others' CPU")  # fmt: skip
    lines += [_line(columns), _line(["---"] * len(columns))]
    for name, run in runs.items():
        times = NO_VALUE if run.p50 is None else f"{run.p50:.2f} / {run.p99:.2f} / {run.worst:.1f}"
        late = " / ".join(f"{value:.2f}" for value in run.sender_late) or NO_VALUE
        lines.append(
            _line((name, run.load, f"{run.messages:,}", str(run.frame_bytes), _each(run.cpu), _each(run.servers_cpu),
                   _each(run.rss_peak), _each(run.rss_end), times, late, f"{run.others:.0%}"))
        )  # fmt: skip
    lines += ["", "To repeat a case:", "", "```"]
    lines += dict.fromkeys(row.command for row in made)
    lines += ["```", "", "The machine:", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def into_page(page: str, tables: str) -> str:
    """The page with what stands between its marks replaced by ``tables``; raises ValueError when it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}: add both lines where the tables belong")
    return f"{before}{BEGIN}\n{tables}{END}{after}"


def _each(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())
