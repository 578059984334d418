"""Which of PostgreSQL's figures a person should know of, with what to do. Pure.

A finding must be worth a person's eye: what is small, young, or mends itself is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from feedmill.general.maintenance.figures import Figures, Holder, Index, Server, Table
from feedmill.general.maintenance.kinds import (
    AUTOVACUUM_OFF,
    BLOAT,
    DEAD_ROWS,
    DUPLICATE_INDEX,
    HELD_BACK,
    INVALID_INDEX,
    MISSING_INDEX,
    ORPHANED_STREAMS,
    PASSING,
    PUT_OFF,
    STATISTICS,
    UNUSED_INDEX,
    WAL_KEPT,
    WRAPAROUND,
)
from feedmill.general.maintenance.report import Finding, Report, TableFigures

MIB = 1 << 20
HOUR, DAY = 3600.0, 86400.0

TABLES_AT_MOST = 50
"""Of which figures are kept: in the same schema may be a user's own, any number of them."""
DEAD_AT_LEAST = 10_000
"""Dead rows that are not worth a word."""
DEAD_FACTOR = 3
"""How many times autovacuum's own threshold dead rows may reach: then it does not keep up."""
OLD_TRANSACTION = HOUR
BACKUP = "feedmill backup ("
OLD_BACKUP = DAY
"""A dump is one transaction for as long as it takes; it ends with the backup, by its Job's deadline at the latest."""
WAL_AT_LEAST = 4 << 30
"""Bytes of WAL a slot may keep."""
XID_AGE = 1_000_000_000
"""Of the two thousand million after which the server stops; it begins to vacuum for that at a fifth of this."""
WASTE_AT_LEAST = 128 * MIB
PAGE, PAGE_HEADER = 8192, 24
ROW_OVERHEAD = 32
"""Bytes a row takes beside its columns: pointer, header, and a mean of the alignment."""
COUNTED_AT_LEAST = 7 * DAY
"""Counters of use that cover less say nothing of what is unused."""
UNUSED_AT_LEAST = 16 * MIB
SCANS_AT_LEAST = 100
ROWS_AT_LEAST = 100_000
"""Read on average by a scan of a whole table: then an index is missing."""


def judge(figures: Figures) -> list[Finding]:
    """What is to be mended, the same order each time."""
    return [
        *_server(figures.server),
        *_holders(figures.holders),
        *_tables(figures.tables, figures.server),
        *_indexes(figures.indexes, figures.server),
    ]


def confirmed(found: Iterable[Finding], before: Report | None) -> tuple[list[Finding], list[str]]:
    """(findings, suspects): what autovacuum mends within minutes is a finding only where the run before saw it too."""
    seen = set(before.suspects) if before is not None else set()
    findings: list[Finding] = []
    suspects: list[str] = []
    for finding in found:
        name = f"{finding.kind} {finding.subject}"
        if finding.kind in PASSING:
            suspects.append(name)
        if finding.kind not in PASSING or name in seen:
            findings.append(finding)
    return findings, suspects


def of_report(report: Report) -> Iterator[Finding]:
    """What a run could not do itself."""
    for table, why in sorted(report.put_off.items()):
        yield Finding(
            PUT_OFF, table, f"partitions older than is kept stay: {why}",
            "the next run tries again; where it stays so, end what holds the table (pg_stat_activity)",
        )  # fmt: skip
    for name, why in sorted(report.kept.items()):
        yield Finding(
            ORPHANED_STREAMS, name, f"of no feed or account any more: {why}", _keep_or_forget(name),
        )  # fmt: skip


def summed(tables: Iterable[Table]) -> dict[str, TableFigures]:
    """Figures by table, partitions counted into theirs; of the largest where there are many."""
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        of = found.setdefault(
            table.parent or table.name,
            {"rows": 0, "dead_rows": 0, "size_bytes": 0, "index_bytes": 0, "partitions": 0},
        )
        if table.partitioned:
            continue
        of["rows"] += round(table.rows) if table.rows >= 0 else table.live
        of["dead_rows"] += table.dead
        of["size_bytes"] += table.total
        of["index_bytes"] += table.index_bytes
        of["partitions"] += bool(table.parent)
    largest = sorted(found, key=lambda name: (-found[name]["size_bytes"], name))[:TABLES_AT_MOST]
    return {name: TableFigures(**found[name]) for name in sorted(largest)}


def _server(server: Server) -> Iterator[Finding]:
    for on, name in ((server.autovacuum, "autovacuum"), (server.counts, "track_counts")):
        if not on:
            yield Finding(
                AUTOVACUUM_OFF, name, f"{name} is off: dead rows and old statistics stay for ever",
                f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()",
            )  # fmt: skip
    for age, what in ((server.xid_age, "transactions"), (server.multixact_age, "multixacts")):
        if age > XID_AGE:
            yield Finding(
                WRAPAROUND, what, f"the oldest row is {age:,} {what} old; at 2,000,000,000 the server stops writing",
                "end what holds vacuum back (old transactions, prepared ones, slots), then VACUUM FREEZE",
            )  # fmt: skip


def _holders(holders: Iterable[Holder]) -> Iterator[Finding]:
    for holder in holders:
        if holder.kind == "slot":
            if holder.wal_bytes > WAL_AT_LEAST:
                state = "is read" if holder.active else "nobody reads"
                yield Finding(
                    WAL_KEPT, holder.name, f"a replication slot that {state} keeps {_size(holder.wal_bytes)} of WAL",
                    "let its reader catch up; where it is gone for good: SELECT pg_drop_replication_slot(...)",
                )  # fmt: skip
            if holder.holds_rows and not holder.active:
                yield Finding(
                    HELD_BACK, holder.name, "a replication slot that nobody reads keeps dead rows from being removed",
                    "start its reader, or SELECT pg_drop_replication_slot(...)",
                )  # fmt: skip
        elif holder.age > (OLD_BACKUP if holder.name.startswith(BACKUP) else OLD_TRANSACTION):
            prepared = holder.kind == "prepared"
            yield Finding(
                HELD_BACK, holder.name,
                f"a {'prepared ' if prepared else ''}transaction of {holder.age / HOUR:.1f} h keeps dead rows from"
                " being removed",
                "COMMIT PREPARED or ROLLBACK PREPARED it" if prepared else "end it: SELECT pg_terminate_backend(pid)",
            )  # fmt: skip


def _tables(tables: Iterable[Table], server: Server) -> Iterator[Finding]:
    scans: dict[str, tuple[int, int]] = {}
    for table in tables:
        name = table.parent or table.name
        seen = scans.get(name, (0, 0))
        scans[name] = (seen[0] + table.seq_scans, seen[1] + table.seq_rows)
        if table.partitioned:
            continue
        if not table.autovacuum:
            yield Finding(
                AUTOVACUUM_OFF, table.name, "autovacuum is off for this table",
                f"ALTER TABLE {table.name} RESET (autovacuum_enabled)",
            )  # fmt: skip
        rows = max(table.rows, float(table.live))
        usual = server.vacuum_threshold + server.vacuum_scale * rows
        if table.dead > max(DEAD_AT_LEAST, DEAD_FACTOR * usual):
            yield Finding(
                DEAD_ROWS, table.name,
                f"{table.dead:,} dead rows beside {rows:,.0f} live ones, last vacuumed {_ago(table.vacuumed)}",
                f"see what holds vacuum back (held_back), then VACUUM {table.name}; where it falls behind again, lower"
                " autovacuum_vacuum_scale_factor or autovacuum_vacuum_cost_delay",
            )  # fmt: skip
        old = table.analyzed is None or table.analyzed >= DAY
        if old and table.changed > max(rows, DEAD_AT_LEAST):
            yield Finding(
                STATISTICS, table.name,
                f"{table.changed:,} rows changed since its statistics were made ({_ago(table.analyzed)})",
                f"ANALYZE {table.name}; where it stays so, see whether autovacuum runs",
            )  # fmt: skip
        wasted = table.size - expected_size(table)
        if wasted > max(WASTE_AT_LEAST, table.size / 2):
            yield Finding(
                BLOAT, table.name, f"about {_size(wasted)} of its {_size(table.size)} hold nothing",
                "new rows use them again; to give them back VACUUM FULL (it locks the table) or pg_repack",
            )  # fmt: skip
    if server.counted >= COUNTED_AT_LEAST:
        for name, (count, read) in sorted(scans.items()):
            if count >= SCANS_AT_LEAST and read / count >= ROWS_AT_LEAST:
                yield Finding(
                    MISSING_INDEX, name,
                    f"read whole {count:,} times in {server.counted / DAY:.0f} days, {read / count:,.0f} rows each",
                    "find the statement (pg_stat_statements) and give its condition an index",
                )  # fmt: skip


def expected_size(table: Table) -> float:
    """Bytes the rows would take if they were written anew; the table's own where that is not known."""
    if table.row_bytes is None or table.rows < 0:
        return float(table.size)
    a_page = (PAGE - PAGE_HEADER) * table.fill / 100 // (table.row_bytes + ROW_OVERHEAD)
    return float(-(-max(table.rows, 0.0) // max(a_page, 1.0)) * PAGE)


def _indexes(indexes: Iterable[Index], server: Server) -> Iterator[Finding]:
    first: dict[tuple[str, str], Index] = {}
    # Of two that are alike the constraint's stays, or the older one.
    for index in sorted(indexes, key=lambda each: (not each.constraint, each.made)):
        if not index.valid:
            yield Finding(
                INVALID_INDEX, index.name, f"on {index.table}: it is kept up to date and never used",
                f"REINDEX INDEX CONCURRENTLY {index.name}, or drop it",
            )  # fmt: skip
            continue
        like = first.setdefault((index.table, index.columns), index)
        if like is not index and not index.constraint:
            yield Finding(
                DUPLICATE_INDEX, index.name, f"on {index.table}: the same as {like.name}", f"DROP INDEX {index.name}"
            )
        elif (
            not index.constraint
            and not index.scans
            and index.size > UNUSED_AT_LEAST
            and (server.counted >= COUNTED_AT_LEAST)
        ):
            yield Finding(
                UNUSED_INDEX, index.name,
                f"on {index.table}: {_size(index.size)}, not used in {server.counted / DAY:.0f} days",
                "drop it if you made it; Feedmill's own serve commands that are not used often",
            )  # fmt: skip
        if index.expected is not None and index.size - index.expected > max(WASTE_AT_LEAST, index.size * 2 / 3):
            yield Finding(
                BLOAT, index.name, f"on {index.table}: {_size(index.size)}, about {_size(index.expected)} made anew",
                f"REINDEX INDEX CONCURRENTLY {index.name}",
            )  # fmt: skip


def _keep_or_forget(name: str) -> str:
    if name.startswith("account "):
        return "it goes by itself once the account receivers have stored what is left"
    return f"bring the feed back until all is stored, or give up what is left: feedmill maintain forget {name}"


def _size(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / MIB:.0f} MiB"


def _ago(age: float | None) -> str:
    if age is None:
        return "never"
    return f"{age / DAY:.1f} days ago" if age >= DAY else f"{age / HOUR:.1f} h ago"
