"""Never backed up, failed, stale and good are told apart, and what is known outlives the objects it is known of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from status_facts import after, pipeline, shown

from feedmill.resources.backup_policy import Backup
from feedmill_operator.reconcile.facts import BackupFacts, JobFacts, PipelineFacts, RunRecord
from feedmill_operator.reconcile.log_said import LogSaid, read_log
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.run_status import size_text
from feedmill_operator.reconcile.status import Change, change, pipeline_status
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal

NOW = "2026-11-26T12:00:00Z"
MADE = "2026-11-20T12:00:00Z"
SPEC = {
    "schedule": "0 3 * * *",
    "timeZone": "Europe/Berlin",
    "destination": {"b2": {"bucket": "backups", "credentialsSecretRef": {"name": "b2"}}},
    "encryption": {"keySecretRef": {"name": "backup-key", "key": "keys"}},
}
NOWHERE = Trouble(Reason.UNSCHEDULABLE, "no node")
CONTINUOUS = Backup.model_validate(SPEC | {"continuous": {"enabled": True}})


def good(day: int, hour: int = 2) -> RunRecord:
    """Of three o'clock in Berlin."""
    at = f"2026-11-{day:02}T{hour:02}"
    return RunRecord(f"b-{day}", "Succeeded", f"{at}:00:00Z", f"{at}:10:00Z", f"{at}:00:01.5Z")


def bad(day: int, message: str = "the disk is full") -> RunRecord:
    at = f"2026-11-{day:02}T02"
    return RunRecord(f"b-{day}", "Failed", f"{at}:00:00Z", f"{at}:10:00Z", "", message)


PRUNED = JobFacts("main-prune-1", ended="2026-11-26T03:00:00Z", succeeded=True)
RUNS = RunRecord("b-26", "Running", "2026-11-26T02:00:00Z")


def facts(*backups: RunRecord, before: dict[str, Any] | None = None, **more: Any) -> PipelineFacts:
    given = {"backup": Backup.model_validate(SPEC), "since": MADE, "backups": backups} | more
    return pipeline(backups=BackupFacts(**given), before=before or {})


def told(of: PipelineFacts) -> tuple[str, str]:
    status = pipeline_status(of, NOW)
    (message,) = [each["message"] for each in status["conditions"] if each["type"] == "BackupHealthy"]
    return shown(status)["BackupHealthy"], message


@pytest.mark.parametrize(
    ("of", "condition", "says"),
    [
        (facts(good(26)), "True/BackedUp", "2026-11-26T02:00:01Z"),
        # One that is due may just be at work.
        (facts(good(25)), "True/BackedUp", "2026-11-25"),
        (facts(good(25), RUNS), "True/BackedUp", "2026-11-25"),
        (facts(good(24)), "False/BackupStale", "2026-11-24T02:00:01Z"),
        (facts(good(24), RUNS), "False/BackupStale", "twice"),
        # A day of Berlin: at 02:30 UTC the one of 03:00 there is half an hour old.
        (facts(since="2026-11-26T03:00:00Z"), "Unknown/NeverBackedUp", "due at 2026-11-27T02:00:00Z"),
        (facts(RUNS, since="2026-11-25T12:00:00Z"), "Unknown/NeverBackedUp", "no backup was made yet"),
        (facts(since=MADE), "False/NeverBackedUp", "due twice"),
        (facts(since=""), "Unknown/NeverBackedUp", "no backup was made yet"),
        (facts(good(25), bad(26)), "False/BackupFailed", "good one is of 2026-11-25T02:00:01Z: the disk is full"),
        (facts(bad(26)), "False/BackupFailed", "there is no good one"),
        (facts(bad(25), good(26)), "True/BackedUp", "2026-11-26"),
        # It went while nobody looked, and is told to have failed later than the next one ended.
        (facts(replace(bad(25), ended=NOW), good(26)), "True/BackedUp", "2026-11-26"),
        (facts(good(26), suspended=True), "Unknown/Suspended", "suspended"),
        (facts(good(26), refusal=Refusal(Reason.SECRET_NOT_FOUND, "no b2")), "False/SecretNotFound", "no b2"),
        (facts(good(26), drills=[bad(20, "rows are missing")]), "False/DrillFailed", "rows are missing"),
        (facts(good(26), drills=[bad(20), good(21)]), "True/BackedUp", ""),
        (facts(good(26), log=LogSaid(False, "no")), "True/BackedUp", ""),
        (facts(good(26), backup=CONTINUOUS, log=LogSaid(False, "no line")), "False/ReplicationRefused", "no line"),
        (facts(good(26), backup=CONTINUOUS, log=LogSaid(True, "B2 is away")), "False/LogNotUploaded", "B2 is away"),
        (facts(good(26), backup=CONTINUOUS, log=LogSaid(True)), "True/BackedUp", ""),
        (facts(good(26), prune=PRUNED), "True/BackedUp", ""),
        (facts(good(26), prune=replace(PRUNED, failed="x", last_words="no right to delete")), "False/PruneFailed",
         "no right to delete"),
        (facts(good(26), backup=CONTINUOUS, log=None), "True/BackedUp", ""),
        (facts(good(26), backup=CONTINUOUS, log_trouble=NOWHERE), "False/Unschedulable", "no node"),
        (facts(backup=Backup.model_validate(SPEC | {"schedule": "0 0 30 2 *"})), "Unknown/NeverBackedUp", "never due"),
    ],
)  # fmt: skip
def test_health(of: PipelineFacts, condition: str, says: str) -> None:
    found, message = told(of)
    assert found == condition
    assert says in message


def test_the_last_success_outlives_its_object() -> None:
    first = facts(good(25), drills=[good(24)], backup=CONTINUOUS, log=LogSaid(True, "", "2026-11-26T11:59:00Z"))
    status = pipeline_status(first, NOW)
    assert status["backup"] == {
        "lastSuccess": "2026-11-25T02:00:01Z", "lastVerified": "2026-11-24T02:10:00Z",
        "continuousTo": "2026-11-26T11:59:00Z",
    }  # fmt: skip
    later = facts(before=status, backup=CONTINUOUS)
    assert pipeline_status(later, NOW)["backup"] == status["backup"]
    assert told(later)[0] == "True/BackedUp"
    # The log moves all the time: seldom worth a write, and nobody waits for it.
    moved = facts(before=status, backup=CONTINUOUS, log=LogSaid(True, "", "2026-11-26T12:00:00Z"))
    assert change(status, pipeline_status(moved, NOW)) is Change.LIVE
    made = facts(good(26), before=status, backup=CONTINUOUS)
    assert change(status, pipeline_status(made, NOW)) is Change.MINOR
    # Without continuous backups there is no such moment.
    assert "continuousTo" not in pipeline_status(facts(before=status), NOW)["backup"]
    assert "backup" not in pipeline_status(after(pipeline(), before=status), NOW)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (None, None),
        ({}, None),
        ("streaming", None),
        ({"allowed": True, "uploadedToNs": 1_795_694_399_999_999_999}, LogSaid(True, "", "2026-11-26T11:59:00Z")),
        ({"allowed": False, "problem": "a\nb"}, LogSaid(False, "a b")),
        ({"allowed": "no", "uploadedToNs": 10**40}, LogSaid()),
    ],
)
def test_what_is_said_of_the_log(section: Any, said: LogSaid | None) -> None:
    assert read_log(section) == said


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0Ki"), (1_500_000, "1.4Mi"), (5 << 30, "5.0Gi"), (200 << 40, "200Ti"),
     (5 << 50, "5120Ti")],
)  # fmt: skip
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_text(count) == text
