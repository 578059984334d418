"""Backup and upkeep: is there a good backup, was it tried, is the database kept in order, are people told."""

from __future__ import annotations

from tools.dashboards.panels import (
    BYTES,
    COUNT,
    NAMESPACE,
    PIPELINE,
    PIPELINES,
    SECONDS,
    Board,
    Row,
    graph,
    stat,
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
    ),
)
