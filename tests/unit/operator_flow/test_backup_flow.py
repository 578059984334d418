"""Backups on a cluster: what users ask for, what schedules did, and what the pipeline says of all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flow_world import PIPELINE, PIPELINE_TEXT, World

from feedmill.resources.backup_status import BackupRunStatus, RestoreRunStatus
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.reconcile import schedules
from feedmill_operator.reconcile.answer import read_answer
from feedmill_operator.reconcile.base import now
from feedmill_operator.reconcile.queue import Key

BACKUP = {
    "schedule": "0 3 * * *",
    "destination": {"b2": {"bucket": "backups", "credentialsSecretRef": {"name": "b2"}}},
    "encryption": {"keySecretRef": {"name": "backup-key", "key": "keys"}},
}
CREDENTIALS = {"keyId": "planted-id", "applicationKey": "planted-word"}
KEYS = {"keys": "first planted-key-text"}
NOW_TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedBackup
metadata: {name: now, namespace: ns}
spec: {pipelineRef: {name: main}, kind: Logical}
"""
RESTORE_TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedRestore
metadata: {name: back, namespace: ns}
spec: {pipelineRef: {name: main}, mode: Restore, toTime: "2026-11-25T03:00:00Z"}
"""
NOW, BACK = ("FeedBackup", "now"), ("FeedRestore", "back")
SAID = {
    "phase": "Succeeded", "progress": 100, "backupId": "20261126T030000Z-logical-3f9a1c", "destination": "b2:backups",
    "object": "ns/main/logical/20261126T030000Z-logical-3f9a1c/data", "sizeBytes": 5_368_709_120, "sha256": "ab" * 32,
    "rows": 1234, "contentAt": "2026-11-26T03:00:00.123456Z", "keyId": "first", "schemaVersion": "0003",
    "message": "1,234 rows of 20 tables",
}  # fmt: skip


async def backed(world: World, **spec: Any) -> None:
    """A pipeline at work, with backups and all they need."""
    await world.secret()
    await world.secret(CREDENTIALS, "b2")
    await world.secret(KEYS, "backup-key")
    await world.make(PIPELINE_TEXT, backup=BACKUP, **spec)
    await world.settle()
    if not spec.get("suspend"):
        await world.migrated()
        await world.rolled_out()


def pod_of(world: World, job: str, state: Manifest, phase: str, *, created: str = "", **more: Any) -> None:
    """A pod of a Job, as the API server has it."""
    labels = world.get("Job", job)["spec"]["template"]["metadata"]["labels"] | {"batch.kubernetes.io/job-name": job}
    name = f"{job}-{created[17:19] or 'abcde'}"
    version = str(int(world.controller.store.versions(kinds.POD).get(("ns", name), ("", "0"))[1]) + 1)
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": version, "labels": labels}
    if created:
        metadata["creationTimestamp"] = created
    status = {"phase": phase, "containerStatuses": [{"name": "backup-run", "state": state}], **more}
    world.controller.intake.take(kinds.POD, "ADDED", {"metadata": metadata, "status": status})


async def runs(world: World, job: str, said: dict[str, Any] | None = None) -> None:
    pod_of(world, job, {"running": {}}, "Running", podIP="10.0.0.9")
    await world.api.patch_status(kinds.JOB, "ns", job, {"status": {"active": 1, "startTime": "2026-11-26T03:00:00Z"}})
    await world.settle()
    if said is not None:
        run = Key("FeedRestore" if job.startswith("frs-") else "FeedBackup", "ns", job[4:])
        target = world.answers._targets[run][f"{job}-abcde"]
        world.answers._take(target, read_answer({"run": said}))
        await world.settle()


async def ends(
    world: World, job: str, said: dict[str, Any] | str, *, good: bool = True, at: str = "2026-11-26T03:10:00Z"
) -> None:
    text = said if isinstance(said, str) else json.dumps(said)
    ended = {"terminated": {"exitCode": 0 if good else 1, "reason": "Completed" if good else "Error", "message": text}}
    pod_of(world, job, ended, "Succeeded" if good else "Failed")
    condition = {"type": "Complete" if good else "Failed", "status": "True", "lastTransitionTime": at}
    if not good:
        condition |= {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
    status = {"startTime": "2026-11-26T03:00:00Z", "conditions": [condition]} | ({"completionTime": at} if good else {})
    await world.api.patch_status(kinds.JOB, "ns", job, {"status": status})
    await world.settle()


async def due(world: World, run: names.Run, number: int, name: str = "") -> str:
    """The CronJob makes a Job, or somebody does from it."""
    cron = world.get("CronJob", names.backup_schedule("main", run))
    name = name or f"{cron['metadata']['name']}-{number}"
    template = cron["spec"]["jobTemplate"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron["metadata"]["name"],
        "uid": "c",
        "controller": True,
    }
    metadata = {
        "name": name, "namespace": "ns", "labels": dict(template["metadata"]["labels"]), "ownerReferences": [owner],
        "creationTimestamp": f"2026-11-26T{number % 24:02}:00:00Z",
    }  # fmt: skip
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
    await world.api.create(kinds.JOB, manifest)
    await world.settle()
    return name


async def test_a_backup_is_carried_out_once_and_says_what_it_did(world: World) -> None:
    await backed(world)
    await world.make(NOW_TEXT)
    await world.settle()
    assert world.made(NOW) == ["Job fbk-now"]
    assert world.conditions(NOW) == {"Accepted": "True/Valid", "Complete": "False/Pending"}
    await runs(world, "fbk-now", {"phase": "Running", "progress": 43, "backupId": SAID["backupId"], "step": "dump"})
    status = world.status(NOW)
    assert (status["phase"], status["progress"], status["job"]) == ("Running", 40, "fbk-now")
    assert status["message"] == "dump"
    await ends(world, "fbk-now", SAID)
    status = world.status(NOW)
    assert {name: status[name] for name in SAID} == SAID
    assert status["size"] == "5.0Gi"
    assert (status["startedAt"], status["completedAt"]) == ("2026-11-26T03:00:00Z", "2026-11-26T03:10:00Z")
    assert world.conditions(NOW) == {"Accepted": "True/Valid", "Complete": "True/Succeeded"}
    assert world.told.of("Succeeded") == [SAID["message"]]
    BackupRunStatus.model_validate(status)
    assert world.status(PIPELINE)["backup"] == {"lastSuccess": "2026-11-26T03:00:00Z"}
    # Neither another image nor a lost Job begins it anew.
    world.writes()
    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:2"))
    await world.api.delete(kinds.JOB, "ns", "fbk-now")
    await world.settle()
    assert not [each for each in world.writes() if "now" in each and "delete" not in each]


async def test_another_image_does_not_begin_a_run_anew(world: World) -> None:
    await backed(world)
    await world.make(NOW_TEXT)
    await world.settle()
    await runs(world, "fbk-now")
    world.writes()
    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:2"))
    await world.settle()
    assert not [each for each in world.writes() if each.endswith("fbk-now")]


async def test_a_job_that_is_refused_says_why_and_comes_when_it_may(world: World) -> None:
    await backed(world)
    full = ApiError(403, "Forbidden", "exceeded quota: small, requested: count/jobs.batch=1")
    world.api.fail["apply", "fbk-now"] = [full]
    await world.make(NOW_TEXT)
    await world.settle(2.0)
    assert world.conditions(NOW) == {"Accepted": "True/Valid", "Complete": "False/QuotaExceeded"}
    assert world.status(NOW)["phase"] == "Pending"
    world.annotate(NOW, "look", "again")
    await world.settle()
    assert world.made(NOW) == ["Job fbk-now"]


async def test_a_job_that_is_deleted_under_way_is_a_failure(world: World) -> None:
    await backed(world)
    await world.make(NOW_TEXT)
    await world.settle()
    await runs(world, "fbk-now")
    await world.api.delete(kinds.JOB, "ns", "fbk-now")
    await world.settle()
    assert world.status(NOW)["phase"] == "Failed"
    assert world.conditions(NOW)["Complete"] == "False/JobGone"
    assert world.names("Job") == [names.migration("main", f"{world.image} servers/postgres")]


async def test_an_object_that_is_made_anew_does_not_take_the_former_ones_job_for_its_own(world: World) -> None:
    """`kubectl replace --force`: the garbage collector is not done when the next object is there."""
    await backed(world)
    await world.make(NOW_TEXT)
    await world.settle()
    await ends(world, "fbk-now", SAID)
    assert world.status(NOW)["phase"] == "Succeeded"
    former = world.get("Job", "fbk-now")["metadata"]["uid"]
    await world.api.delete(kinds.BACKUP, "ns", "now")
    await world.make(NOW_TEXT)
    await world.settle()
    status = world.status(NOW)
    assert (status["phase"], status.get("backupId")) == ("Pending", None)
    assert "former FeedBackup" in status["message"]
    await world.api.delete(kinds.JOB, "ns", "fbk-now")
    await world.settle()
    assert world.made(NOW) == ["Job fbk-now"]
    assert world.get("Job", "fbk-now")["metadata"]["uid"] != former


async def test_words_of_a_former_jobs_pod_are_not_those_of_the_next(world: World) -> None:
    await backed(world)
    job = await due(world, names.Run.LOGICAL, 5)
    ended = {"terminated": {"exitCode": 0, "message": json.dumps(SAID)}}
    pod_of(world, job, ended, "Succeeded", created="2026-11-26T04:59:59Z")
    await world.settle()
    assert "backupId" not in world.status(("FeedBackup", job))
    pod_of(world, job, ended, "Succeeded", created="2026-11-26T05:00:00Z")
    await world.settle()
    assert world.status(("FeedBackup", job))["backupId"] == SAID["backupId"]


async def test_a_job_whose_name_no_object_may_have_does_not_keep_others_from_being_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kubectl create job --from=cronjob/main-backup my.backup`."""
    await backed(world)
    create, refused = world.api.create, []

    async def by_rule(kind: Kind, manifest: Manifest) -> Manifest:
        if kind == kinds.BACKUP and "." in manifest["metadata"]["name"]:
            refused.append(manifest["metadata"]["name"])
            raise ApiError(422, "Invalid", "the name must be without a dot")
        return await create(kind, manifest)

    monkeypatch.setattr(world.api, "create", by_rule)
    await due(world, names.Run.LOGICAL, 1, "my.backup")
    await due(world, names.Run.LOGICAL, 2)
    await world.settle(600)
    assert world.names("FeedBackup") == ["main-backup-2"]
    assert world.conditions(PIPELINE)["Ready"] == "True/AllAvailable"
    assert refused == ["my.backup"]


async def test_backups_go_on_by_the_former_image_until_the_database_is_migrated(world: World) -> None:
    await backed(world)
    former = world.image
    crons = ("main-backup", "main-drill", "main-prune", "main-maintenance")

    def images() -> set[str]:
        templates = [world.get("CronJob", name)["spec"]["jobTemplate"]["spec"]["template"] for name in crons]
        return {template["spec"]["containers"][0]["image"] for template in templates}

    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:2"))
    await world.settle()
    assert images() == {former}
    # They take other changes meanwhile, and nothing goes back and forth.
    world.edit(PIPELINE, lambda found: found["spec"]["backup"].update(schedule="0 4 * * *"))
    await world.settle()
    assert world.get("CronJob", "main-backup")["spec"]["schedule"] == "0 4 * * *"
    world.writes()
    await world.settle(600)
    assert not [each for each in world.writes() if "CronJob" in each]
    await world.migrated_to("services:2")
    assert images() == {"services:2"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"phase": "Failed", "message": "the bucket backups does not exist"}, "the bucket backups does not exist"),
        ("Traceback: no such thing", "Traceback: no such thing"),
        ("", "Job has reached the specified backoff limit"),
        # Killed: the last it wrote was how far it is.
        ({"phase": "Running", "progress": 60}, "it was ended under way (Error)"),
    ],
)
async def test_a_failure_gives_its_last_words(world: World, said: Any, message: str) -> None:
    await backed(world)
    await world.make(NOW_TEXT)
    await world.settle()
    await ends(world, "fbk-now", said, good=False)
    status = world.status(NOW)
    assert (status["phase"], status["message"]) == ("Failed", message)
    assert world.conditions(NOW)["Complete"] == "False/RunFailed"
    assert world.told.of("RunFailed") == [message]
    assert world.conditions(PIPELINE)["BackupHealthy"] == "False/BackupFailed"
    assert message in world.message(PIPELINE, "BackupHealthy")
    # A pipeline whose backups fail is at work all the same.
    assert world.conditions(PIPELINE)["Accepted"] == "True/Valid"


async def test_what_cannot_begin_says_why_and_begins_when_it_can(world: World) -> None:
    await world.make(NOW_TEXT)
    await world.settle()
    assert world.conditions(NOW) == {"Accepted": "False/PipelineNotFound", "Complete": "False/PipelineNotFound"}
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.settle()
    assert world.conditions(NOW)["Accepted"] == "False/BackupNotConfigured"
    folder = {**BACKUP, "destination": {"folder": {"path": "/backups"}}}
    world.edit(PIPELINE, lambda found: found["spec"].update(backup=folder))
    await world.settle()
    assert world.conditions(NOW)["Accepted"] == "False/FolderWithoutClaim"
    assert world.conditions(PIPELINE)["BackupHealthy"] == "False/FolderWithoutClaim"
    world.edit(PIPELINE, lambda found: found["spec"].update(backup=BACKUP))
    await world.settle()
    assert world.conditions(NOW)["Accepted"] == "False/SecretNotFound"
    assert "backup-key" in world.message(NOW, "Accepted")
    await world.secret(KEYS, "backup-key")
    await world.secret({"keyId": "x"}, "b2")
    await world.settle()
    assert world.conditions(NOW)["Accepted"] == "False/SecretKeyMissing"
    assert world.status(NOW)["phase"] == "Pending"
    assert not world.made(NOW)
    world.edit(("Secret", "b2"), lambda found: found["data"].update(applicationKey="eA=="))
    await world.settle()
    assert world.conditions(NOW)["Accepted"] == "True/Valid"
    assert world.made(NOW) == ["Job fbk-now"]


@pytest.mark.parametrize(
    ("key", "credentials", "says"),
    [
        (KEYS | {"applicationKey": "planted-word"}, CREDENTIALS, "Secret backup-key holds applicationKey"),
        (KEYS, CREDENTIALS | {"copy": KEYS["keys"]}, "Secret b2 holds the key"),
    ],
)
async def test_key_and_credentials_in_one_place_are_refused(
    world: World, key: dict[str, str], credentials: dict[str, str], says: str
) -> None:
    await world.secret()
    await world.secret(credentials, "b2")
    await world.secret(key, "backup-key")
    await world.make(PIPELINE_TEXT, backup=BACKUP)
    await world.make(NOW_TEXT)
    await world.settle()
    assert world.conditions(NOW)["Accepted"] == "False/SecretInvalid"
    assert says in world.message(NOW, "Accepted")
    assert "planted" not in world.message(NOW, "Accepted")
    assert world.conditions(PIPELINE)["BackupHealthy"] == "False/SecretInvalid"


async def test_a_database_is_restored_only_while_nobody_works_with_it(world: World) -> None:
    await backed(world)
    await world.runs("main-processor-1", names.PROCESSOR)
    await world.make(RESTORE_TEXT)
    await world.settle()
    assert world.conditions(BACK)["Accepted"] == "False/PipelineAtWork"
    world.edit(PIPELINE, lambda found: found["spec"].update(suspend=True))
    await world.settle()
    assert world.conditions(BACK)["Accepted"] == "False/PipelineAtWork"
    assert "main-processor-1" in world.message(BACK, "Accepted")
    gone = {"metadata": {"name": "main-processor-1", "namespace": "ns", "uid": "main-processor-1"}}
    world.controller.intake.take(kinds.POD, "DELETED", gone)
    await world.settle()
    assert world.made(BACK) == ["Job frs-back"]
    args = world.get("Job", "frs-back")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:4] == ["backup", "restore", "--to", "2026-11-25T03:00:00Z"]
    said = {"phase": "Succeeded", "restoredTo": "2026-11-25T03:00:00Z", "tables": 20, "gaps": 3, "rows": 7}
    await ends(world, "frs-back", said)
    status = world.status(BACK)
    assert {name: status[name] for name in said} == said
    RestoreRunStatus.model_validate(status)
    # It was no drill.
    assert "lastVerified" not in world.status(PIPELINE).get("backup", {})


async def test_what_a_schedule_did_is_seen(world: World) -> None:
    await backed(world)
    assert world.conditions(PIPELINE)["BackupHealthy"] == "Unknown/NeverBackedUp"
    job = await due(world, names.Run.LOGICAL, 1)
    what = ("FeedBackup", job)
    assert world.get(*what)["spec"] == {"pipelineRef": {"name": "main"}, "kind": "Logical"}
    assert world.status(what)["job"] == job
    assert world.made(what) == []
    await ends(world, job, SAID)
    assert world.status(what)["phase"] == "Succeeded"
    drill = ("FeedRestore", await due(world, names.Run.VERIFY, 2))
    assert world.get(*drill)["spec"] == {"pipelineRef": {"name": "main"}, "mode": "Verify"}
    await ends(world, drill[1], {"phase": "Succeeded", "tables": 20, "rows": 1234})
    assert world.status(drill)["tables"] == 20
    assert world.status(PIPELINE)["backup"] == {
        "lastSuccess": "2026-11-26T03:00:00Z", "lastVerified": "2026-11-26T03:10:00Z",
    }  # fmt: skip
    # Whoever deletes the object does not get it back, and the Job of the schedule is the CronJob's to delete.
    await world.api.delete(kinds.BACKUP, "ns", job)
    await world.settle(300)
    assert world.names("FeedBackup") == []
    assert job in world.names("Job")


async def test_what_a_schedule_did_while_the_operator_was_away_is_seen_later(world: World) -> None:
    await backed(world)
    await world.stop()
    job = await due_unseen(world)
    done = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    await world.api.patch_status(kinds.JOB, "ns", job, {"status": done})
    await world.start()
    await world.settle(5.0)
    assert world.names("FeedBackup") == [job]
    assert world.status(("FeedBackup", job))["phase"] == "Succeeded"
    assert world.writes().count(f"create FeedBackup {job}") == 1


async def due_unseen(world: World) -> str:
    world.api.tell = lambda kind, change, obj: None
    cron = world.get("CronJob", "main-backup")
    labels = dict(cron["spec"]["jobTemplate"]["metadata"]["labels"])
    metadata = {"name": "main-backup-7", "namespace": "ns", "labels": labels}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": cron["spec"]["jobTemplate"]["spec"],
    }
    await world.api.create(kinds.JOB, manifest)
    return "main-backup-7"


async def test_a_failed_drill_is_told_although_the_backups_are_good(world: World) -> None:
    await backed(world)
    await ends(world, await due(world, names.Run.LOGICAL, 1), fresh(SAID))
    assert world.conditions(PIPELINE)["BackupHealthy"] == "True/BackedUp"
    drill = await due(world, names.Run.VERIFY, 2)
    await ends(world, drill, {"phase": "Failed", "message": "trades: 7 rows are missing"}, good=False)
    assert world.conditions(PIPELINE)["BackupHealthy"] == "False/DrillFailed"
    assert "7 rows are missing" in world.message(PIPELINE, "BackupHealthy")


def fresh(said: dict[str, Any]) -> dict[str, Any]:
    """Of a moment that is not long ago, whenever the test runs."""
    return {**said, "contentAt": now()}


async def test_what_deletes_old_backups_is_no_backup_and_its_failure_is_told(world: World) -> None:
    await backed(world)
    await ends(world, await due(world, names.Run.LOGICAL, 1), fresh(SAID))
    job = await due(world, names.Run.PRUNE, 2)
    await ends(world, job, {"phase": "Failed", "message": "the key may not delete"}, good=False)
    assert world.names("FeedBackup") == ["main-backup-1"]
    assert world.conditions(PIPELINE)["BackupHealthy"] == "False/PruneFailed"
    assert "the key may not delete" in world.message(PIPELINE, "BackupHealthy")
    await ends(world, await due(world, names.Run.PRUNE, 3), {"phase": "Succeeded"}, at="2026-11-26T04:00:00Z")
    assert world.conditions(PIPELINE)["BackupHealthy"] == "True/BackedUp"


async def test_old_objects_of_a_schedule_go_and_the_last_good_one_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "KEPT", 2)
    await backed(world)
    await world.make(NOW_TEXT)
    jobs = [await due(world, names.Run.LOGICAL, number) for number in range(1, 6)]
    for number, job in enumerate(jobs):
        await ends(world, job, SAID if number == 1 else "no", good=number == 1)
    await world.settle()
    assert world.names("FeedBackup") == [jobs[1], jobs[3], jobs[4], "now"]


async def test_a_paused_pipeline_takes_nothing_up(world: World) -> None:
    await backed(world)
    world.annotate(PIPELINE, names.PAUSE, "true")
    await world.settle()
    await due(world, names.Run.LOGICAL, 1)
    assert world.names("FeedBackup") == []
    world.annotate(PIPELINE, names.PAUSE, None)
    await world.settle()
    assert world.names("FeedBackup") == ["main-backup-1"]


async def test_no_secret_comes_into_what_is_written(world: World) -> None:
    await backed(world)
    await world.make(NOW_TEXT)
    await world.settle()
    await ends(world, "fbk-now", {**SAID, "message": "b2 said https://u:planted-pass@host/x?token=planted-token"})
    await world.settle()
    shown = json.dumps([found for (kind, _, _), found in world.api.objects.items() if kind != "Secret"])
    assert "planted" not in shown
