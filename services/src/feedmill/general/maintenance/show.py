"""A run's report as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from feedmill.general.maintenance.record import Run
from feedmill.general.maintenance.report import Report
from feedmill.shared.clock import SECOND, iso

TABLES = 12
"""Of which figures are shown, the largest first."""


def run_lines(run: Run) -> Iterator[str]:
    """When it was and how it ended, then :func:`report_lines`."""
    began = f"{iso(run.started_ns)[:19]}Z"
    if run.ended_ns is None:
        yield f"run {run.id}: began {began}, under way (or cut off, as the next run will tell)"
        return
    yield f"run {run.id}: began {began}, took {(run.ended_ns - run.started_ns) / SECOND:.1f} s, {run.outcome}"
    yield from report_lines(run.report)


def report_lines(report: Report) -> Iterator[str]:
    """What was done (in a dry run: would be), what was found, and the largest tables."""
    done = list(_done(report))
    if report.dry_run:
        yield "dry run: nothing was changed; a run now would do this" if done else "dry run: a run now would do nothing"
    yield from done or ([] if report.dry_run else ["nothing was to be done"])
    for table, why in sorted(report.put_off.items()):
        yield f"put off: old partitions of {table} ({why})"
    for name, why in sorted(report.kept.items()):
        yield f"kept in Redis: streams of {name}: {why}"
    for part, why in sorted(report.errors.items()):
        yield f"failed: {part}: {why}"
    yield ""
    yield f"findings: {len(report.findings) or 'none'}"
    for finding in report.findings:
        yield f"  {finding.kind}  {finding.subject}: {finding.text}"
        yield f"      {finding.remedy}"
    if report.tables:
        yield ""
        yield from _tables(report)


def _done(report: Report) -> Iterator[str]:
    for what, days in (("partitions made", report.made), ("partitions dropped", report.dropped)):
        for table, found in sorted(days.items()):
            yield f"{what}: {len(found)} of {table} ({_span(found)})"
    for table, rows in sorted(report.aged.items()):
        yield f"aged out: {rows} row{'' if rows == 1 else 's'} of {table}"
    if report.analyzed:
        yield f"statistics made: {', '.join(report.analyzed)}"
    for name, size in sorted(report.removed.items()):
        yield f"removed from Redis: streams of {name} ({_bytes(size)})"
    for name, size in sorted(report.released.items()):
        yield f"dropped: replication slot {name}, which kept {_bytes(size)} of log"


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{min(days)} to {max(days)}"


def _tables(report: Report) -> Iterator[str]:
    lines = [("TABLE", "ROWS", "DEAD", "SIZE", "INDEXES", "PARTITIONS")]
    largest = sorted(report.tables.items(), key=lambda item: (-item[1].size_bytes, item[0]))[:TABLES]
    for name, of in largest:
        figures = (f"{of.rows:,}", f"{of.dead_rows:,}", _bytes(of.size_bytes), _bytes(of.index_bytes))
        lines.append((name, *figures, str(of.partitions or "-")))
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        rest = "  ".join(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        yield f"{line[0]:<{widths[0]}}  {rest}"
    more = len(report.tables) - len(largest)
    if more > 0:
        yield f"and {more} smaller"


_UNITS: Mapping[str, int] = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}


def _bytes(size: int) -> str:
    for unit, factor in _UNITS.items():
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
