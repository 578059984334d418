"""Backup and upkeep: is there a good backup, was it tried, is the database kept in order, are people told."""

from __future__ import annotations

from tools.dashboards.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    NAMESPACE,
    PIPELINE,
    PIPELINES,
    SECONDS,
    Board,
    Row,
    by,
    graph,
    rare,
    rose,
    stat,
    within_hour,
)

_WHOSE = "namespace, feedmill_dev_pipeline"
DRILL, NO_DRILL = ', kind="drill"', ', kind!="drill"'
_NAMED = "{{namespace}}/{{feedmill_dev_pipeline}}"


def _newest(metric: str, labels: str = "", chosen: str = "") -> str:
    """Every replica of the processor tells the same."""
    return f"max by ({_WHOSE}{labels}) (feedmill_database_{metric}{{{PIPELINE}{chosen}}})"


def _age(chosen: str = "") -> str:
    return f"time() - {_newest('backup_succeeded_timestamp_seconds', ', kind', chosen)}"


_EACH = f"{_NAMED} {{{{kind}}}}"

BOARD = Board(
    "backup",
    "Feedmill / Backup and upkeep",
    "Whether there is a good backup and it was tried, and whether the database is kept in order.",
    (NAMESPACE, PIPELINES),
    (
        Row(
            "Now",
            (
                stat(
                    "Newest good backup",
                    "Its age.",
                    SECONDS,
                    f"min({_age(NO_DRILL)})",
                    none="never",
                ),
                stat(
                    "Newest good drill",
                    "Since a backup was last restored, to try it.",
                    SECONDS,
                    f"min({_age(DRILL)})",
                    none="never",
                ),
                stat(
                    "Overdue",
                    "Backups and drills of the schedule that are not there.",
                    COUNT,
                    f"count({_newest('backup_overdue_seconds', ', kind')} > 0)",
                    none="none",
                ),
                stat(
                    "Failed",
                    "Kinds of which the newest failed.",
                    COUNT,
                    f"sum({_newest('backup_failed', ', kind')})",
                    none="none",
                ),
                stat("Database", "Its size.", BYTES, f"sum({_newest('size_bytes')})"),
                stat(
                    "Maintained",
                    "Since the last good run of maintenance.",
                    SECONDS,
                    f"max(time() - {_newest('maintained_timestamp_seconds')})",
                ),
            ),
        ),
        Row(
            "Backups",
            (
                graph("Age", "Of the newest good one.", SECONDS, (_age(), _EACH)),
                graph(
                    "Overdue",
                    "Since when one of the schedule is due that is not there.",
                    SECONDS,
                    (_newest("backup_overdue_seconds", ", kind"), _EACH),
                ),
                graph(
                    "Failed",
                    "1 while the newest that ended is a failed one.",
                    COUNT,
                    (_newest("backup_failed", ", kind"), _EACH),
                ),
                graph("Size", "Sealed.", BYTES, (_newest("backup_size_bytes", ", kind"), _EACH)),
                graph(
                    "Time",
                    "That the newest good one took.",
                    SECONDS,
                    (_newest("backup_took_seconds", ", kind"), _EACH),
                ),
                graph("Database", "Its size.", BYTES, (_newest("size_bytes"), _NAMED)),
            ),
        ),
        Row(
            "The database's log (where spec.backup.continuous is enabled)",
            (
                rare("Received", "1 while it is.", COUNT, (f"feedmill_backup_wal_streaming{{{PIPELINE}}}", "{{pod}}")),
                graph(
                    "Files stored",
                    "At the destination, within an hour.",
                    COUNT,
                    (within_hour("pod", "feedmill_backup_wal_files_total", PIPELINE), "{{pod}}"),
                ),
                graph(
                    "Stored",
                    "Bytes a second, by kind.",
                    BYTES_PER_SECOND,
                    (by("kind", "feedmill_backup_stored_bytes_total", PIPELINE), "{{kind}}"),
                ),
                graph(
                    "Waiting",
                    "Bytes that wait for their upload, and how many may.",
                    BYTES,
                    (f"feedmill_backup_wal_spool_bytes{{{PIPELINE}}}", "{{pod}}"),
                    (f"feedmill_backup_wal_spool_limit_bytes{{{PIPELINE}}}", "{{pod}}, at most"),
                ),
                graph(
                    "Oldest that waits",
                    "Age of the oldest finished file that is not stored: so much a restore would miss.",
                    SECONDS,
                    (f"feedmill_backup_wal_oldest_seconds{{{PIPELINE}}}", "{{pod}}"),
                ),
                graph(
                    "Kept by the server",
                    "Bytes of its log that it keeps until they are uploaded.",
                    BYTES,
                    (f"feedmill_backup_wal_kept_bytes{{{PIPELINE}}}", "{{pod}}"),
                ),
            ),
        ),
        Row(
            "Upkeep and telling people",
            (
                rare("Found", "By maintenance, to be mended.", COUNT, (_newest("findings", ", kind"), _EACH)),
                graph(
                    "Messages",
                    "Within an hour, by what became of them.",
                    COUNT,
                    (rose("outcome", "feedmill_notify_messages_total", PIPELINE), "{{outcome}}"),
                ),
                graph(
                    "Notices that wait",
                    "In the outbox; in quiet hours they do.",
                    COUNT,
                    (
                        f"max by (namespace, feedmill_dev_pipeline) (feedmill_notify_waiting_notices{{{PIPELINE}}})",
                        _NAMED,
                    ),
                ),
                graph(
                    "Oldest notice that waits",
                    "Its age, quiet hours among it.",
                    SECONDS,
                    (f"max by ({_WHOSE}) (feedmill_notify_oldest_waiting_seconds{{{PIPELINE}}})", _NAMED),
                ),
                rare(
                    "Wrong now",
                    "What the notifier told and is still so, by kind.",
                    COUNT,
                    (f"sum by (kind) (feedmill_notify_active_states{{{PIPELINE}}}) > 0", "{{kind}}"),
                ),
                graph(
                    "Refused",
                    "1 while the token or the chat is.",
                    COUNT,
                    (f"max by (pod) (feedmill_notify_blocked{{{PIPELINE}}})", "{{pod}}"),
                ),
            ),
        ),
    ),
)
