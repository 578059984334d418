"""Metrics of maintenance."""

from __future__ import annotations

import math

from prometheus_client import Counter, Histogram

from feedmill.general.maintenance.kinds import KINDS
from feedmill.general.maintenance.report import Report
from feedmill.shared.metrics import Gauge

runs = Counter("feedmill_maintenance_runs_total", "Runs.", ["outcome"])
made = Counter("feedmill_maintenance_partitions_made_total", "Partitions made.", ["table"])
dropped = Counter("feedmill_maintenance_partitions_dropped_total", "Partitions dropped.", ["table"])
aged = Counter("feedmill_maintenance_rows_aged_out_total", "Rows removed: older than is kept.", ["table"])
streams_removed = Counter(
    "feedmill_maintenance_streams_removed_total", "Feeds and accounts that are gone whose streams were removed."
)
streams_kept = Gauge(
    "feedmill_maintenance_streams_kept", "Feeds and accounts that are gone whose streams hold what was not stored."
)
duration = Histogram("feedmill_maintenance_run_seconds", "How long a run took.", buckets=(0.1, 0.5, 1, 5, 15, 60, 300))
findings = Gauge("feedmill_maintenance_findings", "What the last run found to be mended, by kind.", ["kind"])
table_bytes = Gauge("feedmill_maintenance_table_bytes", "Size of a table with indexes and partitions.", ["table"])
last_success = Gauge("feedmill_maintenance_last_success_timestamp_seconds", "When a run last succeeded; NaN before.")
last_success.set(math.nan)


def count(report: Report, seconds: float) -> None:
    """Take a run into account; ``seconds``: how long it took."""
    duration.observe(seconds)
    runs.labels(report.outcome).inc()
    for table, days in report.made.items():
        made.labels(table).inc(len(days))
    for table, days in report.dropped.items():
        dropped.labels(table).inc(len(days))
    for table, rows in report.aged.items():
        aged.labels(table).inc(rows)
    streams_removed.inc(len(report.removed))
    streams_kept.set(len(report.kept))
    for kind in KINDS:
        findings.labels(kind).set(sum(finding.kind == kind for finding in report.findings))
    for table, figures in report.tables.items():
        table_bytes.labels(table).set(figures.size_bytes)
    if not report.errors:
        last_success.set_to_current_time()
