"""One row a fault, for the terminal and as markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from faults.judge import MIB, ROLES, Measured

HEADINGS = (
    "fault", "emitted", "stored", "lost", "doubled", "in gaps t+q", "gap rows", "letters", "caught up", "repaired",
    "connects", "peak MiB r/d/p/m", "holds",
)  # fmt: skip


def cells(found: Measured, broken: Sequence[str]) -> tuple[str, ...]:
    verdict = "yes" if not broken else "NO"
    if found.report is None:
        return (found.name, *["-"] * (len(HEADINGS) - 2), verdict)
    letters = max((venue.dead_letters for venue in found.report.venues), default=0)
    peak = "/".join(f"{found.peak[role] / MIB:.0f}" if role in found.peak else "-" for role in ROLES)
    return (
        found.name,
        *(f"{found.total(what):,}" for what in ("emitted", "stored", "lost", "doubled")),
        "+".join(str(count) for count in found.in_gaps),
        f"{found.gap_rows:,}",
        str(letters),
        "-" if found.catch_up is None else f"{found.catch_up:.1f} s",
        "-" if found.repaired is None else f"{found.repaired:.0f} s",
        f"+{found.connects}",
        peak,
        verdict,
    )


WIDTHS = (27, 11, 11, 7, 8, 13, 9, 8, 10, 9, 9, 17, 6)


def line(values: Sequence[str]) -> str:
    first, *rest = zip(values, WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(value.rjust(width) for value, width in rest)


def markdown(rows: Sequence[tuple[Measured, Sequence[str]]]) -> list[str]:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|" + "--:|" * (len(HEADINGS) - 2) + "---|"]
    lines += ["| " + " | ".join(cells(found, broken)) + " |" for found, broken in rows]
    failed = [(found.name, text) for found, broken in rows for text in broken]
    if failed:
        lines += ["", "What does not hold:", ""]
        lines += [f"- {name}: {text}" for name, text in failed]
    return lines
