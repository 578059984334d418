"""Facts of a FeedBackup or FeedRestore -> its ``status``. Pure."""

from __future__ import annotations

from typing import Any

from feedmill_operator.reconcile.conditions import Finding, conditions, no, yes
from feedmill_operator.reconcile.facts import JobFacts, RunFacts
from feedmill_operator.reconcile.reasons import Reason, Type

FINAL = ("Succeeded", "Failed")
"""Phases that nothing follows."""
_SIZES = ("", "Ki", "Mi", "Gi", "Ti")
_OWN = ("observedGeneration", "conditions", "phase", "job", "startedAt", "completedAt", "progress", "message")


def run_status(facts: RunFacts, now: str) -> dict[str, Any]:
    """The whole status. ``now``: RFC 3339."""
    job = facts.job
    complete, phase = _complete(facts)
    if facts.refusal is not None and job is None:
        accepted = no(facts.refusal.reason, facts.refusal.message)
    else:
        accepted = yes(Reason.VALID, "the spec can be carried out")
    status = {
        "observedGeneration": facts.generation,
        "conditions": conditions(
            {Type.ACCEPTED: accepted, Type.COMPLETE: complete}, facts.before.get("conditions") or (),
            facts.generation, now,
        ),
        "phase": phase,
        "job": job.name if job is not None else facts.before.get("job"),
        "startedAt": (job.started if job is not None else "") or facts.before.get("startedAt"),
        "completedAt": ((job.ended if job is not None else "") or now) if phase in FINAL else None,
        "progress": _progress(job, phase, facts),
        "message": complete.message or None,
        **_said(facts),
    }  # fmt: skip
    return {name: value for name, value in status.items() if value is not None}


def size_text(count: int) -> str:
    """``1.2Gi``: for a column."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_SIZES) - 1:
        size, unit = size / 1024, unit + 1
    digits = 1 if unit and size < 100 else 0
    return f"{size:.{digits}f}{_SIZES[unit]}"


def _complete(facts: RunFacts) -> tuple[Finding, str]:
    job = facts.job
    if job is None:
        if facts.before.get("job"):
            gone = (
                f"its Job {facts.before['job']} was deleted before it ended, or before anybody saw how: make a new "
                "object to try again"
            )
            return no(Reason.JOB_GONE, gone), "Failed"
        held = facts.refusal or facts.problem
        if held is not None:
            return no(held.reason, held.message), "Pending"
        return no(Reason.PENDING, "its Job is being made"), "Pending"
    words = job.said.message if job.said is not None else ""
    if job.succeeded:
        return yes(Reason.SUCCEEDED, words), "Succeeded"
    if job.failed:
        return no(Reason.RUN_FAILED, failure(job)), "Failed"
    if job.running:
        return no(Reason.RUNNING, words), "Running"
    if job.trouble is not None:
        return no(job.trouble.reason, job.trouble.message), "Pending"
    return no(Reason.PENDING, "its pod is starting"), "Pending"


def failure(job: JobFacts) -> str:
    """Why a Job failed, by whoever knows it best."""
    ended = job.said is not None and job.said.phase == "Failed"
    return (job.said.message if ended and job.said is not None else "") or job.last_words or job.failed


def _progress(job: JobFacts | None, phase: str, facts: RunFacts) -> int | None:
    if phase == "Succeeded":
        return 100
    told = job.said.progress if job is not None and job.said is not None else None
    return told if told is not None else facts.before.get("progress")


def _said(facts: RunFacts) -> dict[str, Any]:
    """What the run itself knows; what it said before counts until it says more."""
    kept = {name: value for name, value in facts.before.items() if name not in _OWN and name != "size"}
    if facts.job is not None and facts.job.said is not None:
        kept |= facts.job.said.fields
    if isinstance(size := kept.get("sizeBytes"), int):
        kept["size"] = size_text(size)
    return kept
