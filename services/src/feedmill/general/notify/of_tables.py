"""What the tables show to be wrong: gaps that stay open, keys that expire, backups and maintenance overdue. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedmill.general.maintenance import kinds
from feedmill.general.notify.notices import Finding, Look
from feedmill.resources.cron import parse_cron, zone_of
from feedmill.shared.clock import SECOND

KEY_DAYS = 7
MAINTENANCE = 86_400 * SECOND
"""Maintenance that has not succeeded for so long is overdue."""
GRACE = 3600 * SECOND
"""A backup may take so long after the time of its schedule."""
KINDS = ("GapOpen/", "KeyExpires/", "BackupStale", "Maintenance", "DatabaseTrouble/")
"""What is judged here, for a look that could not read the tables."""
URGENT = (kinds.AUTOVACUUM_OFF, kinds.HELD_BACK, kinds.INVALID_INDEX, kinds.WAL_KEPT, kinds.WRAPAROUND)
"""Findings of maintenance that are told; the others are in its report."""


@dataclass(frozen=True, slots=True)
class OpenGaps:
    """Open gap rows of one shard, channel and cause. Times are ns."""

    shard: str
    channel: str
    cause: str
    gaps: int
    missing: int
    """Numbers that are still missing, where they are numbered."""
    instruments: int
    symbols: tuple[str, ...]
    since_ns: int


@dataclass(frozen=True, slots=True)
class Tables:
    """What was read. None = never."""

    gaps: Sequence[OpenGaps] = ()
    keys: Sequence[tuple[str, int]] = ()
    """(account, when its key ends), of those that do so soon."""
    backup_ns: int | None = None
    """Begin of the last good logical backup."""
    backup_error: str = ""
    """Of the last one, where it failed."""
    first_ns: int | None = None
    """Since when backups are expected at the earliest."""
    maintained_ns: int | None = None
    """End of the last good run of maintenance."""
    maintenance: Mapping[str, Any] = field(default_factory=dict)
    """Report of the last run that ended, and its outcome."""
    accounts: Collection[str] = field(default=(), repr=False)
    """namespace/name of each, for masking."""


def judge(pipeline: str, feeds: Collection[str], schedule: tuple[str, str] | None, tables: Tables, now: int) -> Look:
    """``schedule``: cron form and time zone of the backups; None = none are expected."""
    findings = [*_gaps(feeds, tables.gaps)]
    for account, expires in tables.keys:
        if expires < now + KEY_DAYS * 86_400 * SECOND:
            findings.append(Finding("KeyExpires", account, f"KeyExpires/{account}", {"expires_ns": expires}))
    if schedule is not None and _overdue(schedule, tables, now):
        body: dict[str, Any] = {"last_ns": tables.backup_ns, "error": tables.backup_error}
        findings.append(Finding("BackupStale", pipeline, "BackupStale", body))
    findings += _maintenance(pipeline, tables.maintenance)
    if tables.maintained_ns is not None and now - tables.maintained_ns > MAINTENANCE:
        body = {"last_ns": tables.maintained_ns}
        findings.append(Finding("MaintenanceStale", pipeline, "MaintenanceStale", body))
    return Look(tuple(findings))


def _maintenance(pipeline: str, last: Mapping[str, Any]) -> list[Finding]:
    found = []
    if last.get("outcome") in ("failed", "partly"):
        found.append(Finding("MaintenanceFailed", pipeline, "MaintenanceFailed", {"errors": last.get("errors") or {}}))
    for each in last.get("findings") or ():
        if each.get("kind") in URGENT:
            key = f"DatabaseTrouble/{each['kind']}/{each.get('subject')}"
            body = {"text": each.get("text"), "remedy": each.get("remedy")}
            found.append(Finding("DatabaseTrouble", str(each.get("subject")), key, body))
    return found


def _gaps(feeds: Collection[str], rows: Sequence[OpenGaps]) -> list[Finding]:
    """One finding a feed, or an account."""
    of_feed: dict[str, list[OpenGaps]] = defaultdict(list)
    for row in rows:
        namespace, name = row.shard.split(".")[:2]
        feed = f"{namespace}/{name}"
        if feed in feeds or name.startswith("@"):
            of_feed[feed].append(row)
    return [
        Finding("GapOpen", feed, f"GapOpen/{feed}", {"channels": _channels(found)}, min(row.since_ns for row in found))
        for feed, found in sorted(of_feed.items())
    ]


def _channels(rows: Sequence[OpenGaps]) -> list[Mapping[str, Any]]:
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        each = merged.setdefault(
            (row.channel, row.cause),
            {"channel": row.channel, "cause": row.cause, "gaps": 0, "missing": 0, "instruments": 0, "symbols": []},
        )
        each["gaps"] += row.gaps
        each["missing"] += row.missing
        each["instruments"] += row.instruments
        each["symbols"] = [*each["symbols"], *row.symbols][:5]
    return [merged[key] for key in sorted(merged)]


def _overdue(schedule: tuple[str, str], tables: Tables, now: int) -> bool:
    """Two times of the schedule have passed, the second an hour ago, and nothing good was begun since the first."""
    cron, zone = parse_cron(schedule[0]), zone_of(schedule[1])
    second = cron.last_before(now - GRACE, zone)
    first = cron.last_before(second - 1, zone) if second is not None else None
    if first is None:
        return False
    since = tables.backup_ns if tables.backup_ns is not None else tables.first_ns
    return since is not None and since < first
