"""Metrics of backups: registered at import, read by whoever scrapes the process."""

from __future__ import annotations

import math

from prometheus_client import Counter

from feedmill.shared.metrics import Gauge

runs = Counter("feedmill_backup_runs_total", "Backups that ended.", ["kind", "outcome"])
stored = Counter("feedmill_backup_stored_bytes_total", "Bytes stored at the destination.", ["kind"])
streaming = Gauge("feedmill_backup_wal_streaming", "1 while the database's log is received; NaN where none is to be.")
streaming.set(math.nan)
files = Counter("feedmill_backup_wal_files_total", "Files of the database's log stored at the destination.")
spool_bytes = Gauge("feedmill_backup_wal_spool_bytes", "Bytes of the log that wait for their upload.")
spool_limit = Gauge("feedmill_backup_wal_spool_limit_bytes", "Most bytes of the log that may wait.")
oldest = Gauge("feedmill_backup_wal_oldest_seconds", "Age of the oldest finished file that is not uploaded.")
kept = Gauge("feedmill_backup_wal_kept_bytes", "Bytes of its log that the server keeps until they are uploaded.")
begun_anew = Counter("feedmill_backup_wal_restarts_total", "Times that the stored log had to begin anew.", ["cause"])
store_up = Gauge("feedmill_backup_store_up", "1 while the destination took what was given to it last; NaN before.")
store_up.set(math.nan)
