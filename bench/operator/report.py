"""The table of the operator's bench: for the terminal and as markdown."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bench.operator.run import Measured, Phase

BEGIN, END = "<!-- bench-operator: begin -->", "<!-- bench-operator: end -->"
SECONDS, MEBIBYTES = 30.0, 200.0
"""Goals."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    what: str
    value: str
    goal: str = ""
    holds: bool | None = None


def rows(found: Measured) -> list[Row]:
    """What was measured, beside what was aimed at."""
    status = found.start.asked.status + found.settle.asked.status
    peak = max(phase.rss for phase in (found.start, found.settle, found.steady, found.change))
    steady = found.steady
    quiet = steady.asked.writes
    changes = found.change.asked.status
    return [
        Row(f"{found.load.feeds} feeds Accepted, from the start of the process", f"{found.accepted:.1f} s",
            f"<= {SECONDS:g} s", found.accepted <= SECONDS),
        Row("all children applied", f"{found.applied:.1f} s", f"<= {SECONDS:g} s", found.applied <= SECONDS),
        Row("all Ready (pods on simulated nodes too)", f"{found.ready:.1f} s"),
        Row("CPU of the operator until all children were applied", f"{found.start.cpu:.1f} s"),
        Row("CPU of the operator until it came to rest", f"{found.start.cpu + found.settle.cpu:.1f} s"),
        Row("highest RSS of the operator", f"{peak:.0f} MiB", f"<= {MEBIBYTES:g} MiB", peak <= MEBIBYTES),
        Row("RSS in the quiet time", f"{steady.rss:.0f} MiB"),
        Row("API calls until it came to rest, a feed",
            f"{(found.start.asked.by_verb + found.settle.asked.by_verb).total() / found.load.feeds:.1f}"),
        Row("status PATCHes a feed until Ready, mean / most", spread(status, found.load.feeds)),
        Row("one change each (an instrument): in all statuses after", f"{found.changed:.1f} s"),
        Row("status PATCHes a feed for one change, mean / most", spread(changes, found.load.feeds), "<= 1",
            max(changes.values(), default=0) <= 1),
        Row(f"writes in {steady.seconds:.0f} s without a change (Lease apart)", str(quiet), "0", quiet == 0),
        Row("reads in that time", str(steady.asked.by_verb.total() - quiet)),
        Row("CPU in that time", f"{100 * steady.cpu / steady.seconds:.1f} % of one core"),
    ]  # fmt: skip


def spread(counts: Counter[str], feeds: int) -> str:
    return f"{counts.total() / feeds:.2f} / {max(counts.values(), default=0)}"


def calls(found: Measured) -> list[tuple[str, ...]]:
    """(verb, start, quiet, change)."""
    phases = [found.start.asked.by_verb + found.settle.asked.by_verb, found.steady.asked.by_verb,
              found.change.asked.by_verb]  # fmt: skip
    verbs = sorted({verb for phase in phases for verb in phase})
    return [(verb, *(f"{phase[verb]:,}" for phase in phases)) for verb in verbs]


def table(found: Measured) -> Table:
    made = Table(title=f"The operator and {found.load.feeds} feeds of {found.load.pipelines} pipelines")
    for name in ("what", "measured", "goal", ""):
        made.add_column(name, justify="right" if name == "measured" else "left")
    for row in rows(found):
        verdict = "" if row.holds is None else "met" if row.holds else "NOT met"
        made.add_row(row.what, row.value, row.goal, verdict)
    for verb, *counts in calls(found):
        made.add_row(f"API calls: {verb} (start / quiet / change)", " / ".join(counts))
    return made


def markdown(found: Measured, about: Mapping[str, str]) -> str:
    """As it stands in docs/benchmarks.md."""
    lines = [f"{name}: {value}  " for name, value in about.items()]
    lines += [
        f"{found.load.feeds} ExchangeFeeds (2 instruments, 2 channels) of {found.load.pipelines} FeedPipelines.",
        "",
    ]
    lines += ["| what | measured | goal | |", "|---|---:|---|---|"]
    for row in rows(found):
        verdict = "" if row.holds is None else "met" if row.holds else "**not met**"
        lines.append(f"| {row.what} | {row.value} | {row.goal} | {verdict} |")
    lines += ["", "| API calls | until it came to rest | quiet | one change each |", "|---|---:|---:|---:|"]
    lines += [f"| {verb} | {' | '.join(counts)} |" for verb, *counts in calls(found)]
    return "\n".join(lines) + "\n"


def plain(found: Measured) -> dict[str, Any]:
    """For programs."""

    def phase(one: Phase) -> dict[str, Any]:
        return {
            "seconds": one.seconds, "cpu": one.cpu, "rss": one.rss, "calls": dict(one.asked.by_verb),
            "resources": {" ".join(key): number for key, number in sorted(one.asked.by_resource.items())},
            "refused": dict(one.asked.refused), "lease": one.asked.lease,
        }  # fmt: skip

    return {
        "feeds": found.load.feeds, "accepted": found.accepted, "applied": found.applied, "ready": found.ready,
        "changed": found.changed,
        **{name: phase(getattr(found, name)) for name in ("start", "settle", "steady", "change")},
    }  # fmt: skip


def into_page(page: str, text: str) -> str:
    """``page`` with the text between the marks; raises ValueError without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/benchmarks.md lacks {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}{END}{after}"
