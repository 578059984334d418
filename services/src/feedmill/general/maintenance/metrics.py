"""Metrics of maintenance."""

from __future__ import annotations

from prometheus_client import Counter

from feedmill.general.maintenance.checks import KINDS
from feedmill.general.maintenance.report import Report
from feedmill.shared.metrics import Gauge

runs = Counter("feedmill_maintenance_runs_total", "Runs.", ["outcome"])
made = Counter("feedmill_maintenance_partitions_made_total", "Partitions made.", ["table"])
dropped = Counter("feedmill_maintenance_partitions_dropped_total", "Partitions dropped.", ["table"])
aged = Counter("feedmill_maintenance_aged_rows_total", "Rows removed since they were older than is kept.", ["table"])
removed = Counter("feedmill_maintenance_orphans_removed_total", "Shards, accounts whose orphaned streams were removed.")
kept = Gauge("feedmill_maintenance_orphans", "Shards and accounts whose orphaned streams stay, after the last run.")
findings = Gauge("feedmill_maintenance_findings", "What the last run found to be mended, by kind.", ["kind"])
table_bytes = Gauge("feedmill_maintenance_table_bytes", "Size of a table with indexes and partitions.", ["table"])
last_success = Gauge("feedmill_maintenance_last_success_timestamp_seconds", "When a run last succeeded.")


def count(report: Report) -> None:
    """Take a run's report into account."""
    runs.labels(report.outcome).inc()
    for table, days in report.made.items():
        made.labels(table).inc(len(days))
    for table, days in report.dropped.items():
        dropped.labels(table).inc(len(days))
    for table, rows in report.aged.items():
        aged.labels(table).inc(rows)
    removed.inc(len(report.removed))
    kept.set(len(report.kept))
    for kind in KINDS:
        findings.labels(kind).set(sum(finding.kind == kind for finding in report.findings))
    for table, figures in report.tables.items():
        table_bytes.labels(table).set(figures.size_bytes)
    if not report.errors:
        last_success.set_to_current_time()
