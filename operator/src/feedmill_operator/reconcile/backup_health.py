"""Whether a pipeline's backups can be relied on: never made, failed, stale and good are told apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from feedmill_operator.reconcile.conditions import Finding, no, unknown, yes
from feedmill_operator.reconcile.facts import BackupFacts, PipelineFacts, RunRecord
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.run_status import FINAL, failure

_NS = 1_000_000_000


def backup_health(facts: PipelineFacts, now: str) -> Finding:
    """The condition BackupHealthy. ``now``: RFC 3339."""
    found = facts.backups
    if found is None and facts.unreadable:
        return unknown(Reason.NOT_ACCEPTED, "it cannot be told while the spec is not accepted")
    if found is None:
        return unknown(Reason.NOT_CONFIGURED, "no backup is configured (spec.backup)")
    if found.refusal is not None:
        return no(found.refusal.reason, f"no backup can be made: {found.refusal.message}")
    if found.suspended:
        return unknown(Reason.SUSPENDED, "no backup is made by schedule while it is suspended")
    last = _newest_ended(found.backups)
    good = last_success(facts)
    if last is not None and last.phase == "Failed":
        kept = f"; the last good one is of {good}" if good else "; there is no good one"
        return no(Reason.BACKUP_FAILED, f"the last backup ({last.name}) failed{kept}: {last.message}")
    overdue = _overdue(found, good, now)
    if not good:
        return _never(found, now, overdue=overdue)
    if overdue:
        message = (
            f"the last good backup is of {good}, and the schedule ({found.backup.schedule}, {found.backup.time_zone}) "
            "was due twice since: see its CronJob and Jobs (`kubectl get cronjob,job`)"
        )
        return no(Reason.BACKUP_STALE, message)
    return (
        _drilled(found)
        or _continuous(found)
        or _pruned(found)
        or yes(Reason.BACKED_UP, f"the last good backup is of {good}")
    )


def summary(facts: PipelineFacts) -> dict[str, Any] | None:
    """``status.backup``; None where no backups are configured."""
    found = facts.backups
    if found is None:
        return None
    before = facts.before.get("backup") or {}
    drilled = max((each.ended for each in found.drills if each.phase == "Succeeded"), default="")
    continuous = found.backup.continuous.enabled
    made = {
        "lastSuccess": last_success(facts),
        "lastVerified": max(drilled, str(before.get("lastVerified") or "")),
        "continuousTo": ((found.log.uploaded_to if found.log else "") or before.get("continuousTo"))
        if continuous
        else "",
    }
    return {name: value for name, value in made.items() if value}


def last_success(facts: PipelineFacts) -> str:
    """The moment that the newest good backup is of; empty = there is none. It is remembered beyond its FeedBackup."""
    assert facts.backups is not None  # Who asks has looked.
    made = (each.content or each.started for each in facts.backups.backups if each.phase == "Succeeded")
    before = str((facts.before.get("backup") or {}).get("lastSuccess") or "")
    # To the second: fractions would not compare.
    return max((_seconds(each) for each in (*made, before) if each), default="")


def _newest_ended(runs: Sequence[RunRecord]) -> RunRecord | None:
    # By its begin: how one ended that was not seen ending is told late.
    ended = (each for each in runs if each.phase in FINAL)
    return max(ended, key=lambda each: (each.started or each.ended, each.ended), default=None)


def _overdue(found: BackupFacts, good: str, now: str) -> bool:
    """Whether the schedule was due twice since the last good backup, or since it was made. Once may just be at work."""
    since = good or found.since
    if not since:
        return False
    zone, schedule = found.backup.time_zone, found.backup.schedule
    last = schedule.last_before(_ns(now), zone)
    before_that = schedule.last_before(last - 1, zone) if last is not None else None
    return before_that is not None and before_that > _ns(since)


def _never(found: BackupFacts, now: str, *, overdue: bool) -> Finding:
    if overdue:
        message = (
            "no backup was ever made, though the schedule was due twice: see its CronJob and Jobs (`kubectl get "
            "cronjob,job`)"
        )
        return no(Reason.NEVER_BACKED_UP, message)
    due = found.backup.schedule.next_after(_ns(now), found.backup.time_zone)
    when = f"the first is due at {_text(due)}" if due is not None else "and the schedule is never due: change it"
    return unknown(Reason.NEVER_BACKED_UP, f"no backup was made yet, {when}")


def _drilled(found: BackupFacts) -> Finding | None:
    last = _newest_ended(found.drills)
    if last is None or last.phase != "Failed":
        return None
    return no(Reason.DRILL_FAILED, f"a backup could not be restored in the last drill ({last.name}): {last.message}")


def _pruned(found: BackupFacts) -> Finding | None:
    job = found.prune
    if job is None or not job.failed:
        return None
    return no(Reason.PRUNE_FAILED, f"old backups were not deleted, so they become more: {failure(job)}")


def _continuous(found: BackupFacts) -> Finding | None:
    if not found.backup.continuous.enabled:
        return None
    if found.log_trouble is not None:
        return no(found.log_trouble.reason, f"the log is not uploaded: {found.log_trouble.message}")
    if found.log is None:
        return None
    if found.log.allowed is False:
        said = found.log.problem or "the server lets no replication connection in"
        message = f"{said}: only the backups of the schedule are made, no restore to a moment is possible"
        return no(Reason.REPLICATION_REFUSED, message)
    if found.log.problem:
        return no(Reason.LOG_NOT_UPLOADED, f"the log is not uploaded: {found.log.problem}")
    return None


def _ns(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp()) * _NS


def _seconds(moment: str) -> str:
    return f"{moment[:19]}Z"


def _text(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
